"""What metrics share: totals in float64, and weights that select.

A weight belongs to a sample, (batch,), or to a step, (batch, time); a mask is a weight of 0 and 1. What has weight 0 is
not looked at, so it may hold NaN or impossible labels. A batch counts by its samples: steps are averaged within it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..registry import Configurable, register, serialize, snake_case


@dataclass(eq=False, repr=False)
class Metric(Configurable):
    """Base class: subclasses give `reset_state`, `update_state` and `result`.

    Attributes:
        forgets: whether `update_state` keeps none of the arrays that it is given.

    What is counted is plain attributes, which `reset_state` makes; the constructor calls it:

        class Largest(Metric):
            def reset_state(self):
                self.value = 0.0

            def update_state(self, y_true, y_pred, sample_weight=None):
                self.value = max(self.value, abs(y_true - y_pred).max())

            def result(self):
                return self.value
    """

    kind = "metric"
    forgets: ClassVar[bool] = False
    _: KW_ONLY
    name: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.name = self.name or snake_case(type(self).__name__)
        self.reset_state()

    def reset_state(self) -> None:
        """Forgets every batch."""
        raise NotImplementedError(f"{type(self).__name__} must define reset_state()")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Takes in one batch."""
        raise NotImplementedError(f"{type(self).__name__} must define update_state(y_true, y_pred, sample_weight)")

    def result(self) -> Any:
        """The metric over the batches since `reset_state`."""
        raise NotImplementedError(f"{type(self).__name__} must define result()")

    def __call__(self, *args: Any, **named: Any) -> Any:
        self.update_state(*args, **named)
        return self.result()


