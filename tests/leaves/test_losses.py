"""Every loss: gradients, masks, weights, reductions, configuration, and the same numbers as Keras."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from fastrnn import Input, Sequential, activations, layers, losses, registry, threads
from fastrnn._core import kernels

BATCH, TIME, CLASSES = 5, 4, 3
POSITIONS = (BATCH, TIME)


def numbers(rng: np.random.Generator, positions: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    y = rng.normal(size=(*positions, CLASSES))
    return y, y + rng.choice([-1, 1], y.shape) * rng.uniform(0.1, 2, y.shape)


def positive(rng: np.random.Generator, positions: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    return rng.uniform(0.2, 3, (*positions, CLASSES)), rng.uniform(0.2, 3, (*positions, CLASSES))


def signs(rng: np.random.Generator, positions: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    return rng.choice([-1.0, 1.0], (*positions, CLASSES)), rng.normal(size=(*positions, CLASSES))


def bits(rng: np.random.Generator, positions: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    return rng.integers(0, 2, (*positions, CLASSES)), rng.uniform(0.05, 0.95, (*positions, CLASSES))


def bit_logits(rng: np.random.Generator, positions: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    return rng.integers(0, 2, (*positions, CLASSES)), 2 * rng.normal(size=(*positions, CLASSES))


def distributions(rng: np.random.Generator, positions: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    y, p = rng.uniform(0.05, 1, (2, *positions, CLASSES))
    return y / y.sum(axis=-1, keepdims=True), p / p.sum(axis=-1, keepdims=True)


def one_hot(rng: np.random.Generator, positions: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    return np.eye(CLASSES)[rng.integers(0, CLASSES, positions)], rng.uniform(0.05, 1, (*positions, CLASSES))


def one_hot_logits(rng: np.random.Generator, positions: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    return np.eye(CLASSES)[rng.integers(0, CLASSES, positions)], 3 * rng.normal(size=(*positions, CLASSES))


def labels(rng: np.random.Generator, positions: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    return rng.integers(0, CLASSES, positions), rng.uniform(0.05, 1, (*positions, CLASSES))


def label_logits(rng: np.random.Generator, positions: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    return rng.integers(0, CLASSES, positions), 3 * rng.normal(size=(*positions, CLASSES))


def several_hot(rng: np.random.Generator, positions: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    return rng.integers(0, 2, (*positions, CLASSES)), rng.uniform(0.05, 1, (*positions, CLASSES))


class Case(NamedTuple):
    name: str
    options: dict[str, Any]
    data: Callable[..., tuple[np.ndarray, np.ndarray]]

    def loss(self, **more: Any) -> losses.Loss:
        return getattr(losses, self.name)(**self.options, **more)

    @property
    def id(self) -> str:
        return "-".join([self.name, *(f"{k}={v}" for k, v in self.options.items())])


CASES = [
    Case("MeanSquaredError", {}, numbers),
    Case("MeanAbsoluteError", {}, numbers),
    Case("MeanAbsolutePercentageError", {}, numbers),
    Case("MeanSquaredLogarithmicError", {}, positive),
    Case("Huber", {}, numbers),
    Case("Huber", {"delta": 0.5}, numbers),
    Case("LogCosh", {}, numbers),
    Case("CosineSimilarity", {}, numbers),
    Case("CosineSimilarity", {"axis": 1}, numbers),
    Case("KLDivergence", {}, distributions),
    Case("Poisson", {}, positive),
    Case("Hinge", {}, signs),
    Case("SquaredHinge", {}, signs),
    Case("SquaredHinge", {}, bit_logits),
    Case("CategoricalHinge", {}, one_hot_logits),
    Case("BinaryCrossentropy", {}, bits),
    Case("BinaryCrossentropy", {"label_smoothing": 0.3}, bits),
    Case("BinaryCrossentropy", {"from_logits": True}, bit_logits),
    Case("BinaryCrossentropy", {"from_logits": True, "axis": 1, "label_smoothing": 0.1}, bit_logits),
    Case("CategoricalCrossentropy", {}, one_hot),
    Case("CategoricalCrossentropy", {"label_smoothing": 0.2}, one_hot),
    Case("CategoricalCrossentropy", {}, distributions),
    Case("CategoricalCrossentropy", {}, several_hot),
    Case("CategoricalCrossentropy", {"from_logits": True}, one_hot_logits),
    Case("CategoricalCrossentropy", {"from_logits": True, "label_smoothing": 0.2}, one_hot_logits),
    Case("SparseCategoricalCrossentropy", {}, labels),
    Case("SparseCategoricalCrossentropy", {"ignore_class": 1}, labels),
    Case("SparseCategoricalCrossentropy", {"from_logits": True}, label_logits),
    Case("SparseCategoricalCrossentropy", {"from_logits": True, "ignore_class": 0}, label_logits),
]
every_loss = pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
per_position = pytest.mark.parametrize(
    "case", [c for c in CASES if c.options.get("axis", -1) == -1], ids=lambda c: c.id
)
AVERAGES = ("sum_over_batch_size", "sum", "mean_with_sample_weight")


def positions_of(case: Case) -> tuple[int, ...]:
    return (BATCH, CLASSES) if case.options.get("axis") == 1 else POSITIONS


def weights_and_mask(positions: tuple[int, ...], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    mask = rng.random(positions) > 0.4
    mask[0], mask[1, 0] = False, True
    return rng.uniform(0.5, 2, positions), mask


def slope(f: Callable[[np.ndarray], float], x: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Central differences of f at x, in float64."""
    d = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        d[i] = (f(up) - f(down)) / (2 * step)
    return d


