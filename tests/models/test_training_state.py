"""What lasts: stateful layers, frozen layers, exact resumption, what survives NaN, Ctrl-C and several threads."""

from __future__ import annotations

import copy
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastrnn import Input, Model, Sequential, callbacks, layers, models, optimizers, regularizers, threads, utils
from fastrnn._core.kernels import uninterrupted
from fastrnn.models import NonFiniteLossError

rng = np.random.default_rng(7)


def floats(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype("float32")


def stateful(batch_size: int | None = None) -> Sequential:
    model = Sequential(
        [Input((None, 2), batch_size=batch_size), layers.GRU(3, stateful=True, name="rnn"), layers.Dense(1)]
    )
    model.compile("sgd", "mse")
    return model


# stateful


def test_states_go_on_from_batch_to_batch_and_from_call_to_call() -> None:
    model = stateful()
    x = floats(2, 6, 2)
    whole = model.predict(x, verbose=0)
    model.reset_state()
    model.predict(x[:, :3], verbose=0)
    np.testing.assert_allclose(model.predict(x[:, 3:], verbose=0), whole, rtol=1e-5, atol=1e-6)
    again = model.predict(x, verbose=0)
    assert np.any(again != whole)
    model.layers[0].reset_state()
    np.testing.assert_array_equal(model.predict(x, verbose=0), whole)


def test_evaluate_and_training_move_the_same_states_on() -> None:
    model, x, y = stateful(), floats(2, 3, 2), floats(2, 1)
    fresh = model.predict(x, verbose=0)
    for use in (lambda: model.evaluate(x, y, verbose=0), lambda: model.fit(x, y, verbose=0), lambda: model(x)):
        model.reset_state()
        model.set_weights(weights := model.get_weights())
        use()
        model.set_weights(weights)
        assert np.any(model.predict(x, verbose=0) != fresh)


def test_batches_of_different_sizes_are_refused_before_training() -> None:
    model, x, y = stateful(), floats(10, 3, 2), floats(10, 1)
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"'rnn' is stateful, .* x has 10 samples, which batches of 4 do not divide"):
        model.fit(x, y, batch_size=4, verbose=0)
    with pytest.raises(ValueError, match="works on batches of 5; validation_data comes in batches of 2"):
        model.fit(x, y, batch_size=5, validation_data=(x[:2], y[:2]), verbose=0)
    with pytest.raises(ValueError, match="do not divide"):
        model.predict(x, batch_size=4, verbose=0)
    with pytest.raises(ValueError, match="works on batches of 4; x comes in batches of 5"):
        stateful(4).fit(x, y, batch_size=5, verbose=0)
    assert model.optimizer.iterations == 0
    np.testing.assert_equal(model.get_weights(), before)
    model.fit(x, y, batch_size=5, validation_split=0.5, verbose=0)
    with pytest.raises(ValueError, match="states of 5 rows; received a batch of 2"):
        model.predict(x[:2], verbose=0)


def test_two_models_over_one_stateful_layer_keep_states_of_their_own() -> None:
    model = stateful()
    part = Model(model.input, model.layers[0].output)
    x = floats(2, 3, 2)
    first = part.predict(x, verbose=0)
    model.predict(x, verbose=0)
    part.layers[1].reset_state()
    np.testing.assert_array_equal(part.predict(x, verbose=0), first)


# freezing


def test_frozen_layers_keep_their_weights_and_the_others_do_not() -> None:
    model = Sequential([Input((None, 2)), layers.LSTM(3), layers.Dense(3), layers.Dense(1)])
    model.layers[1].trainable = False
    model.compile("adam", "mse")
    assert len(model.trainable_weights) == 5 and len(model.non_trainable_weights) == 2
    before = model.get_weights()
    model.fit(floats(8, 4, 2), floats(8, 1), epochs=2, verbose=0)
    changed = [bool(np.any(a != b)) for a, b in zip(before, model.get_weights(), strict=True)]
    assert changed == [True] * 3 + [False] * 2 + [True] * 2


def moved(model: Any, layer: int, train: Any) -> bool:
    before = model.layers[layer].get_weights()
    train()
    return any(np.any(a != b) for a, b in zip(before, model.layers[layer].get_weights(), strict=True))


