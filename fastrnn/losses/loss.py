"""What all losses share: shapes, masks, weights, reductions. A loss itself is code over rows.

One *position* is what has a loss of its own: a sample, or a step of a sample's sequence. The base class brings
`y_pred` to rows (positions, classes), sees to it that only the rows that count are looked at (mask true, weight not
zero; NaN in the others is never touched, not even by 0 * NaN), and turns reduction and weights into one factor per row:

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
[epsilon, 1 - epsilon]; the gradient is p - y also where the clip acts. Where nobody else wants p, it may give the loss
what goes into the softmax instead, with `applied=False`: then one pass over memory does it all.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .. import config, masks, threads
from .._core import kernels
from ..registry import Watched, snake_case

REDUCTIONS = ("sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", "none", None)


class Rows(NamedTuple):
    """All positions P of a call: targets (P, ...), predictions (P, C), and what counts.

    Attributes:
        kept: (P,) bool, or None if every position counts.
        weights: (P,), or None for ones.
        divisor: of the sum of the weighted values.
        positions: the shape of what P stands for.
    """

    y_true: np.ndarray
    y_pred: np.ndarray
    kept: np.ndarray | None
    weights: np.ndarray | None
    divisor: float
    positions: tuple[int, ...]

    def select(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Targets, predictions and factors of the positions that count."""
        weights = np.ones(len(self.y_pred)) if self.weights is None else self.weights
        if self.kept is None:
            return self.y_true, self.y_pred, weights / self.divisor
        return self.y_true[self.kept], self.y_pred[self.kept], weights[self.kept] / self.divisor

    def spread(self, selected: np.ndarray) -> np.ndarray:
        """One entry per position again, zero where it does not count: (M, ...) -> (P, ...)."""
        if self.kept is None:
            return selected
        everything = np.zeros((self.kept.size, *selected.shape[1:]), selected.dtype)
        everything[self.kept] = selected
        return everything


