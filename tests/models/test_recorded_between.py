"""What users do between two steps reaches replayed steps as it does others; `train_on_batch`, generators, callbacks."""

from __future__ import annotations

import copy
import functools
import os
import pickle
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastrnn import (
    Input,
    Model,
    Sequential,
    activations,
    callbacks,
    config,
    layers,
    losses,
    metrics,
    optimizers,
    threads,
    utils,
)
from fastrnn._core import kernels
from fastrnn.models import NonFiniteLossError, recorded
from fastrnn.models.data import Filling
from fastrnn.registry import changes, settings_version, watched

B = 4


def floats(*shape: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


X, Y = floats(26, 5, 3), floats(26, 2, seed=5)


def small(loss: Any = "mse", optimizer: Any = "adam", **more: Any) -> Sequential:
    model = Sequential([Input((None, 3)), layers.LSTM(6, **more), layers.Dense(2)])
    model.compile(optimizer, loss)
    return model


def kept(model: Any) -> list[recorded.Recorded]:
    """The recordings of a model."""
    return [r for r, _ in model._repeated.known.values()]


def both_ways(work: Callable[[], Any]) -> None:
    """Says that `work`, which gives weights, comes to the same whether steps are replayed or not."""
    found = []
    for replayed in (True, False):
        utils.set_random_seed(11)
        with pytest.MonkeyPatch.context() as patch:
            if not replayed:
                patch.setattr(recorded.Repeated, "differentiate", lambda self, batch: self.step.differentiate(batch))
            found.append(work())
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_single_batches_are_replayed(replays: list[int]) -> None:
    def work() -> Any:
        model = small()
        seen = [model.train_on_batch(X[i : i + n], Y[i : i + n]) for i in range(4) for n in (B, 2, B)]
        return [*model.get_weights(), np.array(seen)]

    both_ways(work)
    assert replays == [B, B] + [B, 2, B] * 2


def test_batches_of_a_generator_are_replayed_by_their_shapes(replays: list[int]) -> None:
    lengths = [5, 3, 5, 4, 3, 5, 3, 4, 5, 3, 4, 4]

    def batches() -> Iterator[Any]:
        for i, t in enumerate(lengths):
            yield X[i : i + B, :t], Y[i : i + B]

    def work() -> Any:
        model = small()
        history = model.fit(batches(), epochs=1, verbose=0).history
        return [*model.get_weights(), np.array(history["loss"])]

    both_ways(work)
    assert len(replays) == 2 + 2 + 2


def test_batches_whose_types_change_are_not_mixed_up(replays: list[int]) -> None:
    def work() -> Any:
        model = small("mae")
        for kind in ("float32", "int64", "uint8", "float32", "int8", "bool"):
            for _ in range(3):
                model.train_on_batch(X[:B], (100 * np.abs(Y[:B])).astype(kind))
        return model.get_weights()

    both_ways(work)
    assert len(replays) == 1 + 1 + 1 + 3 + 1 + 1


def test_weights_of_samples_may_come_and_go(replays: list[int]) -> None:
    def work() -> Any:
        model = small()
        for i in range(9):
            model.train_on_batch(X[:B], Y[:B], np.linspace(0, 1, B) if i % 3 == 2 else None)
        return model.get_weights()

    both_ways(work)
    assert len(replays) == 4


class Counts(callbacks.Callback):
    """A callback of a user's that changes nothing."""

    def __init__(self) -> None:
        self.batches = self.epochs = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.batches += 1

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epochs += 1


def test_callbacks_that_change_nothing_do_not_stand_in_the_way(replays: list[int]) -> None:
    counts = Counts()
    small().fit(X[:24], Y[:24], batch_size=B, epochs=3, verbose=0, callbacks=[counts])
    assert (counts.batches, counts.epochs) == (18, 3) and replays == [B] * 16


class Changes(callbacks.Callback):
    """Changes something before every second batch, by the older name of the hook."""

    def __init__(self, change: Callable[[Any, int], None]) -> None:
        self.change, self.seen = change, 0

    def on_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.seen += 1
        if self.seen % 4 == 0:
            self.change(self.model, self.seen)


def _delta(model: Any, i: int) -> None:
    model.loss.delta = 0.1 * i


def _rate(model: Any, i: int) -> None:
    model.layers[1].rate = 0.5 if i % 8 else 0.1


def _input_rate(model: Any, i: int) -> None:
    model.layers[0].dropout = 0.5 if i % 8 else 0.0


def _activation(model: Any, i: int) -> None:
    model.layers[2].activation = activations.relu if i % 8 else activations.tanh


def _weights(model: Any, i: int) -> None:
    model.layers[2].kernel.assign(model.layers[2].kernel.numpy() * 0.5)


def _frozen(model: Any, i: int) -> None:
    model.layers[2].trainable = bool(i % 8)


def _epsilon(model: Any, i: int) -> None:
    config.set_epsilon(1e-3 if i % 8 else 1e-7)


def _threads(model: Any, i: int) -> None:
    threads.set_num_threads(1 + i // 4 % 3)


def _learning_rate(model: Any, i: int) -> None:
    model.optimizer.learning_rate = 0.1 / i


def _another_model(model: Any, i: int) -> None:
    small().train_on_batch(X[:B], Y[:B])


def _same_weights(model: Any, i: int) -> None:
    other = Sequential(model.layers[:1])
    other.compile("sgd", "mse")
    other.train_on_batch(X[:B], floats(B, 6))


def _looks_at_gradients(model: Any, i: int) -> None:
    for p in model.weights:
        p.gradient += 1


def _gradients(model: Any, i: int) -> None:
    model.gradients(X[:B], Y[:B], training=True)


def _training_state(model: Any, i: int) -> None:
    """Back to where random streams were when this was called first."""
    model.set_training_state(vars(model).setdefault("saved", model.get_training_state()))


def _seed(model: Any, i: int) -> None:
    model.layers[1].random_seed = i


def _doubled(layer: Any, saved: Any, dy: Any) -> Any:
    dx = type(layer).backward(layer, saved, dy)
    dx *= 2
    return dx


def _method(model: Any, i: int) -> None:
    layer = model.layers[2]
    if "backward" in vars(layer):
        del layer.backward
    else:
        layer.backward = functools.partial(_doubled, layer)


class DoubleDense(layers.Dense):
    def backward(self, saved: Any, dy: Any) -> Any:
        dx = super().backward(saved, dy)
        dx *= 2
        return dx


def _class(model: Any, i: int) -> None:
    model.layers[2].__class__ = DoubleDense if i % 8 else layers.Dense


def _nested_fit(model: Any, i: int) -> None:
    model.fit(X[:B], Y[:B], batch_size=2, verbose=0)


def _evaluates(model: Any, i: int) -> None:
    model.evaluate(X[:B], Y[:B], verbose=0)
    model.predict(X[:B], verbose=0)


def _copies(model: Any, i: int) -> None:
    copy.deepcopy(model).train_on_batch(X[:B], Y[:B])
    pickle.loads(pickle.dumps(model)).train_on_batch(X[:B], Y[:B])


CHANGES = {
    change.__name__: change
    for change in (
        *(_delta, _rate, _input_rate, _activation, _weights, _frozen, _epsilon, _threads, _learning_rate),
        *(_another_model, _same_weights, _looks_at_gradients, _gradients, _training_state, _seed, _method, _class),
        *(_nested_fit, _evaluates, _copies),
    )
}


def dropping() -> Any:
    model = Sequential(
        [Input((None, 3)), layers.LSTM(6, dropout=0.2, seed=1), layers.Dropout(0.3, seed=2), layers.Dense(2)]
    )
    model.compile(optimizers.Adam(0.01), losses.Huber(0.1))
    return model


@pytest.mark.parametrize("name", CHANGES)
def test_what_callbacks_change_is_noticed(name: str, replays: list[int]) -> None:
    def work() -> Any:
        model = dropping()
        history = model.fit(X, Y, batch_size=B, epochs=4, verbose=0, callbacks=[Changes(CHANGES[name])]).history
        return [*model.get_weights(), np.array(history["loss"])]

    both_ways(work)
    assert replays


def test_epsilon_of_a_crossentropy_is_noticed(replays: list[int]) -> None:
    def work() -> Any:
        model = Sequential([Input((5, 3)), layers.LSTM(6), layers.Dense(4, activation="softmax")])
        model.compile("adam", "categorical_crossentropy")
        seen = []
        for i in range(8):
            config.set_epsilon(0.3 if i % 4 == 3 else 1e-7)
            seen.append(model.train_on_batch(X[:B], np.eye(4, dtype="float32")))
        return [*model.get_weights(), np.array(seen)]

    both_ways(work)
    assert replays


def test_another_number_of_threads_makes_new_recordings(replays: list[int]) -> None:
    model = small()
    for count in (1, 2, 1):
        threads.set_num_threads(count)
        for _ in range(4):
            model.train_on_batch(X[:B], Y[:B])
    assert len(replays) == 3 * 2


def test_random_streams_start_anew_where_a_state_knows_nothing_of_them(replays: list[int]) -> None:
    def work() -> Any:
        model = dropping()
        fresh = model.get_training_state()
        for i in range(12):
            if i == 6:
                model.set_training_state(fresh)
                assert model.get_training_state() == fresh
            model.train_on_batch(X[:B], Y[:B])
        assert {entry["calls"] for entry in model.get_training_state()["layers"].values()} == {6}
        return model.get_weights()

    both_ways(work)
    assert len(replays) == 10


@pytest.mark.parametrize("seed", range(12))
def test_any_of_it_in_any_order(seed: int, replays: list[int]) -> None:
    def work() -> Any:
        model, draw = dropping(), random.Random(seed)
        seen = []
        for i in range(60):
            size, length = draw.choice([B, B, B, 2]), draw.choice([5, 5, 3])
            if draw.random() < 0.2:
                CHANGES[draw.choice(sorted(CHANGES))](model, draw.randrange(1, 20))
            seen.append(model.train_on_batch(X[i % 9 :][:size, :length], Y[i % 9 :][:size]))
        return [*model.get_weights(), np.array(seen)]

    both_ways(work)
    assert replays or seed == 0  # where layers of the user's own come early


def test_recordings_are_few_and_small(monkeypatch: pytest.MonkeyPatch, replays: list[int]) -> None:
    monkeypatch.setattr(recorded, "MOST_FORMS", 3)
    model = small()

    def rounds(count: int, *lengths: int) -> int:
        before = len(replays)
        for _ in range(count):
            for t in lengths:
                model.train_on_batch(floats(B, t, 3), Y[:B])
                assert len(kept(model)) <= recorded.MOST_FORMS
        return len(replays) - before

    assert rounds(4, *range(1, 9)) == 3 * 2  # there is room for three forms
    monkeypatch.setattr(recorded, "PATIENCE", 20)
    assert rounds(4, *range(1, 9)) == 3 * 4
    assert rounds(20, 4, 5, 6) > 20  # the others were not used for long
    monkeypatch.setattr(recorded, "MOST_FORMS", 64)
    rounds(3, *range(1, 9))
    held = [r.bytes for r in kept(model)]
    assert len(held) == 8 and min(held) > 0
    monkeypatch.setattr(recorded, "MOST_BYTES", (sum(held) + 100) // 2)
    assert rounds(3, 30) == 0 and sum(r.bytes for r in kept(model)) <= sum(held) + 100
    rounds(30, 30)
    assert sum(r.bytes for r in kept(model)) <= sum(held) + 100


def test_marks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "MOST_MARKS", 5)
    model = small()
    for t in range(1, 12):
        model.train_on_batch(floats(B, t, 3), Y[:B])
    assert len(model._repeated.marks) == 5 and not kept(model)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not tell how much memory is used")
def test_packed_weights_are_not_kept() -> None:
    model = Sequential(
        [
            Input((None, 8)),
            layers.LSTM(300, return_sequences=True),
            layers.Bidirectional(layers.GRU(100)),
            layers.Dense(2),
        ]
    )
    model.compile("sgd", "mse")
    used = []
    for t in range(1, 31):
        for _ in range(3):
            model.train_on_batch(floats(2, t, 8), Y[:2])
        used.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    assert len(kept(model)) == 30 and used[-1] - used[4] < 40 << 20  # a set of packed weights has more than 3 MB


def test_setting_an_attribute_asks_no_code_of_users() -> None:
    class Tall(layers.Dense):
        @property
        def height(self) -> int:
            return vars(self)["tall"]

        @height.setter
        def height(self, value: int) -> None:
            vars(self)["tall"] = value

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    layer = Tall(2)
    layer.height = 3
    layer.unknown = None
    assert layer.height == 3


def test_a_metric_that_does_not_fit_says_so_after_the_update(replays: list[int]) -> None:
    """As in steps that are not recorded."""

    def work() -> Any:
        model = Sequential([Input((5, 3)), layers.GRU(4), layers.Dense(4)])
        model.compile("sgd", "mse", metrics=[metrics.SparseCategoricalAccuracy()])
        for _ in range(4):
            with pytest.raises(ValueError, match="sparse_categorical_accuracy"):
                model.train_on_batch(X[:B], np.zeros((B, 4), "float32"))
        return [*model.get_weights(), np.array(model.optimizer.iterations)]

    both_ways(work)
    assert len(replays) == 2


def test_recordings_end_with_fit_and_with_compile() -> None:
    model = small()
    for _ in range(3):
        model.train_on_batch(X[:B], Y[:B])
    assert kept(model)
    twin = pickle.loads(pickle.dumps(model))
    assert twin._repeated is None and copy.deepcopy(model)._repeated is None
    model.compile("sgd", "mae")
    assert model._repeated is None
    model.fit(X, Y, verbose=0)
    assert model._repeated is None


def test_a_batch_that_ends_in_an_error_leaves_nothing_behind(replays: list[int]) -> None:
    model = Sequential([Input((5,), dtype="int32"), layers.Embedding(9, 4), layers.GRU(4), layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    x, y = np.arange(20).reshape(4, 5) % 9, np.array([0, 1, 2, 0])
    for _ in range(4):
        model.train_on_batch(x, y)
    before = model.get_weights()
    with pytest.raises(ValueError, match="received 9"):
        model.train_on_batch(np.full((4, 5), 9), y)
    with pytest.raises(ValueError, match="labels"):
        model.train_on_batch(x, y + 1)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    model.train_on_batch(x, y)
    assert len(replays) == 3
    tall = small()
    for scale in (1, 1, 1, np.inf, 1):
        try:
            tall.train_on_batch(X[:B] * np.float32(scale), Y[:B])
        except NonFiniteLossError:
            assert scale == np.inf
    assert all(np.isfinite(w).all() for w in tall.get_weights())


def test_an_interrupted_replay_is_not_used_again(replays: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(Exception):
        pass

    def stopping(self: Any, batch: Any) -> None:
        raise Stop

    def work(stops: bool = True) -> Any:
        model = small()
        for i in range(8):
            with pytest.MonkeyPatch.context() as patch:
                if i == 4 and model._repeated is not None and kept(model):
                    patch.setattr("fastrnn.models.data.Filling.fill", stopping)
                    with pytest.raises(Stop):
                        model.train_on_batch(X[:B], Y[:B])
            model.train_on_batch(X[:B], Y[:B])
        return model.get_weights()

    both_ways(work)
    assert len(replays) == 2 + 3  # what was dropped is recorded at once


def test_a_second_thread_goes_the_usual_way_meanwhile() -> None:
    model = small()
    for _ in range(4):
        model.train_on_batch(X[:B], Y[:B])
    assert kept(model)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(200):
                model.train_on_batch(X[:B], Y[:B])
        except BaseException as error:
            failed.append(error)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failed


def test_networks_that_are_trained_in_turns_are_replayed(replays: list[int]) -> None:
    """A generator and a critic, each trained while the other is frozen."""

    def work() -> Any:
        critic = Sequential([Input((5, 3)), layers.GRU(4), layers.Dense(1, activation="sigmoid")])
        critic.compile("adam", "bce")
        noise = Input((5, 2))
        frozen = Sequential([Input((5, 3)), *(type(layer).from_config(layer.get_config()) for layer in critic.layers)])
        frozen.trainable = False
        both = Model(noise, frozen(layers.LSTM(3, return_sequences=True)(noise)))
        both.compile("adam", "bce")
        for i in range(6):
            critic.train_on_batch(floats(B, 5, 3, seed=i), np.ones((B, 1)))
            frozen.set_weights(critic.get_weights())
            both.train_on_batch(floats(B, 5, 2, seed=i), np.ones((B, 1)))
        return [*critic.get_weights(), *both.get_weights()]

    both_ways(work)
    assert len(replays) == 4 + 4


def test_setting_an_attribute_counts_and_making_an_object_does_not() -> None:
    layer = layers.Bidirectional(layers.LSTM(3))
    inner = layer.directions[0]
    version = settings_version()
    inner.dropout = 0.25
    assert settings_version() == version  # nobody has asked yet
    parts = watched([layer])
    assert inner in parts and inner.activation in parts and layer in parts
    before = [changes(p) for p in parts]
    layers.Dense(2, activation="relu"), losses.Huber(), small().train_on_batch(X[:B], Y[:B])
    inner._packed = ()
    inner.dropout, inner.trainable, inner.name = 0.25, True, str(inner.name)
    small().stop_training = True
    assert [changes(p) for p in parts] == before
    for name, value in (("dropout", 0.5), ("trainable", False), ("units", 4), ("activation", activations.relu)):
        version = settings_version()
        setattr(inner, name, value)
        before[parts.index(inner)] += 1
        assert [changes(p) for p in parts] == before and settings_version() != version


def test_what_watches_takes_no_names_of_users() -> None:
    class Mine(layers.Dense):
        def _count(self) -> int:
            return 1

    layer = Mine(2)
    layer.changes = []
    layer.of_itself = []
    layer.of_itself.append(layer.of_itself)
    model = Sequential([Input((5, 3)), layers.LSTM(2), layer])
    model.compile("sgd", "mse")
    model.train_on_batch(X[:B], Y[:B])
    layer.changes = None


@pytest.mark.parametrize("where", ("loss", "gradient"))
def test_a_step_that_was_not_finite_is_not_kept(where: str, replays: list[int]) -> None:
    """Only a part of it was done: no backward pass, or not all gradients were looked at."""

    def work() -> Any:
        model = Sequential([Input((5, 3)), layers.SimpleRNN(4, activation="linear"), layers.Dense(2)])
        model.compile(optimizers.SGD(0.01), "mse")
        seen = []
        for scale in (1, 1e30 if where == "loss" else 1e18, 1, 1, 1e18, 1, 1e30, 1):
            try:
                seen.append(model.train_on_batch(X[:B] * np.float32(min(scale, 1e18)), Y[:B] * np.float32(scale)))
            except NonFiniteLossError:
                seen.append(-1.0)
        return [*model.get_weights(), np.array(seen)]

    with np.errstate(all="ignore"):
        both_ways(work)
    assert replays


def test_gradients_can_be_read_after_replays_whatever_was_cleared_before(replays: list[int]) -> None:
    def work() -> Any:
        model, seen = small(), []
        for _ in range(5):
            for p in model.weights:
                p.clear_gradient()
            model.train_on_batch(X[:B], Y[:B])
            seen += [p.copy_gradient() for p in model.weights]
        return seen

    both_ways(work)
    assert len(replays) == 3


def test_memory_of_inputs_and_packed_weights_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "MOST_BYTES", 1 << 20)
    model = Sequential([Input((None, 300)), layers.LSTM(4), layers.Dense(2)])
    model.compile("sgd", "mse")
    for t in range(1, 40):
        for _ in range(3):
            model.train_on_batch(floats(B, t, 300), Y[:B])
    sizes = [sum(a.nbytes for a in (*r.batch.x, *r.batch.y)) for r in kept(model)]
    assert sizes and sum(sizes) <= sum(r.bytes for r in kept(model)) <= 2 << 20


def test_other_threads_do_not_spoil_forms(replays: list[int]) -> None:
    """Only one recording is made at a time; who comes second tries again."""
    model, (x, y) = small(), (X[:B], Y[:B])
    model.train_on_batch(x, y)
    there, done = threading.Event(), threading.Event()

    def records() -> None:
        with kernels.Recording([x], 1000):
            there.set()
            done.wait(10)

    other = threading.Thread(target=records)
    other.start()
    there.wait(10)
    model.train_on_batch(x, y)
    done.set()
    other.join()
    for _ in range(3):
        model.train_on_batch(x, y)
    assert len(replays) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_in_the_middle_of_a_recording(replays: list[int]) -> None:
    x = X[:B]
    with kernels.Recording([x], 1 << 20) as recording:
        kernels.all_finite(x)
        child = os.fork()
        if child == 0:
            os._exit(int(recording.complete))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 and recording.complete


def test_numbers_that_can_change_in_place_are_not_recorded(replays: list[int]) -> None:
    def work() -> Any:
        delta = np.array(0.1)
        model = small(losses.Huber(delta))
        for i in range(6):
            delta[...] = 0.1 * (i + 1)
            model.train_on_batch(X[:B], Y[:B])
        return model.get_weights()

    both_ways(work)
    assert replays == []


def test_weights_that_are_thawed_are_trained(replays: list[int]) -> None:
    """What was recorded while they were frozen knows no gradient of theirs."""

    def work() -> Any:
        model = small()
        model.layers[0].trainable = False
        kernels_by_then = []
        for i in range(12):
            if i % 4 == 0:
                model.layers[0].trainable = i == 4
                kernels_by_then.append(model.get_weights()[0])
            model.train_on_batch(X[:B], Y[:B])
        start, thawed, frozen = kernels_by_then
        np.testing.assert_array_equal(start, thawed)
        np.testing.assert_array_equal(frozen, model.get_weights()[0])
        assert (thawed != frozen).all()
        return model.get_weights()

    both_ways(work)
    assert len(replays) == 3 * 2


def test_a_metric_that_begins_to_keep_what_it_sees(replays: list[int]) -> None:
    kept_arrays: list[Any] = []
    model = Sequential([Input((5, 3)), layers.GRU(4), layers.Dense(2, activation="softmax")])
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    for i in range(6):
        if i == 3:
            metric = model.metrics[-1]
            metric.update_state = lambda y, p, w=None: kept_arrays.append((y, p))
        model.train_on_batch(X[i : i + B], np.eye(2, dtype="float32")[[0, 1, 0, 1]])
    assert len(replays) == 4 and len({p.tobytes() for _, p in kept_arrays}) == 3


def test_metrics_that_are_losses_disturb_nothing(replays: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    before = recorded.watched
    monkeypatch.setattr(recorded, "watched", lambda parts: looked.append(1) or before(parts))
    model = Sequential([Input((5, 3)), layers.LSTM(6), layers.Dense(2)])
    model.compile("adam", "mse", metrics=["mae", "mse"])
    model.fit(X[:24], Y[:24], batch_size=B, epochs=4, verbose=0)
    assert len(replays) == 22 and len(looked) <= 4


def test_an_interrupted_look_is_looked_again(replays: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    for _ in range(3):
        model.train_on_batch(X[:B], Y[:B])
    model.layers[1].backward = lambda saved, dy: 2 * layers.Dense.backward(model.layers[1], saved, dy)
    with monkeypatch.context() as patch:

        def stop(step: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr(recorded, "_layer_replays", stop)
        with pytest.raises(KeyboardInterrupt):
            model.train_on_batch(X[:B], Y[:B])
    for _ in range(3):
        model.train_on_batch(X[:B], Y[:B])
    assert len(replays) == 1


def test_metrics_in_numpy_do_not_stand_in_the_way(replays: list[int]) -> None:
    def work() -> Any:
        model = Sequential([Input((5, 3)), layers.LSTM(6), layers.Dense(4, activation="softmax")])
        model.compile("adam", "categorical_crossentropy", metrics=["accuracy", "mae"])
        seen = [model.train_on_batch(X[i : i + B], np.eye(4, dtype=int)) for i in range(6)]
        return [*model.get_weights(), np.array(seen)]

    both_ways(work)
    assert len(replays) == 4


def test_large_inputs_are_not_copied_aside(monkeypatch: pytest.MonkeyPatch, replays: list[int]) -> None:
    monkeypatch.setattr(recorded, "MOST_BYTES", 1 << 16)
    model = Sequential([Input((None, 300)), layers.LSTM(2), layers.Dense(2)])
    model.compile("sgd", "mse")
    for _ in range(4):
        model.train_on_batch(floats(B, 20, 300), Y[:B])
    assert replays == [] and list(model._repeated.marks.values()) == ["refused"]


def test_a_recording_is_not_put_back_once_settings_have_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread, say, has changed the loss and trained while this one was at work."""
    model = small(losses.Huber(0.1))
    for _ in range(4):
        model.train_on_batch(X[:B], Y[:B])
    before = Filling.fill

    def fill(self: Any, batch: Any) -> None:
        before(self, batch)
        model.loss.delta = 0.5
        model._repeated._look_again()

    with monkeypatch.context() as patch:
        patch.setattr(Filling, "fill", fill)
        model.train_on_batch(X[:B], Y[:B])
    assert not kept(model)