@pytest.mark.parametrize("compiled_again", [False, True])
@pytest.mark.parametrize(
    "optimizer", [lambda: "sgd", lambda: "adam", lambda: optimizers.AdamW(0.01, weight_decay=0.1)], ids=str
)
def test_freezing_and_thawing_take_effect_with_the_next_call(optimizer: Any, compiled_again: bool) -> None:
    """Neither momentum nor weight decay moves what is frozen, and what is thawed is trained."""
    model, x, y = Sequential([Input((3, 2)), layers.LSTM(2), layers.Dense(1)]), floats(8, 3, 2), floats(8, 1)
    for train in (
        lambda: model.fit(x, y, epochs=2, batch_size=4, verbose=0),
        lambda: model.train_on_batch(x, y),
    ):
        for frozen in (0, 1):
            model.compile(optimizer(), "mse")
            assert moved(model, frozen, train)
            for trainable in (False, True):
                model.layers[frozen].trainable = trainable
                if compiled_again:
                    model.compile(optimizer(), "mse")
                assert moved(model, frozen, train) == trainable
                assert moved(model, 1 - frozen, train)


def test_a_weight_may_be_frozen_by_itself() -> None:
    model, x, y = Sequential([Input((2,)), layers.Dense(2), layers.Dense(1)]), floats(4, 2), floats(4, 1)
    model.compile("adam", "mse")
    model.train_on_batch(x, y)
    model.layers[0].kernel.trainable = False
    before = model.get_weights()
    model.train_on_batch(x, y)
    changed = [bool(np.any(a != b)) for a, b in zip(before, model.get_weights(), strict=True)]
    assert changed == [False, True, True, True]


