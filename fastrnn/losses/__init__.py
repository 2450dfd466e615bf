"""Losses, by name, as objects, and as functions that give one value per position.

`loss(y_true, y_pred, sample_weight)` is a number, `loss.value_and_gradient(...)` what training needs; see `loss.py` for
reductions, masks and the fused form. A loss of one's own is a subclass of `Loss` with `elementwise_gradient`, or any
object with `value_and_gradient(y_true, y_pred) -> (float, dy_pred)`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .. import masks, registry
from .crossentropy import BinaryCrossentropy, CategoricalCrossentropy, SparseCategoricalCrossentropy
from .loss import Loss
from .regression import (
    CategoricalHinge,
    CosineSimilarity,
    Hinge,
    Huber,
    KLDivergence,
    LogCosh,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    SquaredHinge,
)

__all__ = [
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalHinge",
    "CosineSimilarity",
    "Hinge",
    "Huber",
    "KLDivergence",
    "LogCosh",
    "Loss",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Poisson",
    "SparseCategoricalCrossentropy",
    "SquaredHinge",
    "UserLoss",
    "binary_crossentropy",
    "categorical_crossentropy",
    "categorical_hinge",
    "cosine_similarity",
    "get",
    "hinge",
    "huber",
    "kl_divergence",
    "log_cosh",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_error",
    "mean_squared_logarithmic_error",
    "poisson",
    "sparse_categorical_crossentropy",
    "squared_hinge",
]

HOW_TO_WRITE_ONE = (
    "a loss needs its gradient: subclass fastrnn.losses.Loss with elementwise_gradient(y_true, y_pred) -> "
    "(values, dy_pred), or pass an object with value_and_gradient(y_true, y_pred) -> (float, dy_pred)"
)
_functions: dict[Callable[..., Any], type[Loss]] = {}


def _function(cls: type[Loss]) -> Callable[..., np.ndarray]:
    def values(y_true: Any, y_pred: Any, *options: Any, **named: Any) -> np.ndarray:
        return cls(*options, **named, reduction="none")(y_true, y_pred)

    values.__name__ = values.__qualname__ = registry.snake_case(cls.__name__)
    values.__doc__ = f"One value per position of `{cls.__name__}`, whose arguments follow `y_pred`."
    _functions[values] = cls
    return values


mean_squared_error = _function(MeanSquaredError)
mean_absolute_error = _function(MeanAbsoluteError)
mean_absolute_percentage_error = _function(MeanAbsolutePercentageError)
mean_squared_logarithmic_error = _function(MeanSquaredLogarithmicError)
huber = _function(Huber)
log_cosh = _function(LogCosh)
cosine_similarity = _function(CosineSimilarity)
kl_divergence = _function(KLDivergence)
poisson = _function(Poisson)
hinge = _function(Hinge)
squared_hinge = _function(SquaredHinge)
categorical_hinge = _function(CategoricalHinge)
binary_crossentropy = _function(BinaryCrossentropy)
categorical_crossentropy = _function(CategoricalCrossentropy)
sparse_categorical_crossentropy = _function(SparseCategoricalCrossentropy)


class UserLoss:
    """A user's object with `value_and_gradient(y_true, y_pred)`, seen as a `Loss`.

    What the object does not take as an argument is done for it: a mask selects the positions it gets to see. Weights
    can not be done for it and are a ValueError.
    """

    fuses = None

    def __init__(self, loss: Any) -> None:
        self.loss = loss
        self.name = getattr(loss, "name", None) or registry.snake_case(type(loss).__name__)
        parameters = inspect.signature(loss.value_and_gradient).parameters.values()
        self._takes = {p.name for p in parameters}
        self._takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None, mask: Any = None) -> float:
        return self.value_and_gradient(y_true, y_pred, sample_weight, mask)[0]

    def value_and_gradient(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None, mask: Any = None
    ) -> tuple[float, np.ndarray]:
        given = {"sample_weight": sample_weight, "mask": mask}
        passed = {k: v for k, v in given.items() if v is not None and (k in self._takes or self._takes_all)}
        if sample_weight is not None and "sample_weight" not in passed:
            raise ValueError(f"{self.name}: its value_and_gradient takes no sample_weight")
        if mask is None or "mask" in passed:
            value, dy = self.loss.value_and_gradient(y_true, y_pred, **passed)
            return float(value), self._like(dy, y_pred)
        if passed:
            raise ValueError(f"{self.name}: its value_and_gradient takes sample_weight but no mask")
        y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
        kept = masks.align(mask, y_pred.shape[: np.ndim(mask)], f"{self.name}: mask").astype(bool)
        gradient = np.zeros_like(y_pred)
        if not kept.any():
            return 0.0, gradient
        value, dy = self.loss.value_and_gradient(y_true[kept], y_pred[kept])
        gradient[kept] = self._like(dy, y_pred[kept])
        return float(value), gradient

    def _like(self, dy: Any, y_pred: np.ndarray) -> np.ndarray:
        dy = np.asarray(dy, dtype=y_pred.dtype)
        if dy.shape != y_pred.shape:
            raise ValueError(f"{self.name}: its gradient has shape {dy.shape}; y_pred has shape {y_pred.shape}")
        return np.ascontiguousarray(dy)


def get(
    identifier: Any,
    y_true_shape: tuple[int, ...] | None = None,
    y_pred_shape: tuple[int, ...] | None = None,
    custom_objects: Mapping[str, Any] | None = None,
) -> Any:
    """A loss from its name, a configuration, a class, one of the functions above, or an object; None stays None.

    "crossentropy" (or "ce") needs the shapes: predictions of one column are binary, targets of fewer axes (or of a
    last axis of 1) are class numbers, the rest is one-hot.

    Raises:
        ValueError: for an unknown name, or for a plain function, of which the gradient is not known.
    """
    if isinstance(identifier, str) and identifier.lower() in ("crossentropy", "ce"):
        if y_true_shape is None or y_pred_shape is None:
            raise ValueError(f"the loss {identifier!r} can be chosen only once the shapes of targets are known")
        identifier = {
            "binary": BinaryCrossentropy,
            "sparse": SparseCategoricalCrossentropy,
            "categorical": CategoricalCrossentropy,
        }[target_form(y_true_shape, y_pred_shape)]
    found = registry.get("loss", identifier, custom_objects)
    if inspect.isfunction(found) and found in _functions:
        found = _functions[found]()
    if found is None or isinstance(found, (Loss, UserLoss)):
        return found
    if not hasattr(found, "value_and_gradient"):
        raise ValueError(f"{HOW_TO_WRITE_ONE}; received {identifier!r}")
    return UserLoss(found)


def target_form(y_true_shape: tuple[int, ...], y_pred_shape: tuple[int, ...]) -> str:
    """ "binary", "sparse" or "categorical": what "accuracy" and "crossentropy" stand for."""
    if y_pred_shape[-1] == 1:
        return "binary"
    sparse = len(y_true_shape) < len(y_pred_shape) or (y_true_shape[-1] == 1 and y_pred_shape[-1] > 1)
    return "sparse" if sparse else "categorical"
