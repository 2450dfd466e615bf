"""What all losses share: shapes, masks, weights, reductions. A loss itself is code over rows.

One *position* is what has a loss of its own: a sample, or a step of a sample's sequence. The base class brings
`y_pred` to rows (positions, classes), **selects** the rows that count (mask true, weight not zero; NaN in the others
is never touched, not even by 0 * NaN), and turns reduction and weights into one factor per row:

    loss = sum_p scale_p * value_p        dy_pred_p = scale_p * d value_p / d y_pred_p

    reduction              scale_p
    sum_over_batch_size    w_p / number of positions (of positions under the mask); weights do not change the divisor
    mean_with_sample_weight  w_p / sum of w
    sum                    w_p
    none                   w_p, values not added up (direct calls only)

**Fused with an activation.** Softmax or sigmoid followed by a crossentropy has the gradient p - y for the *inputs* of
the activation: cheaper than two steps, and finite where p is 0 or 1. A loss says what it can take over in `fuses`
("softmax", "sigmoid" or None), and a training loop that has the probabilities p of such an activation asks

    if loss.fuses == activation.name:
        value, dlogits = loss.value_and_gradient(y_true, p, sample_weight, mask, activation=loss.fuses)

and hands `dlogits` to the layer below the activation. The value is the one computed from p, which is clipped to
[epsilon, 1 - epsilon]; the gradient is p - y also where the clip acts.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .. import config, masks
from ..registry import Configurable, snake_case

REDUCTIONS = ("sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", "none", None)


class Selected(NamedTuple):
    """The rows that count: targets and predictions of M positions out of `positions`, and their scales (M,)."""

    y_true: np.ndarray
    y_pred: np.ndarray
    scale: np.ndarray
    kept: np.ndarray | None
    positions: tuple[int, ...]

    def spread(self, rows: np.ndarray) -> np.ndarray:
        """One entry per position again, zero where nothing was selected: (M, ...) -> (*positions, ...)."""
        if self.kept is not None:
            everything = np.zeros((self.kept.size, *rows.shape[1:]), rows.dtype)
            everything[self.kept] = rows
            rows = everything
        return rows.reshape(*self.positions, *rows.shape[1:])


@dataclass(eq=False, repr=False)
class Loss(Configurable):
    """Base class. A subclass gives `elementwise_gradient`, and `elementwise` where values alone are cheaper."""

    kind = "loss"
    _: KW_ONLY
    reduction: str | None = "sum_over_batch_size"
    name: str | None = field(default=None, repr=False)

    @property
    def fuses(self) -> str | None:
        """The activation that this loss takes over when it is asked to: "softmax", "sigmoid" or None."""
        return None

    def __post_init__(self) -> None:
        self.name = self.name or snake_case(type(self).__name__)
        if self.reduction not in REDUCTIONS:
            raise ValueError(f"{self.name}: reduction must be one of {REDUCTIONS}; received {self.reduction!r}")

    def elementwise(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        """The loss of each row: targets and predictions (P, C) -> values (P,)."""
        return self.elementwise_gradient(y_true, y_pred)[0]

    def elementwise_gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values (P,), and a new array (P, C) of each row's value differentiated by its predictions."""
        raise NotImplementedError(f"{type(self).__name__} must define elementwise_gradient(y_true, y_pred)")

    def check(self, y_true: Any, y_pred: Any) -> tuple[np.ndarray, np.ndarray]:
        """Both as arrays of one shape (..., C). Where one of them lacks a last axis of 1, it is added or dropped.

        Raises:
            ValueError: naming the loss, if their shapes do not fit.
        """
        y_true, y_pred = same_shape(y_true, y_pred, str(self.name))
        return self._classes_last(y_true), self._classes_last(y_pred)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None, mask: Any = None) -> Any:
        """The reduced loss as a float; with reduction "none" an array of one value per position."""
        rows = self._select(y_true, y_pred, sample_weight, mask)
        values = self.elementwise(rows.y_true, rows.y_pred)
        if self.reduction in (None, "none"):
            return rows.spread(values * rows.scale.astype(values.dtype))
        return _total(values, rows.scale)

    def value_and_gradient(
        self,
        y_true: Any,
        y_pred: Any,
        sample_weight: Any = None,
        mask: Any = None,
        *,
        activation: str | None = None,
    ) -> tuple[float, np.ndarray]:
        """The reduced loss and its gradient.

        Args:
            y_true: targets.
            y_pred: predictions (batch, ..., C).
            sample_weight: (batch,) or one weight per position.
            mask: one bool per position, as `sample_weight`; False positions do not exist for the loss.
            activation: `self.fuses`, if `y_pred` came out of that activation and the gradient is wanted for what
                went into it (see the head of this file).

        Returns:
            loss (float) and gradient (shape and dtype of `y_pred`).
        """
        if self.reduction in (None, "none"):
            raise ValueError(f"{self.name}: reduction {self.reduction!r} gives no single value to train on")
        if activation is not None and activation != self.fuses:
            raise ValueError(f"{self.name} cannot be fused with {activation!r}; it fuses with {self.fuses!r}")
        rows = self._select(y_true, y_pred, sample_weight, mask)
        scale = rows.scale.astype(rows.y_pred.dtype)
        values, dy = self._scaled_gradient(rows.y_true, rows.y_pred, scale, activation is not None)
        dy = np.moveaxis(rows.spread(dy), -1, getattr(self, "axis", -1))
        return _total(values, rows.scale), np.ascontiguousarray(dy).reshape(np.shape(y_pred))

    def _scaled_gradient(
        self, y_true: np.ndarray, y_pred: np.ndarray, scale: np.ndarray, fused: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """`elementwise_gradient` with row p of the gradient times scale[p]; `fused`: for the activation's inputs."""
        values, dy = self.elementwise_gradient(y_true, y_pred)
        dy *= scale[:, None]
        return values, dy

    def _targets(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        """The selected targets in the form the rows' code wants. Raises ValueError for impossible ones."""
        return y_true.astype(y_pred.dtype, copy=False)

    def _counted(self, y_true: np.ndarray) -> np.ndarray | None:
        """A mask of the loss's own, one bool per position, or None."""
        return None

    def _select(self, y_true: Any, y_pred: Any, sample_weight: Any, mask: Any) -> Selected:
        y_true, y_pred = self.check(y_true, y_pred)
        positions = y_pred.shape[:-1]
        if mask is not None:
            mask = masks.align(mask, positions, f"{self.name}: mask").astype(bool)
        counted = masks.combine(mask, self._counted(y_true))
        weights = np.ones(positions)
        if sample_weight is not None:
            weights = masks.align(sample_weight, positions, f"{self.name}: sample_weight").astype(np.float64)
        kept = weights != 0 if counted is None else counted & (weights != 0)
        divisor = {
            "sum_over_batch_size": weights.size if counted is None else int(counted.sum()),
            "mean_with_sample_weight": float(weights[kept].sum()),
        }.get("sum_over_batch_size" if self.reduction == "mean" else self.reduction or "none", 1)

        size = weights.size
        predictions = y_pred.reshape(size, y_pred.shape[-1])
        targets = y_true.reshape(size, *y_true.shape[len(positions) :])
        scale = weights.reshape(size) / (divisor or 1)
        if kept.all():
            return Selected(self._targets(targets, predictions), predictions, scale, None, positions)
        kept = kept.reshape(size)
        targets, predictions = targets[kept], predictions[kept]
        return Selected(self._targets(targets, predictions), predictions, scale[kept], kept, positions)

    def _classes_last(self, a: np.ndarray) -> np.ndarray:
        axis = getattr(self, "axis", -1)
        if not -a.ndim <= axis < a.ndim:
            raise ValueError(f"{self.name}: axis {axis} does not exist in an array of shape {a.shape}")
        return np.moveaxis(a, axis, -1)


def same_shape(y_true: Any, y_pred: Any, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Targets and predictions as arrays of one shape (..., C): a missing last axis of 1 is added, a spare one dropped.

    Raises:
        ValueError: naming `what`, if the shapes do not fit.
    """
    y_true, y_pred = np.asarray(y_true), config.float_array(y_pred)
    shapes = y_true.shape, y_pred.shape
    if y_pred.ndim == 1:
        y_pred = y_pred[:, None]
    if y_true.ndim == y_pred.ndim - 1 and y_pred.shape[-1] == 1:
        y_true = y_true[..., None]
    elif y_true.ndim == y_pred.ndim + 1 and y_true.shape[-1] == 1:
        y_true = y_true[..., 0]
    if y_true.shape != y_pred.shape or y_pred.ndim < 2:
        raise ValueError(misfit(what, *shapes, "targets of the shape of the predictions"))
    return y_true, y_pred


def misfit(what: str, true_shape: tuple[int, ...], pred_shape: tuple[int, ...], expected: str) -> str:
    return f"{what} expects {expected}; received y_true of shape {true_shape}, y_pred of shape {pred_shape}"


def _total(values: np.ndarray, scale: np.ndarray) -> float:
    return float((values.astype(np.float64) * scale).sum())