@register("metric")
@dataclass(eq=False, repr=False)
class Sum(Metric):
    """sum(w * value)"""

    name: str | None = field(default=None, repr=False)

    def reset_state(self) -> None:
        self.total = 0.0

    def update_state(self, values: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        values = np.asarray(values)
        if sample_weight is None:
            self.total += float(values.sum(dtype=np.float64))
            return
        weights = _weights(sample_weight, values.shape, str(self.name))
        kept = weights != 0
        rows = values[kept].reshape(int(kept.sum()), -1)
        self.total += float((rows.sum(axis=1, dtype=np.float64) * weights[kept]).sum())

    def result(self) -> float:
        return self.total


@register("metric")
@dataclass(eq=False, repr=False)
class Mean(Metric):
    """sum(w * value) / sum(w)"""

    name: str | None = field(default=None, repr=False)

    def reset_state(self) -> None:
        self.total = self.count = 0.0

    def update_state(self, values: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        values = np.asarray(values)
        if sample_weight is None:
            samples = values.shape[0] if values.ndim else 1
            self._add(values.reshape(samples, -1), np.ones(samples))
            return
        weights = np.asarray(sample_weight)
        if values.ndim == 0:
            self._add(values.reshape(1, 1), weights.sum(keepdims=True).reshape(1))
            return
        if weights.ndim > max(values.ndim, 1):
            weights = weights.max(axis=tuple(range(values.ndim, weights.ndim)))
        weights = _weights(weights, values.shape, str(self.name))
        kept = weights != 0
        self._add(values[kept].reshape(int(kept.sum()), -1), weights[kept] / math.prod(weights.shape[1:]))

    def _add(self, rows: np.ndarray, weights: np.ndarray) -> None:
        """Rows of values (M, ...) are averaged, and count with their weights (M,)."""
        if rows.size:
            values = rows.reshape(len(rows), -1).mean(axis=1, dtype=np.float64)
            self.total += float((values * weights).sum())
            self.count += float(weights.sum(dtype=np.float64))

    def result(self) -> float:
        return self.total / self.count if self.count else 0.0


@dataclass(eq=False, repr=False)
class RowMetric(Mean):
    """A mean of values that each row of predictions has of its own: subclasses give `values`.

    Attributes:
        replays: whether `values` may be part of a recorded step: it is up to the kernels, and to no argument.
    """

    forgets = True
    _: KW_ONLY
    name: str | None = field(default=None, repr=False)

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        """(batch, ...) values for a batch, or for the rows of it that count."""
        raise NotImplementedError

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        if sample_weight is None:  # every sample has the same number of steps, so the mean is that of all values
            y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
            check_batch(y_true, y_pred, str(self.name))
            if y_pred.size:
                values = np.asarray(self.values(y_true, y_pred))
                total = np.count_nonzero(values) if values.dtype == bool else values.sum(dtype=np.float64)
                self.take(float(total), values.size, len(values))
            return
        rows = select_rows(y_true, y_pred, sample_weight, str(self.name))
        if rows.y_pred.size:
            self._add(np.asarray(self.values(rows.y_true, rows.y_pred)), rows.weights / rows.steps)

    def take(self, total: float, size: int, samples: int) -> None:
        """Takes in the sum of `size` values of a batch of `samples`."""
        self.total += total * samples / size
        self.count += samples


@register("metric")
class MeanMetricWrapper(Mean):
    """The mean of what a function `fn(y_true, y_pred, **options)` gives: a number, or values (batch, ...)."""

    def __init__(self, fn: Callable[..., Any], name: str | None = None, **options: Any) -> None:
        self.fn, self.options = fn, options
        super().__init__(name=name or getattr(fn, "__name__", None) or snake_case(type(fn).__name__))

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        super().update_state(self.fn(np.asarray(y_true), np.asarray(y_pred), **self.options), sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {"fn": serialize(self.fn), "name": self.name, **{k: serialize(v) for k, v in self.options.items()}}

    def __repr__(self) -> str:
        return f"MeanMetricWrapper({self.name})"


class Rows(NamedTuple):
    """The samples that count, or the steps where weights are per step, and how many of these a sample has."""

    y_true: np.ndarray
    y_pred: np.ndarray
    weights: np.ndarray
    steps: int


def select_rows(y_true: Any, y_pred: Any, sample_weight: Any, what: str) -> Rows:
    """Targets (M, ...), predictions (M, ...) and weights (M,) of whatever has a weight that is not 0.

    Raises:
        ValueError: naming `what`, if batch or weights do not fit.
    """
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    check_batch(y_true, y_pred, what)
    if sample_weight is None:
        return Rows(y_true, y_pred, np.ones(len(y_pred)), 1)
    positions = y_pred.shape[: max(1, y_pred.ndim - 1)]
    weights = _weights(sample_weight, positions, what)
    if y_true.shape[: weights.ndim] != weights.shape:
        raise ValueError(f"{what}: y_true has shape {y_true.shape}, its weights or mask have shape {weights.shape}")
    kept = weights != 0
    return Rows(y_true[kept], y_pred[kept], weights[kept], math.prod(weights.shape[1:]))


def check_batch(y_true: np.ndarray, y_pred: np.ndarray, what: str) -> None:
    """Raises ValueError, naming `what`, unless targets and predictions are of as many samples."""
    if y_true.shape[:1] != y_pred.shape[:1] or not y_pred.ndim:
        raise ValueError(f"{what}: y_true has shape {y_true.shape}, y_pred has shape {y_pred.shape}")


def _weights(sample_weight: Any, positions: tuple[int, ...], what: str) -> np.ndarray:
    """Weights of the first axis of `positions`, or of several; trailing axes of 1 are dropped."""
    weights = np.asarray(sample_weight, dtype=np.float64)
    if weights.ndim == 0:
        weights = np.broadcast_to(weights, positions[:1])
    while weights.ndim > 1 and weights.shape[-1] == 1:
        weights = weights[..., 0]
    if weights.shape != positions[: weights.ndim]:
        shape = np.shape(sample_weight)
        raise ValueError(f"{what}: sample_weight must have shape {positions} or its first axes; received {shape}")
    return weights
