"""Projections of weights, applied after each step of the optimizer: `constraint(w) -> w`.

Norms are taken along `axis` (one or several): 0 gives the weights that go into each unit of a (features, units) matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import config, registry
from .registry import Configurable, register


@dataclass(eq=False, repr=False)
class Constraint(Configurable):
    """Base class: subclasses give `__call__`."""

    kind = "constraint"

    def __call__(self, w: np.ndarray) -> np.ndarray:
        return w


@register("constraint")
@dataclass(eq=False, repr=False)
class MaxNorm(Constraint):
    """Norms above `max_value` are brought down to it."""

    max_value: float = 2
    axis: int | Sequence[int] = 0

    def __call__(self, w: np.ndarray) -> np.ndarray:
        norms = _norms(w, self.axis)
        return w * (np.minimum(norms, self.max_value) / (config.epsilon() + norms))


@register("constraint", "nonneg")
@dataclass(eq=False, repr=False)
class NonNeg(Constraint):
    """Negative weights become 0."""

    def __call__(self, w: np.ndarray) -> np.ndarray:
        return np.maximum(w, 0)


@register("constraint")
@dataclass(eq=False, repr=False)
class UnitNorm(Constraint):
    """Norms become 1."""

    axis: int | Sequence[int] = 0

    def __call__(self, w: np.ndarray) -> np.ndarray:
        return w / (config.epsilon() + _norms(w, self.axis))


@register("constraint")
@dataclass(eq=False, repr=False)
class MinMaxNorm(Constraint):
    """Norms are moved by the share `rate` of the way into [min_value, max_value]."""

    min_value: float = 0.0
    max_value: float = 1.0
    rate: float = 1.0
    axis: int | Sequence[int] = 0

    def __call__(self, w: np.ndarray) -> np.ndarray:
        norms = _norms(w, self.axis)
        wanted = self.rate * np.clip(norms, self.min_value, self.max_value) + (1 - self.rate) * norms
        return w * (wanted / (config.epsilon() + norms))


def _norms(w: np.ndarray, axis: int | Sequence[int]) -> np.ndarray:
    return np.sqrt(np.square(w).sum(axis=axis if isinstance(axis, int) else tuple(axis), keepdims=True))


def get(identifier: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """A constraint from a name, a configuration, a class, or a function of an array; None stays None."""
    found = registry.get("constraint", identifier, custom_objects)
    if found is not None and not callable(found):
        raise ValueError(f"a constraint is a name or a function of an array; received {identifier!r}")
    return found


max_norm, non_neg, unit_norm, min_max_norm = MaxNorm, NonNeg, UnitNorm, MinMaxNorm
