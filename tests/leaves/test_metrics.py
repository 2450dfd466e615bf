"""Every metric: what it counts, weights and masks by selection, running state, configuration, and Keras' numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from fastrnn import losses, metrics, registry

BATCH, TIME, CLASSES = 6, 4, 7
Pair = tuple[np.ndarray, np.ndarray]


def numbers(rng: np.random.Generator, shape: tuple[int, ...]) -> Pair:
    y = rng.uniform(0.5, 2, (*shape, CLASSES))
    return y, y * rng.uniform(0.5, 1.5, y.shape)


def bits(rng: np.random.Generator, shape: tuple[int, ...]) -> Pair:
    return rng.integers(0, 2, (*shape, CLASSES)).astype(float), rng.uniform(0.02, 0.98, (*shape, CLASSES))


def equal(rng: np.random.Generator, shape: tuple[int, ...]) -> Pair:
    return rng.integers(0, 2, (*shape, CLASSES)), rng.integers(0, 2, (*shape, CLASSES)).astype(float)


def one_hot(rng: np.random.Generator, shape: tuple[int, ...]) -> Pair:
    p = rng.uniform(0.1, 1, (*shape, CLASSES))
    return np.eye(CLASSES)[rng.integers(0, CLASSES, shape)], p / p.sum(axis=-1, keepdims=True)


def labels(rng: np.random.Generator, shape: tuple[int, ...]) -> Pair:
    y, p = one_hot(rng, shape)
    return y.argmax(axis=-1), p


class Case(NamedTuple):
    name: str
    options: dict[str, Any]
    data: Callable[..., Pair]

    def metric(self) -> metrics.Metric:
        return getattr(metrics, self.name)(**self.options)

    @property
    def id(self) -> str:
        return "-".join([self.name, *(f"{k}={v}" for k, v in self.options.items())])


CASES = [
    Case("Accuracy", {}, equal),
    Case("BinaryAccuracy", {}, bits),
    Case("BinaryAccuracy", {"threshold": 0.3}, bits),
    Case("CategoricalAccuracy", {}, one_hot),
    Case("SparseCategoricalAccuracy", {}, labels),
    Case("TopKCategoricalAccuracy", {"k": 2}, one_hot),
    Case("TopKCategoricalAccuracy", {}, one_hot),
    Case("SparseTopKCategoricalAccuracy", {"k": 3}, labels),
    Case("MeanSquaredError", {}, numbers),
    Case("MeanAbsoluteError", {}, numbers),
    Case("MeanAbsolutePercentageError", {}, numbers),
    Case("MeanSquaredLogarithmicError", {}, numbers),
    Case("RootMeanSquaredError", {}, numbers),
    Case("LogCoshError", {}, numbers),
    Case("CosineSimilarity", {}, numbers),
    Case("KLDivergence", {}, one_hot),
    Case("Poisson", {}, numbers),
    Case("Hinge", {}, bits),
    Case("SquaredHinge", {}, bits),
    Case("CategoricalHinge", {}, one_hot),
    Case("BinaryCrossentropy", {"label_smoothing": 0.1}, bits),
    Case("CategoricalCrossentropy", {}, one_hot),
    Case("CategoricalCrossentropy", {"from_logits": True}, one_hot),
    Case("SparseCategoricalCrossentropy", {}, labels),
]
FLAT = [
    Case("R2Score", {}, numbers),
    Case("R2Score", {"class_aggregation": None}, numbers),
    Case("R2Score", {"class_aggregation": "variance_weighted_average", "num_regressors": 3}, numbers),
    Case("Precision", {}, bits),
    Case("Precision", {"thresholds": [0.2, 0.7]}, bits),
    Case("Precision", {"class_id": 2}, bits),
    Case("Precision", {"top_k": 2}, one_hot),
    Case("Recall", {"thresholds": 0.4}, bits),
    Case("Recall", {"top_k": 3, "class_id": 1}, one_hot),
    Case("F1Score", {}, one_hot),
    Case("F1Score", {"average": "macro", "threshold": 0.4}, bits),
    Case("FBetaScore", {"average": "weighted", "beta": 2.0}, one_hot),
    Case("FBetaScore", {"average": "micro", "beta": 0.5}, one_hot),
]
every_mean = pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
every_metric = pytest.mark.parametrize("case", CASES + FLAT, ids=lambda c: c.id)


def batches(case: Case, shape: tuple[int, ...], seed: int = 0) -> list[Pair]:
    rng = np.random.default_rng(seed)
    return [case.data(rng, (n, *shape)) for n in (BATCH, BATCH + 2)]


@every_metric
@pytest.mark.parametrize("how", ["mask", "weights"])
@pytest.mark.parametrize("shape", [(), (TIME,)], ids=["samples", "steps"])
def test_what_has_no_weight_is_not_looked_at(case: Case, how: str, shape: tuple[int, ...]) -> None:
    metric, rng = case.metric(), np.random.default_rng(1)
    clean, poisoned, dropped = [], [], []
    for y, p in batches(case, shape):
        mask = rng.random(p.shape[:-1]) > 0.4
        weight = mask if how == "mask" else np.where(mask, rng.uniform(0.5, 2, mask.shape), 0)
        clean.append((y, p, weight))
        y2, p2 = y.copy(), p.copy()
        p2[~mask], y2[~mask] = np.nan, -9
        poisoned.append((y2, p2, weight))
        dropped.append((y[mask], p[mask], weight[mask]))
    results = []
    for data in (clean, poisoned):
        metric.reset_state()
        with np.errstate(all="raise"):
            for batch in data:
                metric.update_state(*batch)
        results.append(metric.result())
    np.testing.assert_array_equal(*results)
    if case.name != "R2Score" or "num_regressors" not in case.options:
        metric.reset_state()
        for batch in dropped[:1]:
            metric.update_state(*batch)
        alone = case.metric()
        alone.update_state(*clean[0])
        np.testing.assert_allclose(metric.result(), alone.result(), rtol=1e-12)


@every_metric
def test_state_runs_over_batches_and_is_forgotten(case: Case) -> None:
    (y1, p1), (y2, p2) = batches(case, ())
    metric, whole = case.metric(), case.metric()
    metric.update_state(y1, p1)
    first = metric.result()
    metric.update_state(y2, p2)
    whole.update_state(np.concatenate([y1, y2]), np.concatenate([p1, p2]))
    np.testing.assert_allclose(metric.result(), whole.result(), rtol=1e-10)
    metric.reset_state()
    metric.update_state(y1, p1)
    np.testing.assert_array_equal(metric.result(), first)
    fresh = case.metric()
    np.testing.assert_array_equal(fresh(y1, p1), first)


@every_metric
def test_configuration_comes_back(case: Case) -> None:
    metric = getattr(metrics, case.name)(**case.options, name="mine")
    again = registry.deserialize(json.loads(json.dumps(registry.serialize(metric))))
    assert type(again) is type(metric) and again.get_config() == metric.get_config() and again.name == "mine"
    assert repr(again) == repr(metric)
    y, p = batches(case, ())[0]
    np.testing.assert_array_equal(again(y, p), metric(y, p))


@every_metric
def test_nothing_seen_is_zero(case: Case) -> None:
    metric = case.metric()
    assert np.all(np.asarray(metric.result()) == 0)
    y, p = batches(case, ())[0]
    metric.update_state(y, p, np.zeros(BATCH))
    assert np.all(np.asarray(metric.result()) == 0)


def test_accuracies_by_hand() -> None:
    p = np.array([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3], [0.2, 0.3, 0.5], [0.4, 0.35, 0.25]])
    assert metrics.SparseCategoricalAccuracy()([1, 0, 0, 1], p) == 0.5
    assert metrics.SparseCategoricalAccuracy()([[1], [0], [0], [1]], p) == 0.5
    assert metrics.CategoricalAccuracy()(np.eye(3)[[1, 0, 0, 1]], p) == 0.5
    assert metrics.SparseTopKCategoricalAccuracy(k=2)([1, 2, 0, 1], p) == 0.75
    assert metrics.BinaryAccuracy()([1, 0, 1, 1], np.array([[0.6], [0.5], [0.4], [0.9]])) == 0.75
    assert metrics.SparseCategoricalAccuracy()([1, 0, 0, 1], p, [1, 1, 0, 2]) == 0.5
    assert metrics.Precision()([0, 1, 1, 1], [0.9, 0.8, 0.2, 0.7]) == pytest.approx(2 / 3)
    assert metrics.Recall()([0, 1, 1, 1], [0.9, 0.8, 0.2, 0.7]) == pytest.approx(2 / 3)
    assert metrics.R2Score()([1.0, 2, 6], [1.0, 2, 6]) == 1
    assert metrics.R2Score()([1.0, 2, 6], [2.0, 2, 5]) == pytest.approx(1 - 2 / 14)
    assert metrics.R2Score()([1.0, 2, 6], [3.0, 3, 3]) == pytest.approx(1 - 14 / 14)


def test_a_batch_counts_by_its_samples_not_by_its_steps() -> None:
    metric, counted = metrics.MeanSquaredError(), metrics.MeanSquaredError()
    for steps, error in ((2, 1.0), (8, 3.0)):
        y, p = np.zeros((4, steps, 1)), np.full((4, steps, 1), error)
        metric.update_state(y, p)
        counted.update_state(y, p, np.ones((4, steps)))
    assert metric.result() == counted.result() == 5


def test_mean_and_sum() -> None:
    mean, total = metrics.Mean("loss"), metrics.Sum()
    assert mean.name == "loss" and total.name == "sum"
    for values, weights in ((1.0, None), ([2.0, 4.0], None), ([6.0, np.nan], [2, 0])):
        mean.update_state(values, weights)
        total.update_state(values, weights)
    assert total.result() == 1 + 6 + 12 and mean.result() == (1 + 6 + 12) / 5
    mean.reset_state()
    assert mean.result() == 0
    mean.update_state(3.0, 32)
    mean.update_state(5.0, 16)
    assert mean.result() == pytest.approx((3 * 32 + 5 * 16) / 48)


def test_a_function_is_a_metric() -> None:
    def worst(y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return np.abs(y_true - y_pred).max(axis=-1)

    y, p = numbers(np.random.default_rng(0), (BATCH, TIME))
    metric = metrics.get(worst)
    assert metric.name == "worst" and metric(y, p) == pytest.approx(np.abs(y - p).max(axis=-1).mean())
    mask = np.arange(BATCH * TIME).reshape(BATCH, TIME) % 3 == 0
    metric.reset_state()
    p[~mask] = np.nan
    assert metric(y, p, mask) == pytest.approx(np.abs(y - p).max(axis=-1)[mask].mean())
    scalar = metrics.MeanMetricWrapper(lambda y_true, y_pred, power: np.mean(y_true**power), "moment", power=2)
    assert scalar(y, p) == pytest.approx(np.mean(y**2)) and scalar.name == "moment"
    again = registry.deserialize(registry.serialize(metric), {"worst": worst})
    assert again.fn is worst and again.name == "worst"


def test_a_metric_per_sample_counts_samples_under_a_mask_over_steps() -> None:
    metric = metrics.get(lambda y_true, y_pred: (y_true == y_pred).all(axis=1))
    y = np.arange(12).reshape(4, 3)
    mask = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]], bool)
    assert metric(y, np.where(np.arange(4)[:, None] < 3, y, 0), mask) == pytest.approx(2 / 3)


def test_metrics_are_found_by_what_users_write() -> None:
    assert metrics.get("mse").name == "mse" and isinstance(metrics.get("MSE"), metrics.MeanSquaredError)
    assert isinstance(metrics.get(metrics.mean_squared_error), metrics.MeanSquaredError)
    assert metrics.get(metrics.mean_squared_error).name == "mean_squared_error"
    assert metrics.get(metrics.TopKCategoricalAccuracy).name == "top_k_categorical_accuracy"
    metric = metrics.Recall(name="r")
    assert metrics.get(metric) is metric and metric.name == "r"
    chosen = {
        ((8,), (8, 1)): "Binary",
        ((8, 1), (8, 1)): "Binary",
        ((8,), (8, 5)): "Sparse",
        ((8, 3, 1), (8, 3, 5)): "Sparse",
        ((8, 3), (8, 3, 5)): "Sparse",
        ((8, 5), (8, 5)): "Categorical",
    }
    for (true, pred), name in chosen.items():
        for identifier in ("accuracy", "acc", "crossentropy", "ce"):
            found = metrics.get(identifier, true, pred)
            assert type(found).__name__.startswith(name) and found.name == identifier
    loss = metrics.get(losses.Huber())
    assert loss.name == "huber_loss" and loss([[1.0]], [[1.5]]) == 0.125
    with pytest.raises(ValueError, match=r"unknown metric 'acuracy'; known are: .*accuracy"):
        metrics.get("acuracy")
    with pytest.raises(ValueError, match="only once the shapes"):
        metrics.get("accuracy")
    for bad in (None, 3):
        with pytest.raises(ValueError, match="a metric is a name, a function"):
            metrics.get(bad)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"sparse_categorical_accuracy expects one class number.*\(4, 2\)"):
        metrics.SparseCategoricalAccuracy()(np.zeros((4, 2)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match="categorical_accuracy expects targets of the shape"):
        metrics.CategoricalAccuracy()(np.zeros(4), np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 3\)"):
        metrics.SparseTopKCategoricalAccuracy()([3, 0], np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"mine: sample_weight must have shape \(4, 3\).*\(3,\)"):
        metrics.MeanSquaredError(name="mine")(np.zeros((4, 3, 1)), np.zeros((4, 3, 1)), np.ones(3))
    with pytest.raises(ValueError, match="mean_squared_error: y_true has shape"):
        metrics.MeanSquaredError()(np.zeros((4, 1)), np.zeros((5, 1)))
    with pytest.raises(ValueError, match="average must be one of"):
        metrics.F1Score(average="mean")
    with pytest.raises(ValueError, match="class_aggregation must be one of"):
        metrics.R2Score(class_aggregation="sum")


def test_ignored_class_has_no_weight() -> None:
    y, p = labels(np.random.default_rng(3), (BATCH, TIME))
    y[0] = -1
    metric = metrics.SparseCategoricalCrossentropy(ignore_class=-1)
    assert metric(y, p) == pytest.approx(losses.SparseCategoricalCrossentropy(ignore_class=-1)(y, p))
    w = np.random.default_rng(4).uniform(0.5, 2, BATCH)
    metric.reset_state()
    loss = losses.SparseCategoricalCrossentropy(ignore_class=-1, reduction="mean_with_sample_weight")
    assert metric(y, p, w) == pytest.approx(loss(y, p, w))


def compare(case: Case, shape: tuple[int, ...], weighting: str, keras: Any, torch: Any) -> None:
    options = {k: v for k, v in case.options.items()}
    ours, theirs = case.metric(), getattr(keras.metrics, case.name)(**options, dtype="float64")
    assert theirs.name.startswith(ours.name)
    rng = np.random.default_rng(2)
    for y, p in batches(case, shape):
        weights = {
            "none": None,
            "samples": rng.uniform(0.5, 2, len(p)),
            "steps": rng.integers(0, 3, p.shape[:-1]).astype(float),
        }[weighting]
        ours.update_state(y, p, weights)
        theirs.update_state(
            torch.from_numpy(y), torch.from_numpy(p), None if weights is None else torch.from_numpy(weights)
        )
    np.testing.assert_allclose(
        ours.result(), theirs.result().detach().numpy(), rtol=2e-7, atol=5e-6 if case.name == "R2Score" else 1e-9
    )


@every_mean
@pytest.mark.parametrize("weighting", ["none", "samples", "steps"])
def test_running_means_equal_those_of_keras_for_sequences(case: Case, weighting: str, keras: Any, torch: Any) -> None:
    compare(case, (TIME,), weighting, keras, torch)


@every_metric
@pytest.mark.parametrize("weighting", ["none", "samples"])
def test_results_equal_those_of_keras(case: Case, weighting: str, keras: Any, torch: Any) -> None:
    compare(case, (), weighting, keras, torch)


def test_defaults_are_those_of_keras(keras: Any) -> None:
    for name in {c.name for c in CASES + FLAT}:
        theirs = {k: v for k, v in getattr(keras.metrics, name)().get_config().items() if k != "dtype"}
        theirs["name"] = theirs["name"].rstrip("0123456789").rstrip("_")  # some of theirs are counted
        assert getattr(metrics, name)().get_config().items() >= theirs.items(), name


def test_numbers_in_another_byte_order_are_numbers() -> None:
    y, p = one_hot(np.random.default_rng(19), (BATCH,))
    for kind in (">f4", ">f8"):
        found = metrics.categorical_accuracy(y.astype(kind), p.astype(kind))
        np.testing.assert_array_equal(found, y.argmax(axis=-1) == p.argmax(axis=-1))


@every_mean
def test_integer_targets_of_any_width_count_alike(case: Case) -> None:
    """So that a replayed step may show metrics the int64 that its kernels read."""
    assert case.metric().forgets
    y, p = case.data(np.random.default_rng(20), (BATCH, TIME))
    y, p = (8 * y if case.data is numbers else y).astype("int64"), p if p.dtype.kind == "i" else p.astype("float32")
    found = []
    for kind in ("int64", "int8", "uint8", "int16", "uint16", "int32"):
        metric = case.metric()
        metric.update_state(y.astype(kind), p)
        found.append(metric.result())
    assert found == found[:1] * len(found)