def test_a_callback_may_freeze_and_thaw_between_epochs() -> None:
    model, seen = Sequential([Input((3, 2)), layers.GRU(2), layers.Dense(1)]), []

    class Gradual(callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            model.layers[0].trainable = epoch % 2 == 1
            self.before = model.layers[0].get_weights()[0]

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seen.append(bool(np.any(model.layers[0].get_weights()[0] != self.before)))

    model.compile("adam", "mse")
    model.fit(floats(8, 3, 2), floats(8, 1), epochs=4, verbose=0, callbacks=[Gradual()])
    assert seen == [False, True, False, True]


def test_a_frozen_model_inside_another_is_frozen() -> None:
    inner = Sequential([Input((None, 2)), layers.LSTM(3)])
    inner.trainable = False
    model = Sequential([inner, layers.Dense(1)])
    model.compile("sgd", "mse")
    before = inner.get_weights()
    model.train_on_batch(floats(4, 3, 2), floats(4, 1))
    np.testing.assert_equal(inner.get_weights(), before)
    assert len(model.trainable_weights) == 2


def test_penalties_of_frozen_weights_do_not_count() -> None:
    model = Sequential([Input((2,)), layers.Dense(1, kernel_regularizer=regularizers.L2(1.0))])
    x, y = floats(4, 2), floats(4, 1)
    model.compile("sgd", "mse")
    free = model.evaluate(x, y, verbose=0)
    model.layers[0].trainable = False
    model.compile("sgd", "mse")
    assert model.evaluate(x, y, verbose=0) == pytest.approx(free - np.square(model.get_weights()[0]).sum(), rel=1e-5)
    before = model.get_weights()
    with pytest.warns(UserWarning, match="no weights that are trained"):
        model.fit(x, y, verbose=0)
    np.testing.assert_equal(model.get_weights(), before)


def test_two_models_with_one_optimizer_train_their_own_weights() -> None:
    optimizer = optimizers.Adam(0.1)
    one, two = (Sequential([Input((2,)), layers.Dense(1)]) for _ in range(2))
    x, y = floats(4, 2), floats(4, 1)
    for model in (one, two):
        model.compile(optimizer, "mse")
        model.train_on_batch(x, y)
    before = one.get_weights(), two.get_weights()
    one.fit(x, y, verbose=0)
    assert np.any(one.get_weights()[0] != before[0][0])
    np.testing.assert_equal(two.get_weights(), before[1])


# going on


def dropping() -> Sequential:
    utils.set_random_seed(11)
    model = Sequential([
        Input((None, 2)), layers.LSTM(4, dropout=0.2, recurrent_dropout=0.2, return_sequences=True),
        layers.Dropout(0.3), layers.GRU(3, stateful=True), layers.Dense(1),
    ])  # fmt: skip
    model.compile(optimizers.Adam(0.01), "mse")
    return model


def test_a_stopped_and_reloaded_run_gives_the_bits_of_one_that_was_not_stopped(tmp_path: Path) -> None:
    x, y = floats(12, 5, 2), floats(12, 1)
    whole = dropping()
    history = whole.fit(x, y, batch_size=4, epochs=5, verbose=0).history["loss"]
    first = dropping()
    losses = first.fit(x, y, batch_size=4, epochs=2, verbose=0).history["loss"]
    path = tmp_path / "stopped.safetensors"
    first.save(path)
    utils.set_random_seed(99)
    second = models.load_model(path)
    losses += second.fit(x, y, batch_size=4, initial_epoch=2, epochs=5, verbose=0).history["loss"]
    assert losses == history
    np.testing.assert_equal(second.get_weights(), whole.get_weights())
    assert second.optimizer.iterations == whole.optimizer.iterations == 15


def test_a_checkpoint_written_by_a_callback_goes_on_exactly(tmp_path: Path) -> None:
    x, y = floats(12, 5, 2), floats(12, 1)
    path = str(tmp_path / "{epoch}.safetensors")
    whole = dropping()
    whole.fit(x, y, batch_size=4, epochs=4, verbose=0, callbacks=[callbacks.ModelCheckpoint(path)])
    second = models.load_model(path.format(epoch=2))
    second.fit(x, y, batch_size=4, initial_epoch=2, epochs=4, verbose=0)
    np.testing.assert_equal(second.get_weights(), whole.get_weights())


def test_training_state_of_another_model_is_refused_whole() -> None:
    model, other = dropping(), stateful()
    model.train_on_batch(floats(2, 3, 2), floats(2, 1))
    state = other.get_training_state()
    with pytest.raises(KeyError):
        other.set_training_state(model.get_training_state())
    np.testing.assert_equal(other.get_training_state(), state)


def test_seeds_make_training_repeatable_and_threads_do_not_matter() -> None:
    x, y = floats(12, 5, 2), floats(12, 1)
    found = []
    before = threads.get_num_threads()
    try:
        for count in (1, 2, 3):
            threads.set_num_threads(count)
            model = dropping()
            model.fit(x, y, batch_size=6, epochs=2, verbose=0)
            found.append(model.get_weights())
    finally:
        threads.set_num_threads(before)
    np.testing.assert_equal(found[1], found[0])
    np.testing.assert_equal(found[2], found[0])


# what goes wrong


def exploding() -> tuple[Sequential, np.ndarray, np.ndarray]:
    model = Sequential([Input((2,)), layers.Dense(1)])
    model.compile(optimizers.SGD(0.1), "mse")
    x, y = floats(8, 2), floats(8, 1)
    x[4] = np.inf
    return model, x, y


def test_a_loss_that_is_not_finite_stops_training_before_the_update() -> None:
    model, x, y = exploding()
    reference = copy.deepcopy(model)
    reference.fit(x[:4], y[:4], batch_size=2, shuffle=False, verbose=0)
    with pytest.raises(NonFiniteLossError, match=r"not finite in epoch 1, batch 2, at learning rate 0\.1; the weights"):
        model.fit(x, y, batch_size=2, shuffle=False, verbose=0)
    np.testing.assert_equal(model.get_weights(), reference.get_weights())
    assert model.optimizer.iterations == 2
    with pytest.raises(FloatingPointError, match="train_on_batch"):
        model.train_on_batch(x, y)


def test_what_is_not_finite_in_the_data_is_named() -> None:
    model, x, y = Sequential([Input((2,)), layers.Dense(1)]), floats(4, 2), floats(4, 1)
    model.compile(optimizers.SGD(1e30), "mse")
    for method in (lambda x, y: model.fit(x, y, verbose=0), model.train_on_batch):
        with pytest.raises(NonFiniteLossError, match=r"; there is NaN or infinity in its x\[0\] and y\[0\]$"):
            method(np.where(x > 9, x, np.nan), np.where(y > 9, y, np.inf))
        with pytest.raises(NonFiniteLossError, match=r"; there is NaN or infinity in its y\[0\]$"):
            method(x, np.where(y > 9, y, np.inf))
    with pytest.raises(NonFiniteLossError, match=r"; a smaller learning rate or clipnorm may help$"):
        model.fit(x, y, epochs=9, verbose=0)


def test_callbacks_see_a_loss_that_is_not_finite_first() -> None:
    model, x, y = exploding()
    seen: list[float] = []
    last = callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs["loss"]))
    h = model.fit(x, y, batch_size=2, shuffle=False, epochs=3, verbose=0, callbacks=[callbacks.TerminateOnNaN(), last])
    assert (
        h.epoch == [0] and len(seen) == 3 and not np.isfinite(seen[-1]) and np.all(np.isfinite(model.get_weights()[0]))
    )


