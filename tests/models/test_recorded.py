"""Steps that are replayed: the same bits as steps that are not, and the same errors; and what is never replayed."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from fastrnn import (
    Input,
    Model,
    Sequential,
    activations,
    layers,
    metrics,
    optimizers,
    threads,
    utils,
)
from fastrnn.losses import MeanSquaredError
from fastrnn.models import NonFiniteLossError, recorded

SAMPLES, BATCH = 26, 4  # six whole batches, of which four are replayed, and a rest


def floats(*shape: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def ids(high: int, *shape: int, dtype: str = "int64") -> np.ndarray:
    return np.random.default_rng(4).integers(0, high, shape).astype(dtype)


def sequence(*body: Any, shape: tuple[int, ...] = (5, 3), dtype: str | None = None) -> Sequential:
    return Sequential([Input(shape, dtype=dtype), *body])


X, Y = floats(SAMPLES, 5, 3), floats(SAMPLES, 2, seed=5)
DIGITS = np.eye(4, dtype="float32")[ids(4, SAMPLES, 3)]


@contextlib.contextmanager
def allowed(replayed: bool) -> Iterator[None]:
    """Inside, steps go their usual way unless they may be replayed."""
    with pytest.MonkeyPatch.context() as patch:
        if not replayed:
            patch.setattr(recorded.Repeated, "differentiate", lambda self, batch: self.step.differentiate(batch))
        yield


def fitted(make: Callable[[], Any], x: Any, y: Any, *, replayed: bool, epochs: int = 2, **options: Any) -> Any:
    """Weights, history, model."""
    utils.set_random_seed(11)
    model = make()
    settings = {"batch_size": BATCH, "epochs": epochs, "verbose": 0, **options}
    with allowed(replayed):
        history = model.fit(x, y, **settings)
    return model.get_weights(), history.history, model


def check_same(make: Callable[[], Any], x: Any, y: Any, **options: Any) -> None:
    weights, history, _ = fitted(make, x, y, replayed=True, **options)
    expected, its_history, _ = fitted(make, x, y, replayed=False, **options)
    assert history == its_history
    for a, b in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def compiled(model: Any, loss: Any = "mse", optimizer: Any = "adam", **more: Any) -> Any:
    model.compile(optimizer, loss, **more)
    return model


def encoder_decoder() -> Model:
    source, target = Input((5, 3)), Input((3, 4))
    _, *states = layers.LSTM(6, return_state=True)(source)
    y = layers.LSTM(6, return_sequences=True)(target, initial_state=states)
    return Model([source, target], layers.Dense(4, activation="softmax")(y))


def two_outputs() -> Model:
    x = Input((5, 3))
    y, y_of_rnn = layers.GRU(6)(x), layers.SimpleRNN(4)(x)
    return Model(x, [layers.Dense(2, name="a")(y), layers.Dense(2, activation="sigmoid", name="b")(y_of_rnn)])


def half_frozen() -> Sequential:
    model = sequence(layers.LSTM(6, return_sequences=True), layers.LSTM(4), layers.Dense(2))
    model.layers[1].trainable = False
    return model


def tagger(**options: Any) -> Sequential:
    return sequence(
        layers.Embedding(20, 6, **options),
        layers.Bidirectional(layers.LSTM(5, return_sequences=True)),
        layers.Bidirectional(layers.GRU(4)),
        layers.Dense(4, activation="softmax"),
        shape=(5,),
        dtype="int32",
    )


REPLAYED: dict[str, tuple[Callable[[], Any], Any, Any]] = {
    "lstm": (lambda: compiled(sequence(layers.LSTM(6), layers.Dense(2))), X, Y),
    "gru, yes or no": (
        lambda: compiled(sequence(layers.GRU(7), layers.Dense(2, activation="sigmoid")), "bce"),
        X,
        Y > 0,
    ),
    "rnn, float64": (
        lambda: compiled(
            sequence(layers.SimpleRNN(5, dtype="float64"), layers.Dense(2, dtype="float64"), dtype="float64"),
            "huber_loss",
        ),
        X.astype("float64"),
        Y,
    ),
    "many to many": (
        lambda: compiled(
            sequence(
                layers.LSTM(6),
                layers.RepeatVector(3),
                layers.LSTM(6, return_sequences=True, go_backwards=True),
                layers.Dense(4, activation="softmax"),
            ),
            "categorical_crossentropy",
            metrics=["accuracy"],
        ),
        X,
        DIGITS,
    ),
    "time distributed": (
        lambda: compiled(
            sequence(layers.GRU(6, return_sequences=True), layers.TimeDistributed(layers.Dense(2)), layers.Flatten())
        ),
        X,
        floats(SAMPLES, 10),
    ),
    "encoder and decoder": (
        lambda: compiled(encoder_decoder(), "categorical_crossentropy", metrics=["accuracy"]),
        [X, DIGITS],
        DIGITS,
    ),
    "two outputs": (lambda: compiled(two_outputs(), ["mse", "bce"]), X, [Y, (Y > 0).astype("float32")]),
    "a frozen layer": (lambda: compiled(half_frozen()), X, Y),
    "embedding": (
        lambda: compiled(tagger(), "sparse_categorical_crossentropy", metrics=["accuracy"]),
        ids(20, SAMPLES, 5, dtype="int32"),
        ids(4, SAMPLES, dtype="int32"),
    ),
    "lazy embedding": (
        lambda: compiled(tagger(lazy_updates=True), "sparse_categorical_crossentropy"),
        ids(20, SAMPLES, 5),
        ids(4, SAMPLES, 1),
    ),
    "dropout": (lambda: compiled(sequence(layers.LSTM(6, dropout=0.3, seed=1), layers.Dense(2))), X, Y),
    "recurrent dropout": (
        lambda: compiled(sequence(layers.GRU(6, recurrent_dropout=0.3, seed=1), layers.Dense(2))),
        X,
        Y,
    ),
    "dropout layer": (lambda: compiled(sequence(layers.LSTM(6), layers.Dropout(0.3, seed=1), layers.Dense(2))), X, Y),
    "relu": (lambda: compiled(sequence(layers.LSTM(6), layers.Dense(3, activation="relu"), layers.Dense(2))), X, Y),
    "tanh": (lambda: compiled(sequence(layers.LSTM(6), layers.Dense(2, activation="tanh"))), X, Y),
    "clipping": (
        lambda: compiled(
            sequence(layers.LSTM(6), layers.Dense(2)), "mse", optimizers.SGD(0.1, momentum=0.9, global_clipnorm=0.1)
        ),
        X,
        Y,
    ),
    "accumulation": (
        lambda: compiled(
            tagger(), "sparse_categorical_crossentropy", optimizers.Adam(0.01, gradient_accumulation_steps=3)
        ),
        ids(20, SAMPLES, 5),
        ids(4, SAMPLES),
    ),
}


@pytest.mark.parametrize("count", (1, 2, 3))
@pytest.mark.parametrize("case", REPLAYED)
def test_a_replayed_step_has_the_same_bits(case: str, count: int, replays: list[int]) -> None:
    make, x, y = REPLAYED[case]
    threads.set_num_threads(count)
    check_same(make, x, y)
    # the first epoch shows the whole batches and the rest once before they are recorded; accumulation forgets at its
    # third step which rows have gradients, so that what was recorded before is of no use then
    assert replays == [BATCH] * (1 + 1 if case == "accumulation" else 4) + [BATCH] * 6


def test_epochs_of_one_batch_are_replayed(replays: list[int]) -> None:
    check_same(REPLAYED["lstm"][0], X, Y, batch_size=SAMPLES, epochs=5, shuffle=False)
    assert replays == [SAMPLES] * 3


# What users write works here in place on arrays of the kernels, which a recording cannot see.


class OwnLayer(layers.Dense):
    def forward(self, x: Any, mask: Any, context: Any) -> Any:
        y, saved = super().forward(x, mask, context)
        y *= 2
        return y, saved

    def backward(self, saved: Any, dy: Any) -> Any:
        dy *= 2
        return super().backward(saved, dy)


class OwnLoss(MeanSquaredError):
    def value_and_gradient(self, y_true: Any, y_pred: Any, *rest: Any, **named: Any) -> Any:
        y_pred += 1
        return super().value_and_gradient(y_true, y_pred, *rest, **named)


class OwnRecurrent(layers.LSTM):
    def finish(self, call: Any, context: Any) -> Any:
        found = super().finish(call, context)
        found[1][...] *= 2
        return found


class OwnTanh(activations.Tanh):
    def forward(self, x: Any) -> Any:
        y = super().forward(x)
        y *= 2
        return y

    def backward(self, y: Any, dy: Any, x: Any = None) -> Any:
        dx = super().backward(y, dy, x)
        dx *= 2
        return dx


class Tripled:
    """A loss that is no `Loss`."""

    def value_and_gradient(self, y_true: Any, y_pred: Any) -> Any:
        value, dy = MeanSquaredError().value_and_gradient(y_true, y_pred)
        dy *= 3
        return 3 * value, dy


def frozen_branch() -> Model:
    x = Input((5, 3))
    frozen = layers.Dense(2, name="b", trainable=False)(layers.GRU(4, trainable=False)(x))
    return Model(x, [layers.Dense(2, name="a")(layers.LSTM(6)(x)), frozen])


def summed() -> Model:
    x = Input((5, 3))
    both = layers.Bidirectional(layers.GRU(4, return_sequences=True), merge_mode="sum", name="b")(x)
    return Model(x, [layers.Dense(2, name="a")(layers.LSTM(6)(x)), both])


def shared() -> Model:
    x = Input((5, 3))
    y = layers.LSTM(6, return_sequences=True)(x)
    return Model(x, layers.Add()([layers.GRU(2)(y), layers.SimpleRNN(2)(y)]))


NOT_REPLAYED: dict[str, tuple[Callable[[], Any], Any, Any]] = {
    "spatial dropout": (
        lambda: compiled(sequence(layers.SpatialDropout1D(0.3, seed=1), layers.LSTM(6), layers.Dense(2))),
        X,
        Y,
    ),
    "elu": (lambda: compiled(sequence(layers.LSTM(6), layers.Dense(3, activation="elu"), layers.Dense(2))), X, Y),
    "masking": (lambda: compiled(sequence(layers.Masking(), layers.LSTM(6), layers.Dense(2))), X * (X > -1), Y),
    "padding": (
        lambda: compiled(tagger(mask_zero=True), "sparse_categorical_crossentropy"),
        ids(20, SAMPLES, 5),
        ids(4, SAMPLES),
    ),
    "regularizer": (lambda: compiled(sequence(layers.LSTM(6, kernel_regularizer="l2"), layers.Dense(2))), X, Y),
    "activity": (lambda: compiled(sequence(layers.LSTM(6, activity_regularizer="l2"), layers.Dense(2))), X, Y),
    "several consumers": (lambda: compiled(shared()), X, Y),
    "a layer of one's own": (lambda: compiled(sequence(layers.LSTM(6), OwnLayer(2))), X, Y),
    "a loss of one's own": (lambda: compiled(sequence(layers.LSTM(6), layers.Dense(2)), OwnLoss()), X, Y),
    "a loss in numpy": (lambda: compiled(sequence(layers.LSTM(6), layers.Dense(2)), "mape"), X, Y),
    "a bidirectional layer of one's own": (
        lambda: compiled(sequence(layers.Bidirectional(OwnRecurrent(3)), layers.Dense(2))),
        X,
        Y,
    ),
    "an activation of one's own": (
        lambda: compiled(sequence(layers.LSTM(6), layers.Dense(3, activation=OwnTanh()), layers.Dense(2))),
        X,
        Y,
    ),
    "an activation layer of one's own": (
        lambda: compiled(sequence(layers.LSTM(6), layers.Activation(OwnTanh()), layers.Dense(2))),
        X,
        Y,
    ),
    "steps of one's own": (
        lambda: compiled(
            sequence(layers.LSTM(6, return_sequences=True), layers.TimeDistributed(OwnLayer(2)), layers.LSTM(2))
        ),
        X,
        Y,
    ),
    "a loss of another kind": (lambda: compiled(sequence(layers.LSTM(6), layers.Dense(2)), Tripled()), X, Y),
    "a loss in numpy of a frozen branch": (lambda: compiled(frozen_branch(), ["mse", "mape"]), X, [Y, Y]),
    "an output in numpy that only a metric sees": (
        lambda: compiled(summed(), ["mse", None], metrics=[None, "mae"]),
        X,
        [Y, floats(SAMPLES, 5, 4)],
    ),
    "loss weights": (lambda: compiled(two_outputs(), ["mse", "mse"], loss_weights=[0.5, 2.0]), X, [Y, Y]),
}


@pytest.mark.parametrize("case", NOT_REPLAYED)
def test_what_numpy_has_a_hand_in_is_not_replayed(case: str, replays: list[int]) -> None:
    make, x, y = NOT_REPLAYED[case]
    check_same(make, x, y)
    assert replays == []


def test_targets_of_any_type_are_what_they_are(replays: list[int]) -> None:
    large = np.full((SAMPLES, 2), 2**63 + 2**62, np.uint64)
    for y in (large, Y.astype("float16"), (Y > 0).astype("uint8"), (Y > 0).astype("int32"), Y.astype(">f4")):
        check_same(lambda: compiled(sequence(layers.GRU(4), layers.Dense(2)), "mae"), X, y)


@pytest.mark.parametrize("kind", ("int8", "uint8", "int16", "int32", "int64"))
def test_metrics_see_targets_of_the_type_they_have(kind: str, replays: list[int]) -> None:
    kinds: list[str] = []

    class Typed(metrics.RootMeanSquaredError):
        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
            kinds.append(y_true.dtype.name)

    y = ids(5, SAMPLES, 2).astype(kind)
    for metric in (metrics.RootMeanSquaredError, Typed):
        check_same(lambda m=metric: compiled(sequence(layers.GRU(4), layers.Dense(2)), metrics=[m()]), X, y)
    assert replays and set(kinds) == {kind}


def test_a_refused_batch_draws_nothing(replays: list[int]) -> None:
    x, y = X[: 4 * BATCH], ids(4, 4 * BATCH)
    calls = []
    for replayed in (True, False):
        model = sequence(layers.LSTM(6, dropout=0.5, seed=1), layers.Dense(4, activation="softmax"))
        compiled(model, "sparse_categorical_crossentropy")
        y[-1] = 4
        with pytest.raises(ValueError, match="labels"), allowed(replayed):
            model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
        calls.append([entry["calls"] for entry in model.get_training_state()["layers"].values()])
    assert calls == [[4], [4]] and replays == [BATCH]


def test_an_error_of_a_signal_handler_ends_replayed_training(replays: list[int]) -> None:
    class Pressed(ValueError):
        pass

    def handler(*_: Any) -> None:
        raise Pressed

    x, y = floats(64, 400, 3), floats(64, 2)
    model = compiled(sequence(layers.LSTM(128), layers.Dense(2), shape=(400, 3)))

    def press() -> None:
        while len(replays) < 2:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    pressing = threading.Thread(target=press)
    try:
        pressing.start()
        with pytest.raises(Pressed):
            model.fit(x, y, batch_size=16, epochs=200, verbose=0)
    finally:
        pressing.join()
        signal.signal(signal.SIGUSR1, before)


def test_other_models_that_are_made_meanwhile_leave_few_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    held = []

    class Builds(metrics.Mean):
        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
            if len(held) % 3 == 0:
                sequence(layers.GRU(2))
            held.append(len(repeated[-1].known))

    repeated: list[Any] = []
    before = recorded.Repeated.__init__

    def noted(self: Any, step: Any) -> None:
        before(self, step)
        repeated.append(self)

    monkeypatch.setattr(recorded.Repeated, "__init__", noted)
    compiled(sequence(layers.LSTM(6), layers.Dense(2)), metrics=[Builds()]).fit(X, Y, batch_size=2, verbose=0)
    assert len(held) == 13 and max(held) == 1


def test_samples_with_weights_and_stateful_layers_are_not_replayed(replays: list[int]) -> None:
    def make() -> Any:
        return compiled(sequence(layers.LSTM(6), layers.Dense(2)))

    check_same(make, X, Y, sample_weight=np.linspace(0, 1, SAMPLES))

    def keeping() -> Any:
        model = Sequential([Input((5, 3), batch_size=2), layers.GRU(6, stateful=True), layers.Dense(2)])
        return compiled(model)

    check_same(keeping, X, Y, batch_size=2, shuffle=False)
    assert replays == []


def test_steps_are_replayed_in_the_order_the_data_has(replays: list[int]) -> None:
    for shuffle in (False, True, "batch"):
        check_same(REPLAYED["lstm"][0], X, Y, shuffle=shuffle)
    assert len(replays) >= 3 * 8 - 4


def test_a_step_that_holds_too_much_is_not_replayed(replays: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "MOST_BYTES", 100)
    check_same(REPLAYED["lstm"][0], X, Y)
    assert replays == []


def test_labels_that_are_no_classes_are_told_and_nothing_is_trained_on_them(replays: list[int]) -> None:
    x, y = ids(20, SAMPLES, 5), ids(4, SAMPLES)
    model = compiled(tagger(), "sparse_categorical_crossentropy", "sgd")
    model.fit(x[: 4 * BATCH], y[: 4 * BATCH], batch_size=BATCH, shuffle=False, verbose=0)
    twin = compiled(tagger(), "sparse_categorical_crossentropy", "sgd")
    twin.set_weights(model.get_weights())
    y[4 * BATCH + 1] = 4
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 4\); received 4"):
        model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
    twin.fit(x[: 4 * BATCH], y[: 4 * BATCH], batch_size=BATCH, shuffle=False, verbose=0)
    assert len(replays) == 2 + 2 + 2
    for a, b in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    y[4 * BATCH + 1] = 3
    x[5 * BATCH, 2] = 20
    with pytest.raises(ValueError, match=r"expects ids in \[0, input_dim = 20\); received 20"):
        model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)


def test_a_batch_with_nan_ends_replayed_training_with_the_weights_before_it(replays: list[int]) -> None:
    x = X.copy()
    x[4 * BATCH, 1, 1] = np.nan
    weights = []
    for last in (SAMPLES, 4 * BATCH):
        utils.set_random_seed(1)
        model = REPLAYED["lstm"][0]()
        if last == SAMPLES:
            with pytest.raises(NonFiniteLossError, match="batch 4"):
                model.fit(x, Y, batch_size=BATCH, shuffle=False, verbose=0)
        else:
            model.fit(x[:last], Y[:last], batch_size=BATCH, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    assert replays == [BATCH] * 5
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("base", (metrics.Mean, metrics.MeanSquaredError))
def test_a_metric_may_keep_what_it_saw(base: type, replays: list[int]) -> None:
    kept: list[tuple[np.ndarray, np.ndarray]] = []

    class Keeps(base):  # type: ignore[misc]
        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
            kept.append((y_true, y_pred))

    def keeps(y_true: Any, y_pred: Any) -> float:
        kept.append((y_true, y_pred))
        return 0.0

    for metric in (Keeps(), keeps):
        kept.clear(), replays.clear()
        model = compiled(sequence(layers.LSTM(6), layers.Dense(2)), metrics=[metric, "mae"])
        model.fit(X, Y, batch_size=BATCH, verbose=0)
        assert len(replays) == 4 and len(kept) == 7
        for seen in zip(*kept, strict=True):
            assert len({a.ctypes.data for a in seen}) == 7 and len({a.tobytes() for a in seen}) == 7


def test_two_models_in_two_threads_are_replayed_by_themselves() -> None:
    make, x, y = REPLAYED["many to many"]
    expected = fitted(make, x, y, replayed=False, epochs=6, shuffle=False)[0]
    models, workers = [], []
    for _ in range(2):
        utils.set_random_seed(11)
        models.append(make())
        settings = {"batch_size": BATCH, "epochs": 6, "shuffle": False, "verbose": 0}
        workers.append(threading.Thread(target=models[-1].fit, args=(x, y), kwargs=settings))
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for model in models:
        for a, b in zip(model.get_weights(), expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_ctrl_c_ends_replayed_training_between_two_updates(replays: list[int]) -> None:
    x, y = floats(4000, 30, 3), floats(4000, 2)
    model = compiled(sequence(layers.LSTM(64), layers.Dense(2), shape=(30, 3)))
    model.fit(x[:8], y[:8], batch_size=4, verbose=0)

    def press() -> None:
        while len(replays) < 20:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    pressing = threading.Thread(target=press)
    pressing.start()
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, batch_size=4, epochs=100, verbose=0)
    pressing.join()
    assert all(np.isfinite(w).all() for w in model.get_weights())
    model.fit(x[:40], y[:40], batch_size=4, verbose=0)
