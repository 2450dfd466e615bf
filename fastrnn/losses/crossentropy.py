"""Crossentropies, from probabilities p or from logits z. Rows are (P, C); large ones are worked on in blocks that stay
in the cache, and nothing of the size (P, C) is made but the gradient itself.

From probabilities: q = p / sum(p) clipped to [epsilon, 1 - epsilon] (binary: p clipped), no gradient outside the clip.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import config
from ..registry import register
from .loss import Loss, misfit

BLOCK_BYTES = 1 << 19


@register("loss", "bce", "BCE")
@dataclass(eq=False, repr=False)
class BinaryCrossentropy(Loss):
    """-mean(y log(p) + (1 - y) log(1 - p)) along `axis`.

    Args:
        from_logits: whether the predictions are z with p = sigmoid(z).
        label_smoothing: s in [0, 1]: targets become y (1 - s) + s / 2.
        axis: the axis of the mean.
    """

    from_logits: bool = False
    label_smoothing: float = 0.0
    axis: int = -1

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_smoothing(self)

    @property
    def fuses(self) -> str | None:
        return None if self.from_logits else "sigmoid"

    def elementwise(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        if self.from_logits:
            return (np.maximum(y_pred, 0) - y_true * y_pred + np.log1p(np.exp(-np.abs(y_pred)))).mean(axis=-1)
        p = _clip(y_pred)
        return -(y_true * np.log(p) + (1 - y_true) * np.log1p(-p)).mean(axis=-1)

    def elementwise_gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.from_logits:
            e = np.exp(-np.abs(y_pred))
            dy = np.where(y_pred > 0, 1 / (1 + e), e / (1 + e)) - y_true
        else:
            p = _clip(y_pred)
            dy = np.where(p == y_pred, (p - y_true) / (p * (1 - p)), 0)
        dy /= y_pred.shape[-1]
        return self.elementwise(y_true, y_pred), dy

    def _scaled_gradient(
        self, y_true: np.ndarray, y_pred: np.ndarray, scale: np.ndarray, fused: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        if not fused:
            return super()._scaled_gradient(y_true, y_pred, scale, fused)
        dy = y_pred - y_true
        dy *= (scale / y_pred.shape[-1])[:, None]
        return self.elementwise(y_true, y_pred), dy

    def _targets(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return _smooth(self, super()._targets(y_true, y_pred), 2)


@register("loss")
@dataclass(eq=False, repr=False)
class CategoricalCrossentropy(Loss):
    """-sum(y log(q)), y one-hot or any distribution over the classes.

    Args:
        from_logits: whether the predictions are z with q = softmax(z).
        label_smoothing: s in [0, 1]: targets become y (1 - s) + s / C.
        axis: the axis of the classes.
    """

    from_logits: bool = False
    label_smoothing: float = 0.0
    axis: int = -1

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_smoothing(self)

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

    def elementwise(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        if self.from_logits:
            return self._from_logits(y_true, y_pred)
        return -(y_true * np.log(_clip(y_pred / y_pred.sum(axis=-1, keepdims=True)))).sum(axis=-1)

    def elementwise_gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._scaled_gradient(y_true, y_pred, np.ones(len(y_pred), y_pred.dtype), False)

    def _scaled_gradient(
        self, y_true: np.ndarray, y_pred: np.ndarray, scale: np.ndarray, fused: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """With u_j = -y_j / q_j inside the clip, else 0: dp_k = (u_k - sum_j u_j q_j) / sum(p). Fused: p sum(y) - y."""
        if self.from_logits:
            dy = np.empty_like(y_pred)
            return self._from_logits(y_true, y_pred, scale, dy), dy
        if fused:
            values = -(y_true * np.log(_clip(y_pred))).sum(axis=-1)
            dy = y_pred * (scale * y_true.sum(axis=-1))[:, None]
            dy -= y_true * scale[:, None]
            return values, dy
        total = y_pred.sum(axis=-1, keepdims=True)
        q = y_pred / total
        clipped = _clip(q)
        values = -(y_true * np.log(clipped)).sum(axis=-1)
        dy = np.where(clipped == q, -y_true / clipped, 0)
        dy -= (dy * q).sum(axis=-1, keepdims=True)
        dy *= scale[:, None] / total
        return values, dy

    def _from_logits(
        self, y_true: np.ndarray, z: np.ndarray, scale: np.ndarray | None = None, dz: np.ndarray | None = None
    ) -> np.ndarray:
        """values = log(sum(exp(z))) sum(y) - sum(y z);  dz = scale (softmax(z) sum(y) - y)"""
        values = np.empty(len(z), z.dtype)
        for rows, shifted in _shifted_blocks(z, dz):
            y = y_true[rows]
            mass = y.sum(axis=-1)
            values[rows] = -(y * shifted).sum(axis=-1)
            e = np.exp(shifted, out=shifted)
            total = e.sum(axis=-1)
            values[rows] += np.log(total) * mass
            if scale is not None:
                e *= (scale[rows] * mass / total)[:, None]
                e -= y * scale[rows, None]
        return values

    def _targets(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return _smooth(self, super()._targets(y_true, y_pred), y_pred.shape[-1])


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

    def elementwise(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        if self.from_logits:
            return self._from_logits(y_true, y_pred)
        return -np.log(_clip(_at(y_pred, y_true) / y_pred.sum(axis=-1)))

    def elementwise_gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._scaled_gradient(y_true, y_pred, np.ones(len(y_pred), y_pred.dtype), False)

    def _scaled_gradient(
        self, y_true: np.ndarray, y_pred: np.ndarray, scale: np.ndarray, fused: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Inside the clip dp_k = 1 / sum(p) - [k = y] / p_y, outside 0. Fused: p - [k = y]."""
        each = np.arange(len(y_pred))
        if self.from_logits:
            dy = np.empty_like(y_pred)
            return self._from_logits(y_true, y_pred, scale, dy), dy
        if fused:
            values = -np.log(_clip(_at(y_pred, y_true)))
            dy = y_pred * scale[:, None]
            dy[each, y_true] -= scale
            return values, dy
        total, p = y_pred.sum(axis=-1), _at(y_pred, y_true)
        q = p / total
        clipped = _clip(q)
        scale = np.where(clipped == q, scale, 0)
        dy = np.empty_like(y_pred)
        dy[:] = (scale / total)[:, None]
        dy[each, y_true] -= scale / (clipped * total)
        return -np.log(clipped), dy

    def _from_logits(
        self, y_true: np.ndarray, z: np.ndarray, scale: np.ndarray | None = None, dz: np.ndarray | None = None
    ) -> np.ndarray:
        """values = log(sum(exp(z))) - z_y;  dz = scale (softmax(z) - [k = y])"""
        values = np.empty(len(z), z.dtype)
        for rows, shifted in _shifted_blocks(z, dz):
            y = y_true[rows]
            values[rows] = -_at(shifted, y)
            e = np.exp(shifted, out=shifted)
            total = e.sum(axis=-1)
            values[rows] += np.log(total)
            if scale is not None:
                e *= (scale[rows] / total)[:, None]
                e[np.arange(len(y)), y] -= scale[rows]
        return values

    def _counted(self, y_true: np.ndarray) -> np.ndarray | None:
        return None if self.ignore_class is None else y_true != self.ignore_class

    def _targets(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        classes = y_pred.shape[-1]
        if not y_true.size:
            return y_true.astype(np.intp)
        if not (y_true.min() >= 0 and y_true.max() < classes):
            wrong = y_true[~((y_true >= 0) & (y_true < classes))][0]
            raise ValueError(f"{self.name}: labels must lie in [0, {classes}); received {wrong}")
        labels = y_true.astype(np.intp)
        if not np.issubdtype(y_true.dtype, np.integer) and (labels != y_true).any():
            raise ValueError(f"{self.name}: labels must be whole numbers; received {y_true[labels != y_true][0]}")
        return labels


def _shifted_blocks(z: np.ndarray, out: np.ndarray | None) -> Iterator[tuple[slice, np.ndarray]]:
    """Slices of rows, and z less its row's maximum there: in `out`, or in a scratch block if there is none."""
    step = max(1, BLOCK_BYTES // (z.shape[1] * z.itemsize))
    scratch = np.empty((min(step, len(z)), z.shape[1]), z.dtype) if out is None else None
    for start in range(0, len(z), step):
        rows = slice(start, min(start + step, len(z)))
        block = z[rows]
        target = out[rows] if out is not None else scratch[: len(block)]  # type: ignore[index]
        yield rows, np.subtract(block, block.max(axis=1, keepdims=True), out=target)


def _at(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return rows[np.arange(len(rows)), columns]


def _clip(p: np.ndarray) -> np.ndarray:
    return np.clip(p, config.epsilon(), 1 - config.epsilon())


def _check_smoothing(loss: Any) -> None:
    if not 0 <= loss.label_smoothing <= 1:
        raise ValueError(f"{loss.name}: label_smoothing must lie in [0, 1]; received {loss.label_smoothing!r}")


def _smooth(loss: Any, y: np.ndarray, classes: int) -> np.ndarray:
    if y.size and not (y.min() >= -1e-6 and y.max() <= 1 + 1e-6):
        raise ValueError(f"{loss.name}: targets must lie in [0, 1]; received {y.min()} to {y.max()}")
    s = loss.label_smoothing
    return y * (1 - s) + s / classes if s else y
