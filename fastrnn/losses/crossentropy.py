"""Crossentropies, from probabilities p or from logits z. Rows are (P, C); their code is in the kernels.

From probabilities: q = p / sum(p) clipped to [epsilon, 1 - epsilon] (binary: p clipped), no gradient outside the clip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import config
from ..registry import register
from .loss import Loss, misfit


@dataclass(eq=False, repr=False)
class _Distribution(Loss):
    """What the crossentropies share whose targets are numbers in [0, 1]."""

    from_logits: bool = False
    label_smoothing: float = 0.0
    axis: int = -1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.label_smoothing <= 1:
            raise ValueError(f"{self.name}: label_smoothing must lie in [0, 1]; received {self.label_smoothing!r}")

    def _impossible(self, y_true: np.ndarray, first: Any, classes: int) -> ValueError:
        return ValueError(f"{self.name}: targets must lie in [0, 1]; received {y_true.min()} to {y_true.max()}")


@register("loss", "bce", "BCE")
@dataclass(eq=False, repr=False)
class BinaryCrossentropy(_Distribution):
    """-mean(y log(p) + (1 - y) log(1 - p)) along `axis`.

    Args:
        from_logits: whether the predictions are z with p = sigmoid(z).
        label_smoothing: s in [0, 1]: targets become y (1 - s) + s / 2.
        axis: the axis of the mean.
    """

    @property
    def fuses(self) -> str | None:
        return None if self.from_logits else "sigmoid"

    def in_kernels(self, fused: bool) -> tuple[str, dict[str, Any]]:
        return _form("binary", self, fused), {"smoothing": self.label_smoothing, "epsilon": config.epsilon()}


@register("loss")
@dataclass(eq=False, repr=False)
class CategoricalCrossentropy(_Distribution):
    """-sum(y log(q)), y one-hot or any distribution over the classes.

    Args:
        from_logits: whether the predictions are z with q = softmax(z).
        label_smoothing: s in [0, 1]: targets become y (1 - s) + s / C.
        axis: the axis of the classes.
    """

    @property
    def fuses(self) -> str | None:
        return None if self.from_logits or self.axis != -1 else "softmax"

    def check(self, y_true: Any, y_pred: Any) -> tuple[np.ndarray, np.ndarray]:
        y_true, y_pred = np.asarray(y_true), config.float_array(y_pred)
        if y_true.shape != y_pred.shape or y_pred.ndim < 2:
            expected = "targets (..., classes) of the shape of the predictions (for class numbers there is "
            expected += "sparse_categorical_crossentropy)"
            raise ValueError(misfit(str(self.name), y_true.shape, y_pred.shape, expected))
        return self._classes_last(y_true), self._classes_last(y_pred)

    def in_kernels(self, fused: bool) -> tuple[str, dict[str, Any]]:
        return _form("categorical", self, fused), {"smoothing": self.label_smoothing, "epsilon": config.epsilon()}


@register("loss")
@dataclass(eq=False, repr=False)
class SparseCategoricalCrossentropy(Loss):
    """-log(q_y), y the number of a class; targets (...,) or (..., 1) for predictions (..., C).

    Args:
        from_logits: whether the predictions are z with q = softmax(z).
        ignore_class: a label of positions that do not count, as under a mask.
        axis: the axis of the classes.
    """

    from_logits: bool = False
    ignore_class: int | None = None
    axis: int = -1

    @property
    def fuses(self) -> str | None:
        return None if self.from_logits or self.axis != -1 else "softmax"

    def check(self, y_true: Any, y_pred: Any) -> tuple[np.ndarray, np.ndarray]:
        y_true, y_pred = np.asarray(y_true), config.float_array(y_pred)
        moved = self._classes_last(y_pred)
        labels = self._classes_last(y_true)[..., 0] if 1 < y_true.ndim == y_pred.ndim else y_true
        if labels.shape != moved.shape[:-1] or y_true.size != labels.size or y_pred.ndim < 2:
            expected = f"one class number per row of predictions, in the shape {moved.shape[:-1]} (for one-hot "
            expected += "targets there is categorical_crossentropy)"
            raise ValueError(misfit(str(self.name), y_true.shape, y_pred.shape, expected))
        return labels, moved

    def in_kernels(self, fused: bool) -> tuple[str, dict[str, Any]]:
        return _form("sparse", self, fused), {"epsilon": config.epsilon()}

    def _counted(self, y_true: np.ndarray) -> np.ndarray | None:
        return None if self.ignore_class is None else y_true != self.ignore_class

    def _targets(self, y_true: np.ndarray, y_pred: np.ndarray, kept: np.ndarray | None) -> np.ndarray:
        if y_true.dtype.kind in "iub":
            return y_true.astype(np.int64, copy=False)
        labels = y_true if kept is None else np.where(kept, y_true, 0)
        whole = np.where(np.isfinite(labels), labels, -1).astype(np.int64)
        wrong = (labels != whole) & (whole >= 0) & (whole < y_pred.shape[-1])
        if wrong.any():
            raise ValueError(f"{self.name}: labels must be whole numbers; received {labels[wrong][0]}")
        return whole

    def _impossible(self, y_true: np.ndarray, first: Any, classes: int) -> ValueError:
        return ValueError(f"{self.name}: labels must lie in [0, {classes}); received {first}")


def _form(family: str, loss: Any, fused: bool) -> str:
    """The kernels' name of a crossentropy whose predictions are logits or probabilities."""
    return f"{family}_{'fused' if fused else 'logits' if loss.from_logits else 'probabilities'}"
