"""What an optimizer does to an Embedding: every row as in Keras, or, with lazy updates, only those that were seen."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from fastrnn import Sequential, layers, optimizers, threads
from fastrnn.params import Parameter, Segment, adopt, segments
from fastrnn.states import Context

ROWS, WIDTH = 9, 5
BATCHES = ([[1, 2], [1, 7]], [[2, 3], [0, 2]], [[8, 8], [1, 1]], [[4, 2], [5, 8]])
OPTIMIZERS = {
    "SGD": {"momentum": 0.9},
    "Adam": {},
    "AdamW": {"weight_decay": 0.1},
    "RMSprop": {"momentum": 0.5, "centered": True},
    "Adagrad": {},
    "Adadelta": {"learning_rate": 1.0},
    "Nadam": {},
    "Adamax": {},
    "Lion": {},
}
every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def table() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(ROWS, WIDTH))


def embedding(**options: Any) -> layers.Embedding:
    layer = layers.Embedding(ROWS, WIDTH, weights=[table()], dtype="float64", **options)
    layer.build((None, None))
    return layer


def gradients() -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [(np.array(ids), rng.normal(size=(2, 2, WIDTH))) for ids in BATCHES]


def step(layer: layers.Embedding, optimizer: Any, ids: np.ndarray, dy: np.ndarray) -> None:
    """One training step as a model takes it: clear, forward, backward, check, update."""
    (segment,) = segments([layer.embeddings])
    segment.clear_gradients()
    _, saved = layer.forward(ids, None, Context(record=True))
    layer.backward(saved, dy)
    assert segment.gradients_are_finite()
    optimizer.apply()


def trained(optimizer: Any, layer: layers.Embedding, watched: bool = False) -> np.ndarray:
    optimizer.build(layer.weights)
    if watched:
        _ = layer.embeddings.gradient
    for ids, dy in gradients():
        step(layer, optimizer, ids, dy)
    return layer.embeddings.numpy()


@every_optimizer
def test_by_default_every_row_takes_the_steps_of_keras(name: str, keras: Any, torch: Any) -> None:
    options = {"learning_rate": 0.01, **OPTIMIZERS[name]}
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        theirs = getattr(keras.optimizers, name)(**options)
        variable = keras.Variable(table(), dtype="float64")
        theirs.build([variable])
        for ids, dy in gradients():
            dense = np.zeros((ROWS, WIDTH))
            np.add.at(dense, ids, dy)
            theirs.apply([torch.from_numpy(dense)])
        expected = variable.numpy()
    finally:
        keras.config.set_floatx(before)
    ours = trained(getattr(optimizers, name)(**options), embedding())
    np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-12)


def test_lazy_adam_takes_the_steps_of_torch_sparse_adam(torch: Any) -> None:
    theirs = torch.nn.Embedding(ROWS, WIDTH, sparse=True, dtype=torch.float64)
    theirs.weight.data = torch.from_numpy(table())
    other = torch.optim.SparseAdam(theirs.parameters(), lr=0.05, eps=1e-7)
    for ids, dy in gradients():
        other.zero_grad()
        (theirs(torch.from_numpy(ids)) * torch.from_numpy(dy)).sum().backward()
        other.step()
    ours = trained(optimizers.Adam(0.05), embedding(lazy_updates=True))
    np.testing.assert_allclose(ours, theirs.weight.detach().numpy(), rtol=1e-12)
    assert np.abs(ours - trained(optimizers.Adam(0.05), embedding())).max() > 1e-3, "the dense steps are others"


@every_optimizer
def test_a_lazy_step_is_the_dense_one_on_rows_that_were_seen_and_none_on_others(name: str) -> None:
    layer, optimizer = embedding(lazy_updates=True), getattr(optimizers, name)(**OPTIMIZERS[name])
    optimizer.build(layer.weights)

    def everything(layer: layers.Embedding, optimizer: Any) -> list[np.ndarray]:
        return [layer.embeddings.numpy(), *(a for a in optimizer.state().values() if a.shape == (ROWS, WIDTH))]

    for ids, dy in gradients():
        before = everything(layer, optimizer)
        dense_layer, dense_optimizer = copy.deepcopy((layer, optimizer))
        dense_layer.embeddings.lazy = False
        step(dense_layer, dense_optimizer, ids, dy)
        step(layer, optimizer, ids, dy)
        seen = np.isin(np.arange(ROWS), ids)[:, None]
        for value, dense, old in zip(
            everything(layer, optimizer), everything(dense_layer, dense_optimizer), before, strict=True
        ):
            np.testing.assert_array_equal(value, np.where(seen, dense, old))
            assert (value != old).any()


@every_optimizer
@pytest.mark.parametrize("lazy", [False, True])
def test_knowing_the_rows_changes_no_bit(name: str, lazy: bool) -> None:
    make = lambda: getattr(optimizers, name)(**OPTIMIZERS[name], clipnorm=0.7)  # noqa: E731
    layer, watched = embedding(lazy_updates=lazy), embedding(lazy_updates=lazy)
    assert layer.embeddings.rows is not None
    np.testing.assert_array_equal(trained(make(), layer), trained(make(), watched, watched=True))
    assert layer.embeddings.rows is not None and watched.embeddings.rows is None


@pytest.mark.parametrize("options", [{"gradient_accumulation_steps": 2}, {"clipvalue": 0.3}, {"global_clipnorm": 0.5}])
@pytest.mark.parametrize("lazy", [False, True])
def test_options_work_on_known_rows_as_on_unknown_ones(options: Any, lazy: bool) -> None:
    known, unknown = (
        trained(optimizers.Adam(0.1, **options), embedding(lazy_updates=lazy), watched=watched)
        for watched in (False, True)
    )
    np.testing.assert_array_equal(known, unknown)


def test_accumulated_gradients_of_all_calls_make_lazy_rows_move() -> None:
    moved = trained(optimizers.SGD(1.0, gradient_accumulation_steps=4), embedding(lazy_updates=True))
    total = np.zeros((ROWS, WIDTH))
    for ids, dy in gradients():
        np.add.at(total, ids, dy)
    np.testing.assert_allclose(moved, table() - total / 4, rtol=1e-12)


def test_a_step_written_in_numpy_sees_only_the_rows_that_move() -> None:
    sizes = []

    @dataclass(eq=False, repr=False)
    class Momentum(optimizers.Optimizer):
        def slots(self) -> dict[str, float]:
            return {"momentum": 0.0}

        @staticmethod
        def step(w: Any, g: Any, scratch: Any, lr: float, momentum: Any) -> None:
            sizes.append(w.size)
            assert scratch.shape == (2, w.size)
            momentum *= 0.9
            momentum -= lr * g
            w += momentum

    for lazy in (False, True):
        own = trained(Momentum(0.1, weight_decay=0.1), embedding(lazy_updates=lazy))
        ours = trained(optimizers.SGD(0.1, momentum=0.9, weight_decay=0.1), embedding(lazy_updates=lazy))
        np.testing.assert_allclose(own, ours, rtol=1e-12)
    assert sizes == [ROWS * WIDTH] * 4 + [len(np.unique(b)) * WIDTH for b in BATCHES]


def test_lazy_and_other_weights_lie_side_by_side() -> None:
    layer, dense = embedding(lazy_updates=True), Parameter("w", np.ones((3, 2)), "float64")
    before = Parameter("v", np.ones(4), "float64")
    adopt([before, *layer.weights, dense])
    assert len(segments([before, *layer.weights, dense])) == 1
    optimizer = optimizers.SGD(1.0, momentum=0.5)
    optimizer.build([before, *layer.weights, dense])
    for ids in ([[0]], [[1]]):
        layer.embeddings.add_rows(np.array(ids), np.ones((1, 1, WIDTH)))
        dense.gradient[...] = before.gradient[...] = 1.0
        optimizer.apply()
        segments(layer.weights)[0].clear_gradients()
    assert (dense.values == 1 - 1 - 1.5).all() and (before.values == 1 - 1 - 1.5).all()
    moves = layer.embeddings.values - table()
    np.testing.assert_allclose(moves[:2], -1, rtol=1e-12)
    assert not moves[2:].any(), "and row 0 did not go on moving"


def test_clearing_and_checking_reach_what_lies_around_known_rows() -> None:
    a, b = Parameter("a", np.ones(3)), Parameter("b", np.ones(2))
    e = Parameter("e", np.ones((4, 2)))
    e.track_rows()
    adopt([a, e, b])
    (segment,) = segments([a, e, b])
    for p in (a, b):
        assert segment.gradients_are_finite()
        p.gradient[-1] = np.inf
        assert not segment.gradients_are_finite()
        segment.clear_gradients()
    e.add_rows(np.array([1, 3, 1]), np.array([[1, 2], [3, np.nan], [1, 1]], "float32"))
    assert e.rows is not None and e.rows.ids.tolist() == [1, 3] and not segment.gradients_are_finite()
    assert np.array_equal(e.copy_gradient(), [[0, 0], [2, 3], [0, 0], [3, np.nan]], equal_nan=True)
    segment.clear_gradients()
    assert not e.copy_gradient().any() and len(e.rows) == 0 and e.rows is not None


def test_whoever_asks_for_the_gradient_may_write_anywhere_from_then_on() -> None:
    e = Parameter("e", np.ones((4, 2)))
    e.track_rows()
    view = e.gradient
    segment = Segment(e)
    for _ in range(2):
        e.add_rows(np.array([1]), np.ones((1, 2), "float32"))
        view[3] = np.nan
        assert not segment.gradients_are_finite()
        segment.clear_gradients()
        assert not view.any()


@pytest.mark.parametrize("lazy", [False, True])
def test_a_model_learns_the_same_with_any_number_of_threads(lazy: bool) -> None:
    ids = np.random.default_rng(2).integers(0, 3000, (64, 30))
    y = (ids.sum(axis=1) % 2).astype("float32")[:, None]
    model = Sequential(
        [
            layers.Embedding(3000, 40, lazy_updates=lazy, mask_zero=True),
            layers.GRU(4, seed=1),
            layers.Dense(1, "sigmoid"),
        ]
    )
    model.build((None, 30))
    twins = [model, copy.deepcopy(model)]
    before = threads.get_num_threads()
    try:
        for count, twin in zip((1, 3), twins, strict=True):
            threads.set_num_threads(count)
            twin.compile("adam", "binary_crossentropy")
            twin.fit(ids, y, epochs=2, batch_size=16, shuffle=False, verbose=0)
            assert twin.layers[0].embeddings.rows is not None
            twin.get_config()
    finally:
        threads.set_num_threads(before)
    for a, b in zip(*(m.get_weights() for m in twins), strict=True):
        np.testing.assert_array_equal(a, b)
    assert model.layers[0].get_config()["lazy_updates"] is lazy


def test_a_gradient_that_was_only_lent_is_cleared_when_it_is_wanted_next() -> None:
    p = Parameter("p", np.ones(3))
    p.lend_gradient()[...] = 2
    p.clear_gradient()
    assert p.blank and (p.lend_gradient(overwritten=True) == 2).all(), "nothing was written"
    assert not p.blank
    p.clear_gradient()
    assert not p.lend_gradient().any() and not p.blank
    p.lend_gradient()[...] = 2
    p.clear_gradient()
    assert not p.copy_gradient().any()
    p.lend_gradient()[...] = 2
    p.clear_gradient()
    p.settle_gradient()
    assert not p.block.gradients.any()


def test_a_gradient_that_somebody_has_is_cleared_at_once() -> None:
    p = Parameter("p", np.ones(3))
    view = p.gradient
    view[...] = 2
    p.clear_gradient()
    assert not view.any() and not p.blank
    view[...] = 3
    p.settle_gradient()
    assert (view == 3).all()


def test_a_copy_has_a_gradient_of_zero_that_nobody_has_seen() -> None:
    p = Parameter("p", np.ones(3))
    p.gradient[...] = 2
    again = copy.deepcopy(p)
    assert not again.block.gradients.any()
    again.clear_gradient()
    assert again.blank


def test_gradients_that_an_optimizer_adds_by_itself_move_every_lazy_row() -> None:
    class Noisy(optimizers.SGD):
        def coefficients(self, learning_rate: float, step: int) -> Any:
            if step == 2:
                layer.embeddings.gradient[...] = 1.0
            return super().coefficients(learning_rate, step)

    layer, optimizer = embedding(lazy_updates=True), Noisy(1.0)
    optimizer.build(layer.weights)
    moved = []
    for ids, dy in gradients()[:2]:
        before = layer.embeddings.numpy()
        step(layer, optimizer, ids, dy)
        moved.append((layer.embeddings.numpy() != before).any(axis=1))
    assert not moved[0].all() and moved[1].all()