def test_gradients_that_are_not_finite_are_not_applied() -> None:
    class Steep:
        def value_and_gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> tuple[float, np.ndarray]:
            return 1.0, np.full_like(y_pred, np.nan)

    model = Sequential([Input((2,)), layers.Dense(1)])
    model.compile("adam", Steep())
    before = model.get_weights()
    with pytest.raises(NonFiniteLossError):
        model.fit(floats(2, 2), floats(2, 1), verbose=0)
    np.testing.assert_equal(model.get_weights(), before)


def test_ctrl_c_waits_for_the_end_of_an_update() -> None:
    seen = []
    with pytest.raises(KeyboardInterrupt):
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.01)
            seen.append("done")
        seen.append("never")
    assert seen == ["done"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    worker = threading.Thread(target=lambda: seen.append(uninterrupted().__enter__()))
    worker.start()
    worker.join()
    assert len(seen) == 2


def test_ctrl_c_inside_an_update_lets_it_finish() -> None:
    class Pressed(optimizers.SGD):
        def apply(self) -> None:
            signal.raise_signal(signal.SIGINT)
            super().apply()

    model = Sequential([Input((2,)), layers.Dense(1)])
    model.compile(Pressed(0.1), "mse")
    x, y = floats(4, 2), floats(4, 1)
    (before, _), (_, (slope, _)) = model.get_weights(), model.gradients(x, y)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, verbose=0)
    np.testing.assert_allclose(model.get_weights()[0], before - 0.1 * slope, rtol=1e-5, atol=1e-7)