@every_loss
@pytest.mark.parametrize("reduction", AVERAGES)
@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_is_the_derivative_of_the_value(case: Case, reduction: str, weighted: bool) -> None:
    rng = np.random.default_rng(1)
    y, p = case.data(rng, POSITIONS)
    w, m = weights_and_mask(positions_of(case), rng) if weighted else (None, None)
    loss = case.loss(reduction=reduction)
    value, dy = loss.value_and_gradient(y, p, w, m)
    assert value == pytest.approx(loss(y, p, w, m), rel=1e-12)
    np.testing.assert_allclose(dy, slope(lambda x: loss(y, x, w, m), p), rtol=1e-6, atol=1e-8)
    assert np.abs(dy).max() > 1e-3


FUSED = [c for c in CASES if "Crossentropy" in c.name and not c.options.get("from_logits")]


@pytest.mark.parametrize("case", FUSED, ids=lambda c: c.id)
@pytest.mark.parametrize("weighted", [False, True])
def test_fused_gradient_is_the_derivative_through_the_activation(case: Case, weighted: bool) -> None:
    rng = np.random.default_rng(2)
    y, z = case.data(rng, POSITIONS)
    z = 3 * z
    w, m = weights_and_mask(POSITIONS, rng) if weighted else (None, None)
    loss = case.loss()
    activation = activations.get(loss.fuses)
    value, dz = loss.value_and_gradient(y, activation.forward(z), w, m, activation=loss.fuses)
    assert value == pytest.approx(loss(y, activation.forward(z), w, m), rel=1e-12)
    np.testing.assert_allclose(dz, slope(lambda x: loss(y, activation.forward(x), w, m), z), rtol=1e-6, atol=1e-9)
    y_pred = activation.forward(z)
    unfused = activation.backward(y_pred, loss.value_and_gradient(y, y_pred, w, m)[1])
    np.testing.assert_allclose(dz, unfused, rtol=1e-10, atol=1e-12)


def test_smoothed_labels_are_mixed_with_equal_ones() -> None:
    p = np.array([[0.2, 0.5, 0.3]])
    value = losses.CategoricalCrossentropy(label_smoothing=0.3)([[0, 1, 0]], p)
    assert value == pytest.approx(losses.CategoricalCrossentropy()([[0.1, 0.8, 0.1]], p))
    value = losses.BinaryCrossentropy(label_smoothing=0.3)([[0, 1, 0]], p)
    assert value == pytest.approx(losses.BinaryCrossentropy()([[0.15, 0.85, 0.15]], p))


