"""Steps that are taken together, in one call of the kernels: the same bits, logs and errors as steps by themselves."""

from __future__ import annotations

import inspect
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from fastrnn import Input, Sequential, callbacks, constraints, layers, optimizers, threads, utils
from fastrnn.metrics import CategoricalAccuracy
from fastrnn.models import NonFiniteLossError, recorded
from fastrnn.models.data import Batch, BatchRun
from fastrnn.optimizers.schedules import ExponentialDecay, LearningRateSchedule

SAMPLES, B = 58, 4  # fourteen whole batches and a rest


def floats(*shape: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


X, Y = floats(SAMPLES, 5, 3), floats(SAMPLES, 2, seed=5)
LABELS = np.random.default_rng(6).integers(0, 4, SAMPLES)
ONE_HOT = np.eye(4, dtype="float32")[LABELS]
IDS = np.random.default_rng(7).integers(0, 20, (SAMPLES, 5))


@pytest.fixture(autouse=True)
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many steps were taken together, each time. Three at most are."""
    found: list[int] = []
    before = recorded.Repeated._train_ahead

    def counted(self: Any, run: Any, *rest: Any) -> Any:
        steps = before(self, run, *rest)
        found.append(len(steps))
        return steps

    monkeypatch.setattr(recorded.Repeated, "_train_ahead", counted)
    monkeypatch.setattr(recorded, "RUN_SECONDS", 1e9)
    monkeypatch.setattr(recorded, "MOST_STEPS", 3)
    yield found


def regression(optimizer: Any = "adam", *, metrics: Any = None, **more: Any) -> Any:
    model = Sequential([Input((5, 3)), layers.LSTM(6, **more), layers.Dense(2)])
    model.compile(optimizer, "mse", metrics=metrics)
    return model


def classifier(loss: str, metrics: Any = ("accuracy",), **more: Any) -> Any:
    model = Sequential(
        [
            Input((5,), dtype="int32"),
            layers.Embedding(20, 6, **more),
            layers.GRU(5, dropout=0.2, seed=1),
            layers.Dense(4, activation="softmax"),
        ]
    )
    model.compile("adam", loss, metrics=list(metrics))
    return model


def trained(model: Any, x: Any, y: Any, *, together: bool = True, **options: Any) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        if not together:
            patch.setattr(recorded.Repeated, "differentiate", lambda self, batch: self.step.differentiate(batch))
        settings = {"batch_size": B, "epochs": 3, "verbose": 0, **options}
        history = model.fit(x, y, **settings).history
    return model.get_weights(), history, model.optimizer.iterations, model.optimizer.state()


def check_same(make: Any, x: Any, y: Any, **options: Any) -> None:
    found = []
    for together in (True, False):
        utils.set_random_seed(11)
        found.append(trained(make(), x, y, together=together, **options))
    (weights, history, count, state), (expected, its_history, its_count, its_state) = found
    assert history == its_history and count == its_count and len(state) == len(its_state)
    for a, b in zip([*weights, *state.values()], [*expected, *its_state.values()], strict=True):
        np.testing.assert_array_equal(a, b)


optimizers_with_runs = sorted({cls.__name__ for cls in optimizers.Optimizer.__subclasses__()} - {"Nadam"})
TOGETHER = {
    "adam": (regression, X, Y),
    "metric of one-hot targets": (
        lambda: classifier("categorical_crossentropy", ["accuracy", CategoricalAccuracy(name="again")]),
        IDS,
        ONE_HOT,
    ),
    "metric of labels": (lambda: classifier("sparse_categorical_crossentropy"), IDS, LABELS[:, None]),
    "lazy rows": (lambda: classifier("sparse_categorical_crossentropy", lazy_updates=True), IDS, LABELS),
    "schedule": (lambda: regression(optimizers.SGD(ExponentialDecay(0.1, 5, 0.5), momentum=0.9)), X, Y),
    "weight decay": (lambda: regression(optimizers.AdamW(0.01, weight_decay=0.1)), X, Y),
    **{name: (lambda name=name: regression(name), X, Y) for name in optimizers_with_runs},
    "rmsprop, centered": (lambda: regression(optimizers.RMSprop(0.01, momentum=0.5, centered=True)), X, Y),
    "amsgrad": (lambda: regression(optimizers.Adam(0.01, amsgrad=True)), X, Y),
    "dropout": (lambda: regression(dropout=0.3, recurrent_dropout=0.2, seed=3), X, Y),
}


@pytest.mark.parametrize("count", (1, 2, 3))
@pytest.mark.parametrize("case", TOGETHER)
def test_steps_taken_together_have_the_same_bits(case: str, count: int, runs: list[int]) -> None:
    make, x, y = TOGETHER[case]
    threads.set_num_threads(count)
    check_same(make, x, y)
    assert runs == [3] * 4 * 3  # of fourteen whole batches two are seen, later one


@dataclass(eq=False, repr=False)
class Own(LearningRateSchedule):
    rate: float = 0.01

    def __call__(self, step: int) -> float:
        return self.rate / (1 + step)


class OwnSGD(optimizers.SGD):
    def coefficients(self, learning_rate: float, step: int) -> tuple[Any, ...]:
        return super().coefficients(learning_rate / step, step)


ALONE = {
    "coefficients that count": (lambda: regression("nadam"), X, Y),
    "clipping": (lambda: regression(optimizers.Adam(0.01, global_clipnorm=0.1)), X, Y),
    "accumulation": (lambda: regression(optimizers.Adam(0.01, gradient_accumulation_steps=2)), X, Y),
    "averages": (lambda: regression(optimizers.Adam(0.01, use_ema=True)), X, Y),
    "constraint": (lambda: regression(kernel_constraint=constraints.MaxNorm(0.5)), X, Y),
    "a schedule of one's own": (lambda: regression(optimizers.SGD(Own())), X, Y),
    "a function": (lambda: regression(optimizers.SGD(lambda: 0.01)), X, Y),
    "an optimizer of one's own": (lambda: regression(OwnSGD(0.1)), X, Y),
    "metric in numpy": (lambda: regression(metrics=["mae"]), X, Y),
    "metric with an argument": (
        lambda: classifier("sparse_categorical_crossentropy", ["accuracy", "sparse_top_k_categorical_accuracy"]),
        IDS,
        LABELS,
    ),
    "float64 targets of a metric": (lambda: classifier("categorical_crossentropy"), IDS, ONE_HOT.astype(int)),
}


@pytest.mark.parametrize("case", ALONE)
def test_what_python_has_a_hand_in_goes_step_by_step(case: str, runs: list[int]) -> None:
    make, x, y = ALONE[case]
    check_same(make, x, y)
    assert runs == []


def test_a_rate_that_cannot_be_told_is_told_when_its_step_comes(runs: list[int]) -> None:
    found = []
    for together in (True, False):
        utils.set_random_seed(11)
        model = regression(optimizers.SGD(ExponentialDecay(0.01, 1e-3, 1.0000001)))
        model.optimizer._learning_rate.decay_rate = 1e33  # too large for a float from the tenth step on
        model.optimizer._learning_rate.decay_steps = 1.0
        model.optimizer._learning_rate.initial_learning_rate = 1e-300
        with pytest.raises((OverflowError, ValueError, NonFiniteLossError)):
            trained(model, X, Y, together=together)
        found.append((model.optimizer.iterations, model.get_weights()))
    assert found[0][0] == found[1][0] > 3 and runs
    for a, b in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_error_before_a_run_counts_no_updates(monkeypatch: pytest.MonkeyPatch, runs: list[int]) -> None:
    """Of the run before it, say."""
    model = regression()
    x, y = X[:24], Y[:24]

    class Stop(Exception):
        pass

    def stop() -> int:
        if len(runs) == 1 and inspect.stack()[1].function == "_train_ahead":
            raise Stop
        return 1

    monkeypatch.setattr(recorded.threads, "get_num_threads", stop)
    with pytest.raises(Stop):
        model.fit(x, y, batch_size=B, epochs=3, verbose=0)
    assert model.optimizer.iterations == 7 and runs == [3]


def test_callbacks_between_batches_see_every_batch(runs: list[int]) -> None:
    seen: list[int] = []
    between = callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
    check_same(regression, X, Y, callbacks=[between])
    assert runs == [] and seen == list(range(15)) * 6


def test_epochs_of_some_steps_end_where_they_should(runs: list[int]) -> None:
    for steps in (1, 2, 5, 7, 20):
        check_same(regression, X, Y, steps_per_epoch=steps, epochs=5)
    assert runs


def test_slices_and_rows_in_order_go_step_by_step(runs: list[int]) -> None:
    for shuffle in (False, "batch"):
        check_same(regression, X, Y, shuffle=shuffle)
    check_same(regression, X, Y, sample_weight=np.linspace(0, 1, SAMPLES))
    assert runs == []


def test_the_bar_counts_steps_and_samples(runs: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for together in (True, False):
        utils.set_random_seed(11)
        trained(regression(), X, Y, together=together, verbose=2)
        out = re.sub(r"\d+(\.\d+)?m?s - [\d,.]+ samples/s", "", capsys.readouterr().out)
        shown.append(out)
    assert shown[0] == shown[1] and "15/15" in shown[0] and runs


@pytest.mark.parametrize("seed", (1, 2, 3, 4))
def test_a_label_that_is_no_class_is_told_after_the_steps_before_it(seed: int, runs: list[int]) -> None:
    y = LABELS.copy()
    y[40] = 4
    found = []
    for together in (True, False):
        utils.set_random_seed(seed)
        model = classifier("sparse_categorical_crossentropy")
        with pytest.raises(ValueError, match=r"labels must lie in \[0, 4\); received 4"):
            trained(model, IDS, y, together=together, epochs=1)
        calls = [entry["calls"] for entry in model.get_training_state()["layers"].values()]
        found.append((model.get_weights(), model.optimizer.iterations, calls))
    assert found[0][1:] == found[1][1:] and (runs or found[0][1] < 3)
    assert not runs or runs[-1] < 3 or found[0][1] % 3 == 0
    for a, b in zip(found[0][0], found[1][0], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_loss_that_is_not_finite_is_told_with_its_batch(runs: list[int]) -> None:
    x = X.copy()
    x[40, 1] = np.inf
    found = []
    for together in (True, False):
        utils.set_random_seed(11)
        model = regression()
        with pytest.raises(NonFiniteLossError, match=r"there is NaN or infinity in its x\[0\]") as told:
            trained(model, x, Y, together=together, epochs=1)
        found.append((str(told.value), model.get_weights(), model.optimizer.iterations))
    told_both = [re.sub(r"'\w+'", "", text) for text, *_ in found]
    assert told_both[0] == told_both[1]
    assert found[0][2] == found[1][2] and runs
    for a, b in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_array_equal(a, b)


def weights_after(steps: int, x: Any, y: Any) -> list[np.ndarray]:
    utils.set_random_seed(11)
    model = regression()
    epochs, rest = divmod(steps, 15)
    if epochs:
        model.fit(x, y, batch_size=B, epochs=epochs, verbose=0)
    if rest:
        model.fit(x, y, batch_size=B, steps_per_epoch=rest, verbose=0)
    return model.get_weights()


def test_ctrl_c_is_answered_between_two_updates(runs: list[int]) -> None:
    """At random moments: the weights are those after as many steps as the optimizer has counted."""

    class Pressed(Exception):
        pass

    def handler(*_: Any) -> None:
        raise Pressed

    before = signal.signal(signal.SIGINT, handler)
    draw = np.random.default_rng(1)
    try:
        for _ in range(20):
            utils.set_random_seed(11)
            model = regression()
            timer = threading.Timer(draw.uniform(0.002, 0.03), os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            with pytest.raises(Pressed):
                while True:
                    model.fit(X, Y, batch_size=B, epochs=50, verbose=0)
            timer.join()
            count = model.optimizer.iterations
            for a, b in zip(model.get_weights(), weights_after(count, X, Y), strict=True):
                np.testing.assert_array_equal(a, b)
    finally:
        signal.signal(signal.SIGINT, before)
    assert runs


def test_ctrl_c_after_the_passes_waits_until_they_are_counted(monkeypatch: pytest.MonkeyPatch, runs: list[int]) -> None:
    before = optimizers.Optimizer.made

    def pressed(self: Any, count: int) -> None:
        if len(pressed_at) == 3:
            signal.raise_signal(signal.SIGINT)
        pressed_at.append(count)
        before(self, count)

    pressed_at: list[int] = []
    monkeypatch.setattr(optimizers.Optimizer, "made", pressed)
    utils.set_random_seed(11)
    model = regression()
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, batch_size=B, verbose=0)
    monkeypatch.setattr(optimizers.Optimizer, "made", before)
    assert pressed_at == [3] * 4 and model.optimizer.iterations == 14
    for a, b in zip(model.get_weights(), weights_after(14, X, Y), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_metric_that_users_change_between_epochs_sees_every_batch_again(runs: list[int]) -> None:
    seen: list[int] = []

    class Changes(callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            metric = self.model.metrics[-1]
            metric.update_state = lambda y, p, weights=None: seen.append(len(y))

    model = classifier("sparse_categorical_crossentropy")
    model.fit(IDS, LABELS, batch_size=B, epochs=2, verbose=0, callbacks=[Changes()])
    assert seen == [B] * 14 + [2] and runs == [3] * 4


def test_the_bar_is_told_of_every_sample(monkeypatch: pytest.MonkeyPatch, runs: list[int]) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(
        callbacks.ProgbarLogger, "train_step", lambda self, batch, logs, size: told.append((batch, size))
    )
    regression().fit(X, Y, batch_size=B, verbose=2)
    assert sum(size for _, size in told) == SAMPLES and [batch for batch, _ in told] == [0, 1, 4, 7, 10, 13, 14]


def test_a_bar_of_the_users_own_is_told_of_every_batch(runs: list[int]) -> None:
    told: list[int] = []

    class Own(callbacks.ProgbarLogger):
        def train_step(self, batch: int, logs: Any, size: int | None) -> None:
            told.append(batch)

    regression().fit(X, Y, batch_size=B, verbose=0, callbacks=[Own()])
    assert told == list(range(15)) and runs == []


def test_what_changes_between_runs_is_noticed(monkeypatch: pytest.MonkeyPatch, runs: list[int]) -> None:
    """Another thread may change it."""
    model = regression()
    repeated, before = model._repeated_step, recorded.Repeated.together

    def together(self: Any) -> int:
        count = before.fget(self)  # type: ignore[attr-defined]
        if len(runs) == 2:
            model.layers[0].dropout = 0.5
        return count

    monkeypatch.setattr(recorded.Repeated, "together", property(together))
    model.fit(X, Y, batch_size=B, verbose=0)
    assert runs == [3] * 3 and repeated.steps == 15  # three of the others go by themselves, then two are together again


def test_fit_can_be_stopped_from_another_thread(runs: list[int]) -> None:
    model = regression()

    def stop() -> None:
        while len(runs) < 5:
            time.sleep(0.001)
        model.stop_training = True

    stopping = threading.Thread(target=stop)
    stopping.start()
    model.fit(X, Y, batch_size=B, epochs=100_000, verbose=0)
    stopping.join()
    assert 15 < model.optimizer.iterations < 1_000_000


def test_the_time_of_a_step_says_how_many_are_taken_together(monkeypatch: pytest.MonkeyPatch) -> None:
    model = regression()
    repeated = model._repeated_step
    monkeypatch.setattr(recorded, "RUN_SECONDS", 0.02)
    monkeypatch.setattr(recorded, "MOST_STEPS", 256)
    monkeypatch.setattr(repeated, "_is_foreseen", lambda form: True)
    batch = BatchRun(Batch([X], [Y], None, SAMPLES), np.arange(8), B)
    for seconds, together in ((1e-6, 256), (0.001, 20), (0.0101, 1), (0.5, 1)):
        repeated.last = batch, seconds
        assert repeated.together == together
    repeated.last = batch.data, 0.001
    assert repeated.together == 1