def linear() -> Sequential:
    model = Sequential([Input((2,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def test_work_that_fails_is_not_held_back_afterwards() -> None:
    with pytest.raises(ZeroDivisionError), uninterrupted():
        raise ZeroDivisionError
    with pytest.raises(KeyboardInterrupt):
        press()


def test_ctrl_c_from_before_is_answered_before() -> None:
    seen: list[str] = []

    def late(*_: Any) -> None:
        seen.append("handled")

    before = signal.signal(signal.SIGINT, late)
    try:
        with uninterrupted():
            seen.append("begun")
            press()
            with uninterrupted():
                press()
            seen.append("done")
        assert seen == ["begun", "done", "handled"]
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL, lambda *_: None])
def test_handlers_are_put_back(handler: Any) -> None:
    before = signal.signal(signal.SIGINT, handler)
    try:
        with uninterrupted():
            if handler is not signal.SIG_DFL:
                press()
            assert signal.getsignal(signal.SIGINT) is handler
        assert signal.getsignal(signal.SIGINT) is handler
        if handler is not signal.SIG_DFL:
            press()
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(KeyboardInterrupt):
        press()


def test_blocks_may_be_nested_and_used_again() -> None:
    block = uninterrupted()
    seen: list[str] = []
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), block, block:
            press()
            seen.append("done")
    assert seen == ["done"] * 2
    with pytest.raises(KeyboardInterrupt):
        press()


@pytest.mark.filterwarnings("error")  # Python complains of a signal that comes though it should be ignored
@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.default_int_handler, lambda *_: None])
def test_a_handler_that_is_put_in_place_inside_stays(handler: Any) -> None:
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        with uninterrupted():
            signal.signal(signal.SIGINT, handler)
        assert signal.getsignal(signal.SIGINT) is handler
        if handler is signal.default_int_handler:
            with pytest.raises(KeyboardInterrupt):
                press()
        else:
            press()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_that_another_thread_forks_meanwhile_answers_ctrl_c() -> None:
    found: list[int] = []

    def fork() -> None:
        child = os.fork()
        if child == 0:
            try:
                press()
                time.sleep(0.01)
                os._exit(1)
            except KeyboardInterrupt:
                os._exit(0)
        found.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    forking = threading.Thread(target=fork)
    with uninterrupted():
        forking.start()
        forking.join()
    assert found == [0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_inside_a_block() -> None:
    with uninterrupted():
        child = os.fork()
    if child == 0:
        try:
            press()
            os._exit(1)
        except KeyboardInterrupt:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with pytest.raises(KeyboardInterrupt):
        press()


def test_fit_leaves_the_handler_that_a_callback_puts_in_place() -> None:
    def mine(*_: Any) -> None: ...

    class Polite(callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            signal.signal(signal.SIGINT, mine)

    model = linear()
    try:
        model.fit(floats(4, 2), floats(4, 1), verbose=0, callbacks=[Polite()])
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_fit_in_another_thread_touches_no_handler() -> None:
    seen = []
    model, x, y = linear(), floats(4, 2), floats(4, 1)

    class Look(callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            seen.append(signal.getsignal(signal.SIGINT))

    worker = threading.Thread(target=lambda: model.fit(x, y, verbose=0, callbacks=[Look()]))
    worker.start()
    worker.join()
    assert seen == [signal.default_int_handler]


class Interrupt(callbacks.Callback):
    """Presses Ctrl-C some time after the third step, from another thread."""

    def __init__(self, delay: float) -> None:
        self.delay = delay

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.model.optimizer.iterations == 3:
            threading.Timer(self.delay, os.kill, (os.getpid(), signal.SIGINT)).start()


class StopAfter(callbacks.Callback):
    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.model.stop_training = self.model.optimizer.iterations == self.steps


def test_ctrl_c_leaves_the_weights_of_a_whole_step() -> None:
    x, y = floats(64, 5, 2), floats(64, 1)
    for attempt in range(8):
        model = dropping()
        with pytest.raises(KeyboardInterrupt):
            model.fit(x, y, batch_size=2, epochs=10000, verbose=0, callbacks=[Interrupt(0.0007 * attempt)])
        steps = model.optimizer.iterations
        reference = dropping()
        reference.fit(x, y, batch_size=2, epochs=10000, verbose=0, callbacks=[StopAfter(steps)])
        np.testing.assert_equal(model.get_weights(), reference.get_weights())
        model.reset_state()
        assert np.isfinite(model.fit(x, y, batch_size=2, verbose=0).history["loss"][0])


def test_one_model_predicts_in_several_threads_at_once() -> None:
    model = Sequential(
        [Input((None, 3)), layers.LSTM(8, return_sequences=True), layers.GRU(8), layers.Dense(2, "softmax")]
    )
    data = [floats(17, 1 + i % 7, 3) for i in range(40)]
    expected = [model.predict(x, batch_size=5, verbose=0) for x in data]
    for w in model.weights:
        w.assign(w.values)
    with ThreadPoolExecutor(4) as pool:
        for found, wanted in zip(
            pool.map(lambda x: model.predict(x, batch_size=5, verbose=0), data), expected, strict=True
        ):
            np.testing.assert_array_equal(found, wanted)


def test_weights_adopted_by_a_later_model_are_still_trained() -> None:
    a = Input((2,))
    alone = layers.Dense(1, use_bias=False)
    model = Model(a, alone(a))
    model.compile("sgd", "mse")
    x, y = floats(4, 2), floats(4, 1)
    model.train_on_batch(x, y)
    other = layers.Dense(1, use_bias=False)
    Model(a, [alone(a), other(a)])
    assert alone.weights[0].block is other.weights[0].block
    before = alone.get_weights()[0]
    _, (g,) = model.gradients(x, y)
    model.train_on_batch(x, y)
    np.testing.assert_allclose(alone.get_weights()[0], before - 0.01 * g, rtol=1e-6)
    np.testing.assert_array_equal(other.weights[0].gradient, 0)
