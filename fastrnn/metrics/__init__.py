"""Metrics, by name, as objects with a running state, and as functions that give values for one batch.

`metric.update_state(y_true, y_pred, sample_weight)`, `metric.result()`, `metric.reset_state()`. Wherever a metric is
expected, any function of (y_true, y_pred) that gives a number or one value per sample also does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import losses, registry
from ..losses import (
    binary_crossentropy,
    categorical_crossentropy,
    categorical_hinge,
    hinge,
    huber,
    kl_divergence,
    log_cosh,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
    poisson,
    sparse_categorical_crossentropy,
    squared_hinge,
)
from .accuracy import (
    Accuracy,
    BinaryAccuracy,
    CategoricalAccuracy,
    SparseCategoricalAccuracy,
    SparseTopKCategoricalAccuracy,
    TopKCategoricalAccuracy,
    accuracy,
    binary_accuracy,
    categorical_accuracy,
    sparse_categorical_accuracy,
    sparse_top_k_categorical_accuracy,
    top_k_categorical_accuracy,
)
from .confusion import F1Score, FBetaScore, Precision, Recall
from .metric import Mean, MeanMetricWrapper, Metric, Sum
from .regression import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    CategoricalHinge,
    CosineSimilarity,
    Hinge,
    KLDivergence,
    LogCoshError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    R2Score,
    RootMeanSquaredError,
    SparseCategoricalCrossentropy,
    SquaredHinge,
)

__all__ = [
    "Accuracy",
    "BinaryAccuracy",
    "BinaryCrossentropy",
    "CategoricalAccuracy",
    "CategoricalCrossentropy",
    "CategoricalHinge",
    "CosineSimilarity",
    "F1Score",
    "FBetaScore",
    "Hinge",
    "KLDivergence",
    "LogCoshError",
    "Mean",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanMetricWrapper",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Metric",
    "Poisson",
    "Precision",
    "R2Score",
    "Recall",
    "RootMeanSquaredError",
    "SparseCategoricalAccuracy",
    "SparseCategoricalCrossentropy",
    "SparseTopKCategoricalAccuracy",
    "SquaredHinge",
    "Sum",
    "TopKCategoricalAccuracy",
    "accuracy",
    "binary_accuracy",
    "binary_crossentropy",
    "categorical_accuracy",
    "categorical_crossentropy",
    "categorical_hinge",
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
    "sparse_categorical_accuracy",
    "sparse_categorical_crossentropy",
    "sparse_top_k_categorical_accuracy",
    "squared_hinge",
    "top_k_categorical_accuracy",
]

_CHOSEN_BY_SHAPE = {
    "accuracy": {
        "binary": BinaryAccuracy,
        "sparse": SparseCategoricalAccuracy,
        "categorical": CategoricalAccuracy,
    },
    "crossentropy": {
        "binary": BinaryCrossentropy,
        "sparse": SparseCategoricalCrossentropy,
        "categorical": CategoricalCrossentropy,
    },
}
_OWN = [globals()[n] for n in __all__ if n.islower() and n != "get"]
_SHORT = {"acc": "accuracy", "ce": "crossentropy"}


def get(
    identifier: Any,
    y_true_shape: tuple[int, ...] | None = None,
    y_pred_shape: tuple[int, ...] | None = None,
    custom_objects: Mapping[str, Any] | None = None,
) -> Any:
    """A metric from its name, a configuration, a class, a function of (y_true, y_pred), a loss, or an object.

    The metric of a name or function is called so too ("mse", "acc"). "accuracy" and "crossentropy" need the shapes:
    predictions of one column are binary, targets of fewer axes (or of a last axis of 1) are class numbers, the rest is
    one-hot.

    Raises:
        ValueError: for an unknown name, or what is no metric at all.
    """
    name = identifier if isinstance(identifier, str) else None
    forms = _CHOSEN_BY_SHAPE.get(_SHORT.get(identifier.lower(), identifier.lower())) if name else None
    if forms is not None:
        if y_true_shape is None or y_pred_shape is None:
            raise ValueError(f"the metric {identifier!r} can be chosen only once the shapes of targets are known")
        identifier = forms[losses.target_form(tuple(y_true_shape), tuple(y_pred_shape))]
    elif identifier is None:
        raise ValueError("a metric is a name, a function of (y_true, y_pred) or a Metric; received None")
    elif any(identifier is f for f in _OWN):
        name = identifier.__name__
        identifier = name if name in registry.names("metric") else identifier
    found = registry.get("metric", identifier, custom_objects)
    if not hasattr(found, "update_state"):
        if not callable(found):
            raise ValueError(f"a metric is a name, a function of (y_true, y_pred) or a Metric; received {identifier!r}")
        found = MeanMetricWrapper(found, name=getattr(found, "name", None))
    if name is not None:
        found.name = name
    return found
