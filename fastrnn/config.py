"""The default float type and the small number that keeps divisions and logarithms finite."""

from __future__ import annotations

from typing import Any

import numpy as np

FLOAT_DTYPES = ("float32", "float64")
_floatx = "float32"
_epsilon = 1e-7


def floatx() -> str:
    """The dtype of layers and losses that are given none: "float32" until `set_floatx` says otherwise."""
    return _floatx


def set_floatx(dtype: Any) -> None:
    """Makes `dtype` ("float32" or "float64") the default of everything built afterwards."""
    global _floatx
    _floatx = float_dtype(dtype, "floatx")


def epsilon() -> float:
    """The fuzz factor of losses, metrics and constraints: 1e-7 until `set_epsilon` says otherwise."""
    return _epsilon


def set_epsilon(value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"epsilon must lie between 0 and 1; received {value!r}")
    global _epsilon
    _epsilon = float(value)


def float_dtype(dtype: Any, what: str = "dtype") -> str:
    """`dtype` as "float32" or "float64"; None gives `floatx()`.

    Raises:
        ValueError: for any other type.
    """
    if dtype is None:
        return _floatx
    try:
        name = np.dtype(dtype).name
    except TypeError:
        name = None
    if name not in FLOAT_DTYPES:
        raise ValueError(f"{what} must be one of {', '.join(FLOAT_DTYPES)}; received {dtype!r}")
    return name


def float_array(x: Any) -> np.ndarray:
    """`x` as an array of float32 or float64: these stay what they are, everything else becomes `floatx()`."""
    x = np.asarray(x)
    return x if x.dtype.char in "fd" else x.astype(_floatx)