def test_fused_gradient_is_p_minus_y_where_probabilities_are_clipped() -> None:
    p = np.array([[0.0, 1.0, 0.0]])
    value, dz = losses.SparseCategoricalCrossentropy().value_and_gradient([0], p, activation="softmax")
    assert value == pytest.approx(-np.log(1e-7))
    np.testing.assert_array_equal(dz, [[-1, 1, 0]])
    value, dz = losses.CategoricalCrossentropy().value_and_gradient([[1, 0, 0]], p, activation="softmax")
    assert value == pytest.approx(-np.log(1e-7))
    np.testing.assert_array_equal(dz, [[-1, 1, 0]])
    value, dz = losses.BinaryCrossentropy().value_and_gradient([[1], [1]], [[0.0], [1.0]], activation="sigmoid")
    np.testing.assert_array_equal(dz, [[-0.5], [0]])
    assert np.isfinite(value)


def test_no_gradient_from_probabilities_outside_the_clip() -> None:
    p = np.array([[1e-9, 1 - 1e-9], [0.5, 0.5]])
    for loss, y in ((losses.SparseCategoricalCrossentropy(), [0, 0]), (losses.BinaryCrossentropy(), [[1, 0], [1, 0]])):
        dy = loss.value_and_gradient(y, p)[1]
        assert (dy[0] == 0).all() and (dy[1] != 0).any()


def test_only_a_matching_activation_is_fused() -> None:
    assert losses.SparseCategoricalCrossentropy().fuses == losses.CategoricalCrossentropy().fuses == "softmax"
    assert losses.BinaryCrossentropy().fuses == "sigmoid"
    assert losses.BinaryCrossentropy(from_logits=True).fuses is None
    assert losses.SparseCategoricalCrossentropy(axis=1).fuses is None
    assert losses.MeanSquaredError().fuses is None
    with pytest.raises(ValueError, match="mean_squared_error cannot be fused with 'softmax'"):
        losses.MeanSquaredError().value_and_gradient([[0]], [[1.0]], activation="softmax")


@pytest.mark.parametrize("weighted", [False, True])
def test_a_loss_may_take_the_softmax_itself(weighted: bool) -> None:
    rng = np.random.default_rng(17)
    z, labels = rng.normal(size=(*POSITIONS, 5)), rng.integers(0, 5, POSITIONS)
    more = weights_and_mask(POSITIONS, rng) if weighted else (None, None)
    for loss, y in (
        (losses.SparseCategoricalCrossentropy(), labels),
        (losses.SparseCategoricalCrossentropy(ignore_class=2), labels),
        (losses.CategoricalCrossentropy(label_smoothing=0.1), np.eye(5)[labels]),
    ):
        value, dy = loss.value_and_gradient(y, kernels.softmax(z), *more, activation="softmax")
        found = loss.value_and_gradient(y, z.copy(), *more, activation="softmax", applied=False)
        assert found[0] == value
        np.testing.assert_array_equal(found[1], dy)
    with pytest.raises(ValueError, match="binary_crossentropy: applied=False is for activation='softmax'"):
        losses.BinaryCrossentropy().value_and_gradient([[0]], [[1.0]], activation="sigmoid", applied=False)


class Slanted(losses.CategoricalCrossentropy):
    """Twice the crossentropy, with its slope by the probabilities."""

    def elementwise_gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return -2 * (y_true * np.log(y_pred)).sum(axis=-1), -2 * y_true / y_pred


class Fused(Slanted):
    """The same with the slope by what goes into the softmax."""

    fuses = "softmax"

    def elementwise_gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return super().elementwise_gradient(y_true, y_pred)[0], 2 * (y_pred - y_true)


