"""How often a prediction is right."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np

from .. import threads
from .._core import kernels
from ..losses.loss import misfit, same_shape
from ..registry import register
from .metric import RowMetric

FLOATS = (np.float32, np.float64)


def accuracy(y_true: Any, y_pred: Any) -> np.ndarray:
    """y == p, value by value."""
    y_true, y_pred = same_shape(y_true, y_pred, "accuracy")
    return y_true == y_pred


def binary_accuracy(y_true: Any, y_pred: Any, threshold: float = 0.5) -> np.ndarray:
    """y == (p > threshold), value by value."""
    y_true, y_pred = same_shape(y_true, y_pred, "binary_accuracy")
    return y_true == (y_pred > threshold)


def categorical_accuracy(y_true: Any, y_pred: Any) -> np.ndarray:
    """argmax(y) == argmax(p), y one-hot."""
    y_true, y_pred = same_shape(y_true, y_pred, "categorical_accuracy")
    if y_true.dtype == y_pred.dtype in FLOATS and y_true.flags.c_contiguous and y_pred.flags.c_contiguous:
        return kernels.same_argmax(y_true, y_pred, threads=threads.get_num_threads())
    return _argmax(y_true) == _argmax(y_pred)


def sparse_categorical_accuracy(y_true: Any, y_pred: Any) -> np.ndarray:
    """y == argmax(p), y a class number."""
    y_true, y_pred = _labels(y_true, y_pred, "sparse_categorical_accuracy")
    found = _argmax(y_pred)
    return kernels.in_numpy(np.equal, y_true, found, out=np.empty(found.shape, bool))


def top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5) -> np.ndarray:
    """Whether argmax(y) is among the k classes of the largest p; ties count as among them."""
    y_true, y_pred = same_shape(y_true, y_pred, "top_k_categorical_accuracy")
    return _in_top(_argmax(y_true), y_pred, k)


def sparse_top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5) -> np.ndarray:
    """Whether the class number y is among the k classes of the largest p; ties count as among them."""
    y_true, y_pred = _labels(y_true, y_pred, "sparse_top_k_categorical_accuracy")
    labels = y_true.astype(np.intp)
    if labels.size and not (labels.min() >= 0 and labels.max() < y_pred.shape[-1]):
        raise ValueError(
            f"sparse_top_k_categorical_accuracy: labels must lie in [0, {y_pred.shape[-1]}); "
            f"received {labels.min()} to {labels.max()}"
        )
    return _in_top(labels, y_pred, k)


@register("metric")
class Accuracy(RowMetric):
    """The share of predictions that equal their target."""

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return accuracy(y_true, y_pred)


@register("metric")
@dataclass(eq=False, repr=False)
class BinaryAccuracy(RowMetric):
    """The share of predictions on their target's side of `threshold`."""

    _: KW_ONLY
    threshold: float = 0.5

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return binary_accuracy(y_true, y_pred, self.threshold)


@register("metric")
class CategoricalAccuracy(RowMetric):
    """The share of rows whose largest prediction is at the one-hot target's class."""

    replays = True

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return categorical_accuracy(y_true, y_pred)


@register("metric")
class SparseCategoricalAccuracy(RowMetric):
    """The share of rows whose largest prediction is at the target's class number."""

    replays = True

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return sparse_categorical_accuracy(y_true, y_pred)


@register("metric")
@dataclass(eq=False, repr=False)
class TopKCategoricalAccuracy(RowMetric):
    """The share of rows with the one-hot target's class among the `k` largest predictions."""

    k: int = 5

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return top_k_categorical_accuracy(y_true, y_pred, self.k)


@register("metric")
@dataclass(eq=False, repr=False)
class SparseTopKCategoricalAccuracy(RowMetric):
    """The share of rows with the target's class number among the `k` largest predictions."""

    k: int = 5

    def values(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return sparse_top_k_categorical_accuracy(y_true, y_pred, self.k)


def _labels(y_true: Any, y_pred: Any, what: str) -> tuple[np.ndarray, np.ndarray]:
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    labels = y_true[..., 0] if y_true.ndim == y_pred.ndim and y_true.shape[-1:] == (1,) else y_true
    if labels.shape != y_pred.shape[:-1] or not y_pred.ndim:
        expected = f"one class number per row of predictions, in the shape {y_pred.shape[:-1]}"
        raise ValueError(misfit(what, y_true.shape, y_pred.shape, expected))
    return labels, y_pred


def _argmax(a: np.ndarray) -> np.ndarray:
    """a.argmax(axis=-1)"""
    if a.dtype not in FLOATS:
        return a.argmax(axis=-1)
    return kernels.argmax_rows(np.ascontiguousarray(a), threads=threads.get_num_threads())


def _in_top(labels: np.ndarray, y_pred: np.ndarray, k: int) -> np.ndarray:
    at_label = np.take_along_axis(y_pred, labels[..., None], axis=-1)
    return (y_pred > at_label).sum(axis=-1) < k
