"""Metrics of counts: true and false positives, false negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np

from .. import config
from ..losses.loss import same_shape
from ..registry import register
from .metric import Metric, select_rows


@dataclass(eq=False, repr=False)
class _Counts(Metric):
    """Counts of predictions above each threshold.

    Args:
        thresholds: a number or several (0.5; with `top_k` none).
        top_k: only the k largest predictions of a row may be positive.
        class_id: only this column of targets and predictions counts.
    """

    thresholds: float | Sequence[float] | None = None
    top_k: int | None = None
    class_id: int | None = None
    _: KW_ONLY
    name: str | None = field(default=None, repr=False)

    def reset_state(self) -> None:
        zeros = np.zeros(len(self.thresholds) if isinstance(self.thresholds, Sequence) else 1)
        self.true_positives, self.false_positives, self.false_negatives = zeros, zeros, zeros

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_true, y_pred = same_shape(y_true, y_pred, str(self.name))
        y_true, y_pred, weights, _ = select_rows(y_true, y_pred, sample_weight, str(self.name))
        if self.top_k is not None:
            smallest = np.partition(y_pred, -self.top_k, axis=-1)[..., -self.top_k, None]
            y_pred = np.where(y_pred >= smallest, y_pred, -np.inf)
        if self.class_id is not None:
            y_true, y_pred = y_true[..., self.class_id], y_pred[..., self.class_id]
        if not len(y_pred):
            return
        y, p = y_true.reshape(len(y_true), -1) != 0, y_pred.reshape(len(y_pred), -1)
        thresholds = self.thresholds if self.thresholds is not None else -np.inf if self.top_k is not None else 0.5
        positive = [p > t for t in np.atleast_1d(thresholds)]

        def count(hits: list[np.ndarray]) -> np.ndarray:
            return np.array([float((h.sum(axis=1) * weights).sum()) for h in hits])

        self.true_positives = self.true_positives + count([y & h for h in positive])
        self.false_positives = self.false_positives + count([~y & h for h in positive])
        self.false_negatives = self.false_negatives + count([y & ~h for h in positive])

    def _ratio(self, others: np.ndarray) -> Any:
        whole = self.true_positives + others
        ratios = np.divide(self.true_positives, whole, out=np.zeros_like(whole), where=whole != 0)
        return ratios if isinstance(self.thresholds, Sequence) else float(ratios[0])


@register("metric")
class Precision(_Counts):
    """true positives / (true positives + false positives), 0 where there are none."""

    def result(self) -> Any:
        return self._ratio(self.false_positives)


@register("metric")
class Recall(_Counts):
    """true positives / (true positives + false negatives), 0 where there are none."""

    def result(self) -> Any:
        return self._ratio(self.false_negatives)


AVERAGES = (None, "micro", "macro", "weighted")


@register("metric", "fbeta_score")
@dataclass(eq=False, repr=False)
class FBetaScore(Metric):
    """(1 + b ** 2) precision recall / (b ** 2 precision + recall), for one-hot or multi-hot targets.

    Args:
        average: None for one score per class; "micro" counts all classes together, "macro" is the mean of the scores,
            "weighted" their mean by how often a class occurs.
        beta: b.
        threshold: a prediction above it is positive; None: the largest of each row is.
    """

    average: str | None = None
    beta: float = 1.0
    threshold: float | None = None
    _: KW_ONLY
    name: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.average not in AVERAGES:
            raise ValueError(f"{type(self).__name__}: average must be one of {AVERAGES}; received {self.average!r}")
        self.name = self.name or ("f1_score" if type(self).__name__ == "F1Score" else "fbeta_score")
        super().__post_init__()

    def reset_state(self) -> None:
        self.true_positives = self.false_positives = self.false_negatives = np.zeros(1)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_true, y_pred = same_shape(y_true, y_pred, str(self.name))
        columns = y_pred.shape[-1]
        y_true, y_pred, weights, _ = select_rows(y_true, y_pred, sample_weight, str(self.name))
        w = np.repeat(weights, y_pred.size // columns // max(1, len(weights)))[:, None]
        y, p = y_true.reshape(-1, columns).astype(np.float64), y_pred.reshape(-1, columns)
        if self.threshold is None:
            positive = (p >= p.max(axis=-1, keepdims=True)) & (np.abs(p) > 1e-9)
        else:
            positive = p > self.threshold
        axis = None if self.average == "micro" else 0
        self.true_positives = self.true_positives + (w * positive * y).sum(axis=axis)
        self.false_positives = self.false_positives + (w * positive * (1 - y)).sum(axis=axis)
        self.false_negatives = self.false_negatives + (w * ~positive * y).sum(axis=axis)

    def result(self) -> Any:
        epsilon = config.epsilon()
        precision = self.true_positives / (self.true_positives + self.false_positives + epsilon)
        recall = self.true_positives / (self.true_positives + self.false_negatives + epsilon)
        square = self.beta**2
        scores = (1 + square) * precision * recall / (square * precision + recall + epsilon)
        if self.average is None:
            return scores
        if self.average == "weighted":
            actual = self.true_positives + self.false_negatives
            return float((scores * actual).sum() / (actual.sum() + epsilon))
        return float(scores.mean())


@register("metric")
@dataclass(eq=False, repr=False)
class F1Score(FBetaScore):
    """2 precision recall / (precision + recall): `FBetaScore` with beta = 1."""

    average: str | None = None
    threshold: float | None = None
    beta: float = field(default=1.0, init=False)