@pytest.mark.parametrize("loss", [Slanted(), Fused()], ids=str)
def test_a_slope_of_ones_own_is_by_what_it_says(loss: losses.Loss) -> None:
    rng = np.random.default_rng(18)
    x, y = rng.normal(size=(6, 3)), np.eye(4)[rng.integers(0, 4, 6)]
    model = Sequential([Input((3,), dtype="float64"), layers.Dense(4, activation="softmax", dtype="float64")])
    found = []
    for one in (losses.CategoricalCrossentropy(), loss):
        model.compile("sgd", one)
        found.append(model.gradients(x, y)[1])
    assert loss.fuses == ("softmax" if isinstance(loss, Fused) else None)
    for plain, twice in zip(*found, strict=True):
        np.testing.assert_allclose(twice, 2 * plain, rtol=1e-6)
    with pytest.raises(ValueError, match="cannot be fused" if loss.fuses is None else "applied=False"):
        loss.value_and_gradient(y, y, activation="softmax", applied=False)


def poisoned(y: np.ndarray, p: np.ndarray, hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """NaN predictions and impossible targets at the hidden positions."""
    y, p = y.copy(), p.copy()
    p[hidden] = np.nan
    y[hidden] = -7 if np.issubdtype(y.dtype, np.integer) else np.nan
    return y, p


@per_position
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("how", ["mask", "zero weights"])
def test_what_is_masked_changes_no_bit(case: Case, dtype: str, how: str) -> None:
    rng = np.random.default_rng(3)
    y, p = case.data(rng, POSITIONS)
    p = p.astype(dtype)
    w, mask = weights_and_mask(POSITIONS, rng)
    arguments = (w, mask) if how == "mask" else (np.where(mask, w, 0), None)
    ignored = y == case.options["ignore_class"] if "ignore_class" in case.options else np.zeros(POSITIONS, bool)
    hidden = ~mask & ~ignored
    loss = case.loss()
    value, dy = loss.value_and_gradient(y, p, *arguments)
    with np.errstate(all="raise"):
        value2, dy2 = loss.value_and_gradient(*poisoned(y, p, hidden), *arguments)
        assert loss(*poisoned(y, p, hidden), *arguments) == pytest.approx(value, rel=1e-6)
    assert value == value2
    np.testing.assert_array_equal(dy, dy2)
    assert (dy[~mask] == 0).all() and dy[mask].any()


@per_position
def test_masked_loss_is_the_mean_over_the_positions_that_are_left(case: Case) -> None:
    rng = np.random.default_rng(4)
    y, p = case.data(rng, POSITIONS)
    mask = weights_and_mask(POSITIONS, rng)[1]
    value, dy = case.loss().value_and_gradient(y, p, mask=mask)
    value_left, dy_left = case.loss().value_and_gradient(y[mask], p[mask])
    assert value == pytest.approx(value_left, rel=1e-12)
    np.testing.assert_allclose(dy[mask], dy_left, rtol=1e-12)


@per_position
def test_reductions_of_the_values(case: Case) -> None:
    rng = np.random.default_rng(5)
    y, p = case.data(rng, POSITIONS)
    w, m = weights_and_mask(POSITIONS, rng)
    values = case.loss(reduction="none")(y, p)
    assert values.shape == POSITIONS
    counted = np.ones(POSITIONS, bool) if "ignore_class" not in case.options else y != case.options["ignore_class"]
    for weight, mask in ((None, None), (w, None), (None, m), (w, m)):
        total = counted if mask is None else counted & mask
        weighted = np.where(total, values * (1 if weight is None else weight), 0)
        sums = weighted.sum()
        expected = {
            "sum": sums,
            "sum_over_batch_size": sums / total.sum(),
            "mean": sums / total.sum(),
            "mean_with_sample_weight": sums / (total * (1 if weight is None else weight)).sum(),
        }
        for reduction, want in expected.items():
            assert case.loss(reduction=reduction)(y, p, weight, mask) == pytest.approx(want, rel=1e-12), reduction
        for none in ("none", None):
            np.testing.assert_allclose(case.loss(reduction=none)(y, p, weight, mask), weighted, rtol=1e-12)


@every_loss
def test_configuration_comes_back(case: Case) -> None:
    loss = case.loss(reduction="sum", name="mine")
    config = json.loads(json.dumps(registry.serialize(loss)))
    again = registry.deserialize(config)
    assert type(again) is type(loss) and again.get_config() == loss.get_config()
    assert case.options.items() <= again.get_config().items()
    assert repr(again) == repr(loss) and again.name == "mine"
    y, p = case.data(np.random.default_rng(0), POSITIONS)
    assert again(y, p) == loss(y, p)


@every_loss
def test_float32_is_kept_and_close_to_float64(case: Case) -> None:
    y, p = case.data(np.random.default_rng(6), POSITIONS)
    before = y.copy(), p.copy()
    value, dy = case.loss().value_and_gradient(y, p)
    value32, dy32 = case.loss().value_and_gradient(y, p.astype("float32"))
    assert dy32.dtype == np.float32 and dy.dtype == np.float64 and dy32.shape == p.shape
    assert value32 == pytest.approx(value, rel=2e-6, abs=1e-6)
    np.testing.assert_allclose(dy32, dy, rtol=1e-4, atol=1e-6)
    assert case.loss(reduction="none")(y, p.astype("float32")).dtype == np.float32
    np.testing.assert_array_equal(before[0], y)
    np.testing.assert_array_equal(before[1], p)


@per_position
def test_weights_per_sample_count_for_each_of_its_steps(case: Case) -> None:
    rng = np.random.default_rng(7)
    y, p = case.data(rng, POSITIONS)
    w = rng.uniform(0.5, 2, BATCH)
    everywhere = np.repeat(w[:, None], TIME, axis=1)
    for weights in (w, w[:, None], w.tolist()):
        value, dy = case.loss().value_and_gradient(y, p, weights)
        value2, dy2 = case.loss().value_and_gradient(y, p, everywhere)
        assert value == value2
        np.testing.assert_array_equal(dy, dy2)


@every_loss
def test_nothing_left_is_a_loss_of_zero(case: Case) -> None:
    y, p = case.data(np.random.default_rng(8), POSITIONS)
    for reduction in AVERAGES:
        value, dy = case.loss(reduction=reduction).value_and_gradient(y, p, mask=np.zeros(positions_of(case), bool))
        assert value == 0 and not dy.any() and dy.shape == p.shape


@every_loss
def test_memory_order_of_the_predictions_does_not_matter(case: Case) -> None:
    y, p = case.data(np.random.default_rng(9), POSITIONS)
    value, dy = case.loss().value_and_gradient(y, p)
    value2, dy2 = case.loss().value_and_gradient(y, np.asfortranarray(p))
    assert value == value2 and dy2.flags.c_contiguous
    np.testing.assert_array_equal(dy, dy2)


@pytest.mark.parametrize("name", ["CategoricalCrossentropy", "SparseCategoricalCrossentropy"])
@pytest.mark.parametrize("from_logits", [False, True])
def test_axis_of_the_classes_may_be_any(name: str, from_logits: bool) -> None:
    rng = np.random.default_rng(10)
    y, p = (label_logits if name.startswith("Sparse") else one_hot_logits)(rng, POSITIONS)
    p = p if from_logits else activations.softmax(p)
    last, middle = (getattr(losses, name)(from_logits=from_logits, axis=a) for a in (-1, 1))
    value, dy = last.value_and_gradient(y, p)
    y_moved = y if name.startswith("Sparse") else np.moveaxis(y, -1, 1)
    value2, dy2 = middle.value_and_gradient(y_moved, np.moveaxis(p, -1, 1))
    assert value == value2
    np.testing.assert_array_equal(dy, np.moveaxis(dy2, 1, -1))


@every_loss
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_threads_change_no_bit(case: Case, dtype: str) -> None:
    rng = np.random.default_rng(11)
    y, p = case.data(rng, (3000, TIME))
    p = p.astype(dtype)
    w, m = weights_and_mask((3000, TIME) if "axis" not in case.options else (3000, CLASSES), rng)
    before = threads.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3, 4):
            threads.set_num_threads(count)
            value, dy = case.loss().value_and_gradient(y, p, w, m)
            found.append((value, case.loss()(y, p, w, m), dy.tobytes()))
    finally:
        threads.set_num_threads(before)
    assert len(set(found)) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_logits_stay_finite(dtype: str) -> None:
    z = np.array([[1e4, -1e4, 0], [-1e4, 1e4, 5]], dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        for loss, y in (
            (losses.SparseCategoricalCrossentropy(True), [0, 0]),
            (losses.CategoricalCrossentropy(True), np.eye(3)[[0, 0]]),
            (losses.BinaryCrossentropy(True), np.array([[1, 0, 1], [1, 0, 1]])),
            (losses.LogCosh(), np.zeros((2, 3))),
        ):
            value, dz = loss.value_and_gradient(y, z)
            assert np.isfinite(value) and np.isfinite(dz).all() and value > 1e3


def test_ignored_class_is_a_mask() -> None:
    y, p = labels(np.random.default_rng(12), POSITIONS)
    for ignored in (1, -1):
        y2 = np.where(y == 1, ignored, y)
        value, dy = losses.SparseCategoricalCrossentropy(ignore_class=ignored).value_and_gradient(y2, p)
        value2, dy2 = losses.SparseCategoricalCrossentropy().value_and_gradient(y, p, mask=y != 1)
        assert value == value2
        np.testing.assert_array_equal(dy, dy2)


@pytest.mark.parametrize("shape", [(BATCH,), (BATCH, 1)])
def test_class_numbers_may_have_a_last_axis_of_one_and_any_dtype(shape: tuple[int, ...]) -> None:
    y, p = labels(np.random.default_rng(13), (BATCH,))
    loss = losses.SparseCategoricalCrossentropy()
    for dtype in ("int32", "uint8", "float32"):
        assert loss(y.reshape(shape).astype(dtype), p) == loss(y, p)


def test_targets_may_lack_or_have_a_last_axis_of_one() -> None:
    y, p = np.arange(4.0), np.array([0.0, 2, 2, 5])
    loss = losses.MeanSquaredError()
    for a in (y, y[:, None]):
        for b in (p, p[:, None]):
            value, dy = loss.value_and_gradient(a, b)
            assert value == 1.25 and dy.shape == b.shape
    sequences = np.zeros((4, 3)), np.ones((4, 3, 1))
    mask = np.arange(12).reshape(4, 3) < 5
    assert loss(*sequences, mask=mask) == 1
    assert losses.MeanSquaredError(reduction="none")(*sequences).shape == (4, 3)


BAD = [
    (losses.MeanSquaredError(), np.zeros((4, 3)), np.zeros((4, 2)), r"mean_squared_error .*\(4, 3\).*\(4, 2\)"),
    (losses.MeanSquaredError(), np.zeros((4, 1)), np.zeros((4, 3)), "mean_squared_error expects targets of the shape"),
    (losses.Huber(), np.zeros((4, 2, 3)), np.zeros((4, 3)), "huber_loss expects"),
    (losses.CategoricalCrossentropy(), np.zeros(4, int), np.ones((4, 3)), "sparse_categorical_crossentropy"),
    (losses.CategoricalCrossentropy(), np.full((4, 3), 2), np.ones((4, 3)), r"targets must lie in \[0, 1\]"),
    (losses.BinaryCrossentropy(), np.full((4, 1), -1), np.ones((4, 1)), r"binary_crossentropy: .*\[0, 1\].*-1"),
    (losses.SparseCategoricalCrossentropy(), np.zeros((4, 3)), np.ones((4, 3)), "one-hot"),
    (losses.SparseCategoricalCrossentropy(), np.zeros((4, 2)), np.ones((4, 3)), "one class number per row"),
    (losses.SparseCategoricalCrossentropy(), np.zeros((4, 2), int), np.ones((4, 5, 3)), r"\(4, 5\)"),
    (losses.SparseCategoricalCrossentropy(), np.array([0, 3]), np.ones((2, 3)), r"labels must lie in \[0, 3\).* 3"),
    (losses.SparseCategoricalCrossentropy(), np.array([0, -1]), np.ones((2, 3)), r"labels must lie in .* -1"),
    (losses.SparseCategoricalCrossentropy(), np.array([0, np.nan]), np.ones((2, 3)), r"labels must lie in .* nan"),
    (losses.SparseCategoricalCrossentropy(), np.array([0, 1.5]), np.ones((2, 3)), "whole numbers; received 1.5"),
    (losses.SparseCategoricalCrossentropy(), np.array(0), np.ones(3), "sparse_categorical_crossentropy expects"),
    (losses.CosineSimilarity(axis=2), np.zeros((4, 3)), np.zeros((4, 3)), "axis 2 does not exist"),
]


@pytest.mark.parametrize("loss, y, p, message", BAD)
def test_bad_targets_are_named(loss: losses.Loss, y: np.ndarray, p: np.ndarray, message: str) -> None:
    for call in (loss, loss.value_and_gradient):
        with pytest.raises(ValueError, match=message):
            call(y, p)


def test_bad_weights_masks_and_options_are_named() -> None:
    loss, y, p = losses.MeanSquaredError(), np.zeros((4, 3, 2)), np.ones((4, 3, 2))
    with pytest.raises(ValueError, match=r"mean_squared_error: sample_weight must have shape \(4, 3\).*\(3,\)"):
        loss(y, p, sample_weight=np.ones(3))
    with pytest.raises(ValueError, match=r"mean_squared_error: mask must have shape \(4, 3\).*\(3, 4\)"):
        loss(y, p, mask=np.ones((3, 4), bool))
    with pytest.raises(ValueError, match="reduction must be one of"):
        losses.MeanSquaredError(reduction="average")
    with pytest.raises(ValueError, match="gives no single value"):
        losses.MeanSquaredError(reduction="none").value_and_gradient(y, p)
    with pytest.raises(ValueError, match="label_smoothing must lie in"):
        losses.BinaryCrossentropy(label_smoothing=1.5)


def test_losses_are_found_by_what_users_write() -> None:
    for identifier in ("mse", "MSE", "mean_squared_error", "MeanSquaredError", losses.mean_squared_error):
        assert isinstance(losses.get(identifier), losses.MeanSquaredError), identifier
    assert isinstance(losses.get(losses.Huber), losses.Huber) and losses.get("huber").name == "huber_loss"
    assert losses.get(None) is None
    loss = losses.Poisson()
    assert losses.get(loss) is loss
    chosen = {((8,), (8, 1)): "Binary", ((8,), (8, 5)): "SparseC", ((8, 1), (8, 5)): "SparseC", ((8, 5), (8, 5)): "C"}
    for (true, pred), name in chosen.items():
        assert type(losses.get("crossentropy", true, pred)).__name__.startswith(name)
    with pytest.raises(ValueError, match=r"unknown loss 'msr'; known are: .*mse"):
        losses.get("msr")
    with pytest.raises(ValueError, match=r"needs its gradient.*value_and_gradient"):
        losses.get(lambda y, p: 0.0)


def test_functions_give_one_value_per_position() -> None:
    y, p = numbers(np.random.default_rng(14), POSITIONS)
    np.testing.assert_allclose(losses.mean_squared_error(y, p), np.square(y - p).mean(axis=-1))
    np.testing.assert_array_equal(losses.huber(y, p, 0.5), losses.Huber(0.5, reduction=None)(y, p))


class Quartic:
    """A user's loss: mean(d ** 4)"""

    def value_and_gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> tuple[float, np.ndarray]:
        d = y_pred - y_true
        return np.mean(d**4), 4 * d**3 / d.size


def test_user_loss_is_masked_by_selection() -> None:
    y, p = numbers(np.random.default_rng(15), POSITIONS)
    loss = losses.get(Quartic())
    assert loss.name == "quartic" and loss.fuses is None
    value, dy = loss.value_and_gradient(y, p)
    assert value == np.mean((p - y) ** 4) and dy.shape == p.shape
    mask = weights_and_mask(POSITIONS, np.random.default_rng(0))[1]
    value, dy = loss.value_and_gradient(*poisoned(y, p, ~mask), mask=mask)
    assert value == pytest.approx(np.mean((p - y)[mask] ** 4)) and (dy[~mask] == 0).all()
    np.testing.assert_allclose(dy[mask], 4 * (p - y)[mask] ** 3 / (p - y)[mask].size)
    with pytest.raises(ValueError, match="quartic: its value_and_gradient takes no sample_weight"):
        loss.value_and_gradient(y, p, np.ones(BATCH))


def test_user_loss_may_be_a_subclass() -> None:
    class Cubic(losses.Loss):
        def elementwise_gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            d = np.abs(y_pred - y_true)
            return (d**3).sum(axis=-1), 3 * d**2 * np.sign(y_pred - y_true)

    y, p = numbers(np.random.default_rng(16), POSITIONS)
    w, m = weights_and_mask(POSITIONS, np.random.default_rng(0))
    loss = losses.get(Cubic())
    value, dy = loss.value_and_gradient(y, p, w, m)
    assert value == pytest.approx(((np.abs(p - y) ** 3).sum(axis=-1) * w)[m].sum() / m.sum())
    np.testing.assert_allclose(dy, slope(lambda x: loss(y, x, w, m), p), rtol=1e-6, atol=1e-8)


@every_loss
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_value_and_gradient_equal_those_of_keras(case: Case, dtype: str, keras: Any, torch: Any) -> None:
    rng = np.random.default_rng(17)
    y, p = case.data(rng, POSITIONS)
    p = p.astype(dtype)
    w, m = weights_and_mask(positions_of(case), rng)
    close = {"rtol": 2e-5, "atol": 2e-6} if dtype == "float32" else {"rtol": 1e-10, "atol": 1e-12}
    if case.name == "LogCosh" and dtype == "float64":  # theirs takes log(2) from float32
        close = {"rtol": 1e-8, "atol": 1e-8}
    for weight, mask in ((None, None), (w, None), (None, m), (w, m)):
        for reduction in (*AVERAGES, "none"):
            theirs = getattr(keras.losses, case.name)(**case.options, reduction=reduction, dtype=dtype)
            y_pred = torch.from_numpy(p.copy()).requires_grad_(True)
            if mask is not None:
                keras.src.backend.set_keras_mask(y_pred, torch.from_numpy(mask))
            value = theirs(y, y_pred, sample_weight=weight)
            value.sum().backward()
            ours = case.loss(reduction=reduction)
            np.testing.assert_allclose(ours(y, p, weight, mask), value.detach().numpy(), **close)
            if reduction != "none":
                np.testing.assert_allclose(ours.value_and_gradient(y, p, weight, mask)[1], y_pred.grad.numpy(), **close)


def test_defaults_and_names_are_those_of_keras(keras: Any) -> None:
    for name in {c.name for c in CASES}:
        ours, theirs = getattr(losses, name)().get_config(), getattr(keras.losses, name)().get_config()
        for key, value in theirs.items():
            assert ours[key] == value, (name, key)
        assert hasattr(losses, registry.snake_case(name)), name
    for alias in ("bce", "BCE", "kld", "KLD", "mae", "MAE", "mse", "MSE", "mape", "MAPE", "msle", "MSLE"):
        assert type(losses.get(alias)).__name__ == type(losses.get(keras.losses.get(alias).__name__)).__name__
