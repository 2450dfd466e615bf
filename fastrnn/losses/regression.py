"""Losses of numbers. In the equations y is the target, p the prediction, d = p - y, and C the size of the last axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import config
from ..registry import register
from .loss import Loss

Pair = tuple[np.ndarray, np.ndarray]
InKernels = tuple[str, dict[str, Any]]


@register("loss", "mse", "MSE")
@dataclass(eq=False, repr=False)
class MeanSquaredError(Loss):
    """mean(d ** 2)"""

    def in_kernels(self, fused: bool) -> InKernels:
        return "squared_error", {}


@register("loss", "mae", "MAE")
@dataclass(eq=False, repr=False)
class MeanAbsoluteError(Loss):
    """mean(|d|); the derivative at d = 0 is 0"""

    def in_kernels(self, fused: bool) -> InKernels:
        return "absolute_error", {}


@register("loss", "mape", "MAPE")
@dataclass(eq=False, repr=False)
class MeanAbsolutePercentageError(Loss):
    """100 * mean(|d| / max(|y|, epsilon))"""

    def elementwise_gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> Pair:
        d = y_pred - y_true
        size = np.maximum(np.abs(y_true), config.epsilon())
        return 100 * (np.abs(d) / size).mean(axis=-1), 100 / d.shape[-1] * np.sign(d) / size


@register("loss", "msle", "MSLE")
@dataclass(eq=False, repr=False)
class MeanSquaredLogarithmicError(Loss):
    """mean((log(1 + max(p, epsilon)) - log(1 + max(y, epsilon))) ** 2)"""

    def elementwise_gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> Pair:
        d = np.log1p(np.maximum(y_pred, config.epsilon())) - np.log1p(np.maximum(y_true, config.epsilon()))
        slope = np.where(y_pred > config.epsilon(), 1 / (1 + np.maximum(y_pred, 0)), 0)
        return np.square(d).mean(axis=-1), 2 / d.shape[-1] * d * slope


@register("loss", "huber_loss")
@dataclass(eq=False, repr=False)
class Huber(Loss):
    """mean(d ** 2 / 2 where |d| <= delta, else delta * |d| - delta ** 2 / 2)"""

    delta: float = 1.0

    def __post_init__(self) -> None:
        self.name = self.name or "huber_loss"
        super().__post_init__()

    def in_kernels(self, fused: bool) -> InKernels:
        return "huber", {"delta": self.delta}


@register("loss", "logcosh")
@dataclass(eq=False, repr=False)
class LogCosh(Loss):
    """mean(log(cosh(d)))"""

    def in_kernels(self, fused: bool) -> InKernels:
        return "log_cosh", {}


@register("loss")
@dataclass(eq=False, repr=False)
class CosineSimilarity(Loss):
    """-sum(y / |y| * p / |p|) along `axis`, with norms below epsilon taken as epsilon"""

    axis: int = -1

    def elementwise_gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> Pair:
        true_norm, norm = _norm(y_true), _norm(y_pred)
        y, p = y_true / true_norm, y_pred / norm
        cosine = (y * p).sum(axis=-1, keepdims=True)
        along = np.where(norm > config.epsilon(), cosine, 0) * p
        return -cosine[..., 0], (along - y) / norm


@register("loss", "kld", "KLD", "kullback_leibler_divergence")
@dataclass(eq=False, repr=False)
class KLDivergence(Loss):
    """sum(y * log(y / p)), both clipped to [epsilon, 1]"""

    def elementwise_gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> Pair:
        y, p = np.clip(y_true, config.epsilon(), 1), np.clip(y_pred, config.epsilon(), 1)
        return (y * np.log(y / p)).sum(axis=-1), np.where(p == y_pred, -y / p, 0)


@register("loss")
@dataclass(eq=False, repr=False)
class Poisson(Loss):
    """mean(p - y * log(p + epsilon))"""

    def elementwise_gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> Pair:
        shifted = y_pred + config.epsilon()
        return (y_pred - y_true * np.log(shifted)).mean(axis=-1), (1 - y_true / shifted) / y_pred.shape[-1]


@dataclass(eq=False, repr=False)
class _BinaryHinge(Loss):
    """Targets -1 and 1; all of them 0 and 1 are read as these."""

    def _targets(self, y_true: np.ndarray, y_pred: np.ndarray, kept: np.ndarray | None) -> np.ndarray:
        y = super()._targets(y_true, y_pred, kept)
        return 2 * y - 1 if ((y == 0) | (y == 1)).all() else y


@register("loss")
@dataclass(eq=False, repr=False)
class Hinge(_BinaryHinge):
    """mean(max(1 - y * p, 0)), y in {-1, 1} or {0, 1}"""

    def elementwise_gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> Pair:
        margin = 1 - y_true * y_pred
        return np.maximum(margin, 0).mean(axis=-1), np.where(margin > 0, -y_true / margin.shape[-1], 0)


@register("loss")
@dataclass(eq=False, repr=False)
class SquaredHinge(_BinaryHinge):
    """mean(max(1 - y * p, 0) ** 2), y in {-1, 1} or {0, 1}"""

    def elementwise_gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> Pair:
        margin = np.maximum(1 - y_true * y_pred, 0)
        return np.square(margin).mean(axis=-1), -2 / margin.shape[-1] * y_true * margin


@register("loss")
@dataclass(eq=False, repr=False)
class CategoricalHinge(Loss):
    """max(max((1 - y) * p) - sum(y * p) + 1, 0), y one-hot"""

    def elementwise_gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> Pair:
        others = (1 - y_true) * y_pred
        rival = others.argmax(axis=-1)[:, None]
        values = np.take_along_axis(others, rival, -1)[:, 0] - (y_true * y_pred).sum(axis=-1) + 1
        dy = -y_true
        np.put_along_axis(dy, rival, np.take_along_axis(dy, rival, -1) + 1 - np.take_along_axis(y_true, rival, -1), -1)
        dy[values <= 0] = 0
        return np.maximum(values, 0), dy


def _norm(a: np.ndarray) -> np.ndarray:
    return np.maximum(np.sqrt(np.square(a).sum(axis=-1, keepdims=True)), config.epsilon())
