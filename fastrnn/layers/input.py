"""Where a graph begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, field
from typing import Any

import numpy as np

from .. import graph
from ..graph import SymbolicTensor
from ..registry import register
from ..states import Context
from .layer import Array, Layer

DTYPES = ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")


@register("layer")
@dataclass(eq=False, repr=False)
class InputLayer(Layer):
    """The place where arrays enter a graph. Its one output is `layer.output`.

    Args:
        shape: sizes of the axes after the batch; None where any size will do.
        batch_size: size of the batch axis, if it is to be fixed.
        dtype: any float, integer or bool type; arrays are converted to it.
        batch_shape: `(batch_size, *shape)`, instead of the two.

    Raises:
        ValueError: for an impossible shape or an unknown dtype.
    """

    shape: Any = None
    batch_size: int | None = None
    _: KW_ONLY
    dtype: Any = field(default=None)
    batch_shape: InitVar[Any] = None

    def __post_init__(self, batch_shape: Any) -> None:
        dtype, self.dtype = self.dtype, None
        super().__post_init__()
        if dtype is not None:
            self.dtype = _dtype(dtype)
        if (self.shape is None) == (batch_shape is None):
            raise ValueError("Input takes either shape or batch_shape")
        if batch_shape is not None:
            self.batch_size, *self.shape = _sizes("batch_shape", batch_shape)
        self.shape = _sizes("shape", self.shape)
        _sizes("batch_size", [self.batch_size])
        self.build(None)
        self._nodes.append(graph.Node(self, [], (self.batch_size, *self.shape), self.dtype))

    def output_dtype(self, dtype: Any) -> str:
        return self.dtype

    def cast(self, x: Any) -> Array:
        """`x` in the input's dtype. Raises ValueError where an integer input is given fractions."""
        array = self.as_array(x)
        if array.dtype.kind == "f" and np.dtype(self.dtype).kind in "iu" and not (array == np.trunc(array)).all():
            raise ValueError(f"{self.title} has dtype {self.dtype}; received numbers that are not whole")
        return np.asarray(array, self.dtype, order="C")

    def forward(self, x: Array, mask: Any, context: Context) -> tuple[Array, None]:
        return x, None

    def backward(self, saved: None, dy: Array) -> Array:
        return dy


def _dtype(dtype: Any) -> str:
    try:
        name = np.dtype(dtype).name
    except TypeError:
        name = None
    if name not in DTYPES:
        raise ValueError(f"Input: dtype must be one of {', '.join(DTYPES)}; received {dtype!r}")
    return name


def _sizes(argument: str, sizes: Any) -> tuple[int | None, ...]:
    """`sizes` as a tuple of positive integers and None."""
    if not isinstance(sizes, (Sequence, np.ndarray)) or isinstance(sizes, str):
        raise ValueError(f"Input: {argument} must be a tuple like (None, 10); received {sizes!r}")
    for n in sizes:
        if n is not None and (isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1):
            raise ValueError(f"Input: the sizes of {argument} must be positive integers or None; received {sizes!r}")
    return tuple(None if n is None else int(n) for n in sizes)


def Input(
    shape: Any = None,
    batch_size: int | None = None,
    dtype: Any = None,
    sparse: Any = None,
    ragged: Any = None,
    batch_shape: Any = None,
    name: str | None = None,
    tensor: Any = None,
    optional: bool = False,
) -> SymbolicTensor:
    """A symbolic tensor that stands for an input of a model: `Input((None, 10))` for sequences of 10 features.

    Args:
        shape, batch_size, dtype, batch_shape, name: as in `InputLayer`.
        sparse, ragged, tensor, optional: must be left out; they are here for the order of the arguments.
    """
    if sparse or ragged or tensor is not None or optional:
        raise ValueError("Input: sparse, ragged, tensor and optional are not supported")
    layer = InputLayer(shape, batch_size, dtype=dtype, batch_shape=batch_shape, name=name)
    return layer.output