@dataclass(eq=False, repr=False)
class Loss(Watched):
    """Base class. A subclass gives `elementwise_gradient`, and `elementwise` where values alone are cheaper.

    The losses that are trained with most are code of the kernels (`_core/src/loss.h`) instead: `in_kernels` names it.
    """

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

    def __init_subclass__(cls, **named: Any) -> None:
        super().__init_subclass__(**named)
        own = vars(cls)
        if ("elementwise_gradient" in own or "elementwise" in own) and "in_kernels" not in own:
            cls.in_kernels = Loss.in_kernels  # type: ignore[method-assign]
            if "fuses" not in own:  # a slope of one's own is by the predictions
                cls.fuses = Loss.fuses  # type: ignore[method-assign]

    def in_kernels(self, fused: bool) -> tuple[str, dict[str, Any]] | None:
        """The name among `kernels.losses` and its options, or None: the rows' code is in this class.

        Args:
            fused: whether the gradient is wanted for the inputs of the activation `fuses`.
        """
        return None

    def elementwise(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        """The loss of each row: targets and predictions (P, C) -> values (P,)."""
        return self.elementwise_gradient(y_true, y_pred)[0]

    def elementwise_gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values (P,), and a new array (P, C) of each row's value differentiated by its predictions."""
        if self.in_kernels(False) is None:
            raise NotImplementedError(f"{type(self).__name__} must define elementwise_gradient(y_true, y_pred)")
        rows = Rows(y_true, y_pred, None, None, 1.0, y_pred.shape[:1])
        _, values, dy = self._compute(rows, fused=False, gradient=True)
        return values, dy

    def check(self, y_true: Any, y_pred: Any) -> tuple[np.ndarray, np.ndarray]:
        """Both as arrays of one shape (..., C). Where one of them lacks a last axis of 1, it is added or dropped.

        Raises:
            ValueError: naming the loss, if their shapes do not fit.
        """
        y_true, y_pred = same_shape(y_true, y_pred, str(self.name))
        return self._classes_last(y_true), self._classes_last(y_pred)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None, mask: Any = None) -> Any:
        """The reduced loss as a float; with reduction "none" an array of one value per position."""
        rows = self._rows(y_true, y_pred, sample_weight, mask)
        total, values, _ = self._compute(rows, fused=False, gradient=False)
        if self.reduction in (None, "none"):
            if rows.weights is not None:
                values = np.where(rows.weights != 0, values * rows.weights.astype(values.dtype), 0)
            return values.reshape(rows.positions)
        return total

    def value_and_gradient(
        self,
        y_true: Any,
        y_pred: Any,
        sample_weight: Any = None,
        mask: Any = None,
        *,
        activation: str | None = None,
        applied: bool = True,
    ) -> tuple[float, np.ndarray]:
        """The reduced loss and its gradient.

        Args:
            y_true: targets.
            y_pred: predictions (batch, ..., C).
            sample_weight: (batch,) or one weight per position.
            mask: one bool per position, as `sample_weight`; False positions do not exist for the loss.
            activation: `self.fuses`, if `y_pred` came out of that activation and the gradient is wanted for what
                went into it (see the head of this file).
            applied: False if `y_pred` is what goes into the softmax that is the `activation`. The gradient may then
                come in its memory.

        Returns:
            loss (float) and gradient (shape and dtype of `y_pred`).
        """
        if self.reduction in (None, "none"):
            raise ValueError(f"{self.name}: reduction {self.reduction!r} gives no single value to train on")
        if activation is not None and activation != self.fuses:
            raise ValueError(f"{self.name} cannot be fused with {activation!r}; it fuses with {self.fuses!r}")
        if not applied and activation != "softmax":
            raise ValueError(f"{self.name}: applied=False is for activation='softmax'; received {activation!r}")
        rows = self._rows(y_true, y_pred, sample_weight, mask)
        total, _, dy = self._compute(rows, fused=activation is not None, gradient=True, softmax=not applied)
        axis = getattr(self, "axis", -1)
        if axis != -1:
            dy = np.ascontiguousarray(np.moveaxis(dy.reshape(*rows.positions, -1), -1, axis))
        return total, dy.reshape(np.shape(y_pred))

    def _compute(
        self, rows: Rows, *, fused: bool, gradient: bool, softmax: bool = False
    ) -> tuple[float, np.ndarray, Any]:
        """The reduced loss, values (P,) without weights, and, if it is wanted, the gradient (P, C) times its factors.
        With `softmax` the predictions have still to go through it.

        Raises:
            ValueError: for impossible targets.
        """
        found = self.in_kernels(fused)
        if found is None:
            if softmax:
                raise ValueError(f"{self.name}: applied=False is for losses whose rows are code of the kernels")
            return self._compute_in_numpy(rows, gradient)
        name, options = found
        y_true = np.ascontiguousarray(self._targets(rows.y_true, rows.y_pred, rows.kept))
        total, values, dy, wrong = kernels.loss(
            name,
            y_true,
            np.ascontiguousarray(rows.y_pred),
            kept=rows.kept,
            weights=rows.weights,
            divisor=rows.divisor,
            gradient=gradient,
            softmax=softmax,
            threads=threads.get_num_threads(),
            **options,
        )
        if wrong >= 0:
            kept = slice(None) if rows.kept is None else rows.kept
            raise self._impossible(rows.y_true[kept], rows.y_true[wrong], rows.y_pred.shape[-1])
        return total, values, dy

    def _compute_in_numpy(self, rows: Rows, gradient: bool) -> tuple[float, np.ndarray, Any]:
        y_true, y_pred, scale = rows.select()
        y_true, dy = self._targets(y_true, y_pred, None), None
        if gradient:
            values, dy = self.elementwise_gradient(y_true, y_pred)
            dy *= scale.astype(y_pred.dtype)[:, None]
            dy = rows.spread(dy)
        else:
            values = self.elementwise(y_true, y_pred)
        return float((values.astype(np.float64) * scale).sum()), rows.spread(values), dy

    def _targets(self, y_true: np.ndarray, y_pred: np.ndarray, kept: np.ndarray | None) -> np.ndarray:
        """The targets in the form the rows' code wants; what is not kept is not looked at."""
        if y_true.dtype == y_pred.dtype:
            return y_true
        return kernels.in_numpy(_copy, y_true, out=np.empty(y_true.shape, y_pred.dtype))

    def _impossible(self, y_true: np.ndarray, first: Any, classes: int) -> ValueError:
        """What is said of targets `y_true` that the kernels refuse, `first` before the others."""
        return ValueError(f"{self.name}: impossible targets; received {first}")

    def _counted(self, y_true: np.ndarray) -> np.ndarray | None:
        """A mask of the loss's own, one bool per position, or None."""
        return None

    def _rows(self, y_true: Any, y_pred: Any, sample_weight: Any, mask: Any) -> Rows:
        y_true, y_pred = self.check(y_true, y_pred)
        positions = y_pred.shape[:-1]
        size = math.prod(positions)
        counted = self._counted(y_true)
        if mask is not None:
            mask = masks.align(mask, positions, f"{self.name}: mask").astype(bool)
            counted = masks.combine(mask, counted)
        kept = counted
        weights = None
        if sample_weight is not None:
            weights = masks.align(sample_weight, positions, f"{self.name}: sample_weight").astype(np.float64)
            kept = weights != 0 if counted is None else counted & (weights != 0)
        if kept is not None:
            kept = np.ascontiguousarray(kept).reshape(size)
        if weights is not None:
            weights = np.ascontiguousarray(weights).reshape(size)
        divisor = 1.0
        if self.reduction in ("sum_over_batch_size", "mean"):
            divisor = float(size if counted is None else np.count_nonzero(counted))
        elif self.reduction == "mean_with_sample_weight":
            left = weights if kept is None or weights is None else weights[kept]
            divisor = float(left.sum() if left is not None else size if kept is None else np.count_nonzero(kept))
        targets = y_true.reshape(size, *y_true.shape[len(positions) :])
        return Rows(targets, y_pred.reshape(size, y_pred.shape[-1]), kept, weights, divisor or 1.0, positions)

    def _classes_last(self, a: np.ndarray) -> np.ndarray:
        axis = getattr(self, "axis", -1)
        if axis == -1 and a.ndim:
            return a
        if not -a.ndim <= axis < a.ndim:
            raise ValueError(f"{self.name}: axis {axis} does not exist in an array of shape {a.shape}")
        return np.moveaxis(a, axis, -1)


def _copy(a: np.ndarray, out: np.ndarray) -> None:
    out[...] = a


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
