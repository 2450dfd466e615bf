"""Penalties on weights and outputs: `value_and_gradient(x) -> (float, dx)`.

The value is a sum in float64; the gradient has the dtype of `x`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import config, registry
from .registry import Configurable, register


@dataclass(eq=False, repr=False)
class Regularizer(Configurable):
    """Base class: subclasses give `value_and_gradient`."""

    kind = "regularizer"

    def __call__(self, x: Any) -> float:
        return self.value_and_gradient(config.float_array(x))[0]

    def value_and_gradient(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        raise NotImplementedError(f"{type(self).__name__} must define value_and_gradient(x)")


@register("regularizer")
@dataclass(eq=False, repr=False)
class L1(Regularizer):
    """l1 * sum(|x|)"""

    l1: float = 0.01

    def __post_init__(self) -> None:
        self.l1 = _factor(self, "l1")

    def value_and_gradient(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        return self.l1 * _sum(np.abs(x)), self.l1 * np.sign(x)


@register("regularizer")
@dataclass(eq=False, repr=False)
class L2(Regularizer):
    """l2 * sum(x ** 2)"""

    l2: float = 0.01

    def __post_init__(self) -> None:
        self.l2 = _factor(self, "l2")

    def value_and_gradient(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        return self.l2 * _sum(np.square(x)), 2 * self.l2 * x


@register("regularizer")
@dataclass(eq=False, repr=False)
class L1L2(Regularizer):
    """l1 * sum(|x|) + l2 * sum(x ** 2); a factor left out is 0, both left out ("l1_l2") are 0.01."""

    l1: float | None = None
    l2: float | None = None

    def __post_init__(self) -> None:
        default = 0.01 if self.l1 is None and self.l2 is None else 0.0
        self.l1 = default if self.l1 is None else _factor(self, "l1")
        self.l2 = default if self.l2 is None else _factor(self, "l2")

    def value_and_gradient(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        l1, l2 = self.l1 or 0.0, self.l2 or 0.0
        return l1 * _sum(np.abs(x)) + l2 * _sum(np.square(x)), l1 * np.sign(x) + 2 * l2 * x


@register("regularizer")
@dataclass(eq=False, repr=False)
class OrthogonalRegularizer(Regularizer):
    """`factor` times the mean |cosine| over all pairs of rows (`mode="rows"`) or columns of a matrix."""

    factor: float = 0.01
    mode: str = "rows"

    def __post_init__(self) -> None:
        self.factor = _factor(self, "factor")
        if self.mode not in ("rows", "columns"):
            raise ValueError(f"OrthogonalRegularizer: mode must be rows or columns; received {self.mode!r}")

    def value_and_gradient(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """With unit rows u_i = x_i / |x_i| and s_ij = sign(u_i . u_j), i != j:

        value = f / (n (n - 1)) * sum_ij |u_i . u_j|;  du_i = 2 f / (n (n - 1)) * sum_j s_ij u_j;
        dx_i = (du_i - (du_i . u_i) u_i) / |x_i|
        """
        if x.ndim != 2:
            raise ValueError(f"OrthogonalRegularizer expects a matrix; received the shape {x.shape}")
        rows = x if self.mode == "rows" else x.T
        n = rows.shape[0]
        scale = self.factor / max(1, n * (n - 1))
        norms = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
        inverse = 1 / np.maximum(norms, config.epsilon())
        unit = rows * inverse
        cosines = unit @ unit.T
        np.fill_diagonal(cosines, 0)
        dunit = 2 * scale * (np.sign(cosines) @ unit)
        along = (dunit * unit).sum(axis=1, keepdims=True) * unit
        dx = (dunit - np.where(norms > config.epsilon(), along, 0)) * inverse
        return scale * _sum(np.abs(cosines)), np.ascontiguousarray(dx if self.mode == "rows" else dx.T)


def _sum(x: np.ndarray) -> float:
    return float(x.sum(dtype=np.float64))


def _factor(regularizer: Regularizer, name: str) -> float:
    value = getattr(regularizer, name)
    if not isinstance(value, (int, float, np.number)) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{type(regularizer).__name__}: {name} must be a number >= 0; received {value!r}")
    return float(value)


def get(identifier: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """A regularizer from a name, a configuration, a class, or an object with `value_and_gradient`; None stays None.

    Raises:
        ValueError: for a plain function, of which the gradient is not known.
    """
    found = registry.get("regularizer", identifier, custom_objects)
    if found is not None and not hasattr(found, "value_and_gradient"):
        raise ValueError(f"a regularizer needs value_and_gradient(x) -> (value, gradient); received {identifier!r}")
    return found


l1, l2, l1_l2, orthogonal_regularizer = L1, L2, L1L2, OrthogonalRegularizer
