"""Losses as metrics, and what is left of the square error."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np

from .. import losses, masks
from ..losses.loss import same_shape
from ..registry import register
from .metric import Metric, RowMetric, select_rows


@dataclass(eq=False, repr=False)
class LossMetric(RowMetric):
    """The mean of a loss over rows."""

    def loss(self) -> losses.Loss:
        raise NotImplementedError

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return self.loss()(y_true, y_pred)


@register("metric", "mse", "MSE")
class MeanSquaredError(LossMetric):
    def loss(self) -> losses.Loss:
        return losses.MeanSquaredError(reduction="none")


@register("metric", "mae", "MAE")
class MeanAbsoluteError(LossMetric):
    def loss(self) -> losses.Loss:
        return losses.MeanAbsoluteError(reduction="none")


@register("metric", "mape", "MAPE")
class MeanAbsolutePercentageError(LossMetric):
    def loss(self) -> losses.Loss:
        return losses.MeanAbsolutePercentageError(reduction="none")


@register("metric", "msle", "MSLE")
class MeanSquaredLogarithmicError(LossMetric):
    def loss(self) -> losses.Loss:
        return losses.MeanSquaredLogarithmicError(reduction="none")


@register("metric", "log_cosh", "logcosh")
@dataclass(eq=False, repr=False)
class LogCoshError(LossMetric):
    def __post_init__(self) -> None:
        self.name = self.name or "logcosh"
        super().__post_init__()

    def loss(self) -> losses.Loss:
        return losses.LogCosh(reduction="none")


@register("metric", "kld", "KLD", "kullback_leibler_divergence")
class KLDivergence(LossMetric):
    def loss(self) -> losses.Loss:
        return losses.KLDivergence(reduction="none")


@register("metric")
class Poisson(LossMetric):
    def loss(self) -> losses.Loss:
        return losses.Poisson(reduction="none")


@register("metric")
class Hinge(LossMetric):
    def loss(self) -> losses.Loss:
        return losses.Hinge(reduction="none")


@register("metric")
class SquaredHinge(LossMetric):
    def loss(self) -> losses.Loss:
        return losses.SquaredHinge(reduction="none")


@register("metric")
class CategoricalHinge(LossMetric):
    def loss(self) -> losses.Loss:
        return losses.CategoricalHinge(reduction="none")


@register("metric", "bce", "BCE")
@dataclass(eq=False, repr=False)
class BinaryCrossentropy(LossMetric):
    _: KW_ONLY
    from_logits: bool = False
    label_smoothing: float = 0.0

    def loss(self) -> losses.Loss:
        return losses.BinaryCrossentropy(self.from_logits, self.label_smoothing, reduction="none")


@register("metric")
@dataclass(eq=False, repr=False)
class CategoricalCrossentropy(LossMetric):
    _: KW_ONLY
    from_logits: bool = False
    label_smoothing: float = 0.0
    axis: int = -1

    def loss(self) -> losses.Loss:
        return losses.CategoricalCrossentropy(self.from_logits, self.label_smoothing, self.axis, reduction="none")


@register("metric")
@dataclass(eq=False, repr=False)
class SparseCategoricalCrossentropy(LossMetric):
    _: KW_ONLY
    from_logits: bool = False
    ignore_class: int | None = None
    axis: int = -1

    def loss(self) -> losses.Loss:
        return losses.SparseCategoricalCrossentropy(self.from_logits, axis=self.axis, reduction="none")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        """Positions of the class `ignore_class` have weight 0."""
        if self.ignore_class is not None:
            labels = self.loss().check(y_true, y_pred)[0]
            sample_weight = masks.as_weights(labels != self.ignore_class, sample_weight)
        super().update_state(y_true, y_pred, sample_weight)


@register("metric")
@dataclass(eq=False, repr=False)
class CosineSimilarity(LossMetric):
    """sum(y / |y| * p / |p|) along `axis`"""

    _: KW_ONLY
    axis: int = -1

    def loss(self) -> losses.Loss:
        return losses.CosineSimilarity(self.axis, reduction="none")

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return -super().values(y_true, y_pred)


@register("metric", "rmse", "RMSE")
class RootMeanSquaredError(RowMetric):
    """sqrt(mean((p - y) ** 2))"""

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        y_true, y_pred = same_shape(y_true, y_pred, str(self.name))
        return np.square(y_pred - y_true.astype(y_pred.dtype, copy=False))

    def result(self) -> float:
        return math.sqrt(super().result())


AGGREGATIONS = ("uniform_average", "variance_weighted_average", None)


@register("metric", "r2")
@dataclass(eq=False, repr=False)
class R2Score(Metric):
    """1 - sum((y - p) ** 2) / sum((y - mean(y)) ** 2) for each column, columns averaged.

    Args:
        class_aggregation: "uniform_average", "variance_weighted_average", or None for one score per column.
        num_regressors: n > 0 adjusts for n independent variables: 1 - (1 - r2) (samples - 1) / (samples - n - 1).
    """

    class_aggregation: str | None = "uniform_average"
    num_regressors: int = 0
    _: KW_ONLY
    name: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.class_aggregation not in AGGREGATIONS:
            raise ValueError(
                f"R2Score: class_aggregation must be one of {AGGREGATIONS}; received {self.class_aggregation!r}"
            )
        if self.num_regressors < 0:
            raise ValueError(f"R2Score: num_regressors must be >= 0; received {self.num_regressors!r}")
        super().__post_init__()

    def reset_state(self) -> None:
        self._count = self._values = 0.0
        self._sum = self._squares = self._errors = np.zeros(1)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_true, y_pred = same_shape(y_true, y_pred, str(self.name))
        self._values += y_true.size
        y_true, y_pred, weights, _ = select_rows(y_true, y_pred, sample_weight, str(self.name))
        columns = y_pred.shape[-1]
        y, p = y_true.reshape(-1, columns).astype(np.float64), y_pred.reshape(-1, columns).astype(np.float64)
        w = np.repeat(weights, len(y) // max(1, len(weights)))[:, None]
        self._count += float(w.sum())
        self._sum = self._sum + (w * y).sum(axis=0)
        self._squares = self._squares + (w * y * y).sum(axis=0)
        self._errors = self._errors + (w * np.square(y - p)).sum(axis=0)

    def result(self) -> Any:
        if not self._count:
            return 0.0
        spread = self._squares - self._sum**2 / self._count
        scores = np.where(spread == 0, 0.0, 1 - self._errors / np.where(spread == 0, 1, spread))
        score: Any = scores
        if self.class_aggregation == "uniform_average":
            score = float(scores.mean())
        elif self.class_aggregation == "variance_weighted_average":
            score = float((spread * scores).sum() / spread.sum())
        left = self._values - self.num_regressors - 1
        return 1 - (1 - score) * (self._values - 1) / left if self.num_regressors and left > 0 else score
