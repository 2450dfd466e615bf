"""The loop: history, validation, weights of samples and classes, metrics, shuffling, stopping."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from fastrnn import Input, Model, Sequential, callbacks, layers, losses, metrics, optimizers, utils

rng = np.random.default_rng(5)


def floats(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype("float32")


def linear(**compiled: Any) -> Sequential:
    model = Sequential([Input((2,)), layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    model.compile(**{"optimizer": optimizers.SGD(0.0), "loss": "mse", **compiled})
    return model


class Recorder(callbacks.Callback):
    def __init__(self) -> None:
        self.calls: list[tuple[str, Any, dict[str, Any]]] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.calls.append(("epoch_begin", epoch, {}))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.calls.append(("epoch_end", epoch, dict(logs)))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.calls.append(("batch_end", batch, dict(logs)))


def test_epoch_loss_is_the_mean_over_samples_not_over_batches() -> None:
    model, x = linear(metrics=["mae"]), floats(10, 2)
    y = floats(10, 1)
    d = x.sum(axis=1, keepdims=True) - y
    h = model.fit(x, y, batch_size=4, epochs=2, verbose=0)
    assert h.history["loss"] == pytest.approx([np.mean(d**2)] * 2, rel=1e-6)
    assert h.history["mae"] == pytest.approx([np.mean(np.abs(d))] * 2, rel=1e-6)
    assert h.epoch == [0, 1] and model.history is h
    assert model.evaluate(x, y, batch_size=3, verbose=0) == pytest.approx([np.mean(d**2), np.mean(np.abs(d))], rel=1e-6)


def test_batch_logs_are_running_means() -> None:
    model, x, y, seen = linear(), floats(6, 2), floats(6, 1), Recorder()
    d = np.square(x.sum(axis=1, keepdims=True) - y).reshape(3, 2).mean(axis=1)
    model.fit(x, y, batch_size=2, shuffle=False, verbose=0, callbacks=[seen])
    assert [name for name, _, _ in seen.calls] == ["epoch_begin", "batch_end", "batch_end", "batch_end", "epoch_end"]
    assert [logs["loss"] for _, _, logs in seen.calls[1:4]] == pytest.approx(
        [d[:1].mean(), d[:2].mean(), d.mean()], rel=1e-6
    )


def test_penalties_are_part_of_the_loss() -> None:
    model = Sequential(
        [Input((2,)), layers.Dense(1, kernel_initializer="ones", kernel_regularizer="l2", activity_regularizer="l1")]
    )
    model.compile(optimizers.SGD(0.0), "mse")
    x, y = floats(5, 2), floats(5, 1)
    p = x.sum(axis=1, keepdims=True)
    expected = np.mean((p - y) ** 2) + 0.01 * 2 + 0.01 * np.abs(p).sum() / 5
    assert model.fit(x, y, verbose=0).history["loss"][0] == pytest.approx(expected, rel=1e-6)
    assert model.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-6)


def test_validation_split_takes_the_last_samples_before_shuffling() -> None:
    model, x, y = linear(), floats(10, 2), floats(10, 1)
    h = model.fit(x, y, validation_split=0.3, verbose=0)
    assert h.history["loss"][0] == pytest.approx(model.evaluate(x[:7], y[:7], verbose=0), rel=1e-6)
    assert h.history["val_loss"][0] == pytest.approx(model.evaluate(x[7:], y[7:], verbose=0), rel=1e-6)
    with pytest.raises(ValueError, match="leaves nothing to train or to validate on"):
        model.fit(x, y, validation_split=0.99, verbose=0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        model.fit(x, y, validation_split=1.5, verbose=0)


def test_validation_data_in_every_form() -> None:
    model, x, y = linear(metrics=["mae"]), floats(6, 2), floats(6, 1)
    w = np.array([1, 0, 2, 1, 0, 3.0])
    plain = model.evaluate(x, y, verbose=0, return_dict=True)
    weighted = model.evaluate(x, y, sample_weight=w, verbose=0, return_dict=True)
    for data, expected in (
        ((x, y), plain),
        ((x, y, w), weighted),
        ([x, y], plain),
        ([(x[:3], y[:3]), (x[3:], y[3:])].__iter__(), plain),
    ):
        h = model.fit(x, y, validation_data=data, verbose=0).history
        assert h["val_loss"][0] == pytest.approx(expected["loss"], rel=1e-6)
        assert h["val_mae"][0] == pytest.approx(expected["mae"], rel=1e-6)


def test_validation_data_that_are_used_up_are_refused() -> None:
    model, x, y = linear(), floats(4, 2), floats(4, 1)
    with pytest.raises(ValueError, match="gave no batches"), pytest.warns(UserWarning, match="ran out of data"):
        model.fit(x, y, epochs=2, validation_data=iter([(x, y)]), verbose=0)


def test_validation_freq_says_in_which_epochs() -> None:
    model, x, y = linear(), floats(4, 2), floats(4, 1)
    for freq, count in ((1, 4), (2, 2), ([1, 4], 2), ([9], 0)):
        h = model.fit(x, y, epochs=4, validation_data=(x, y), validation_freq=freq, verbose=0).history
        assert len(h.get("val_loss", [])) == count
    with pytest.raises(ValueError, match="validation_freq"):
        model.fit(x, y, validation_data=(x, y), validation_freq="often", verbose=0)


def test_validation_steps_and_batch_size() -> None:
    model, x, y = linear(), floats(9, 2), floats(9, 1)
    h = model.fit(x, y, validation_data=(x, y), validation_steps=2, validation_batch_size=3, verbose=0).history
    assert h["val_loss"][0] == pytest.approx(model.evaluate(x[:6], y[:6], verbose=0), rel=1e-6)


def test_sample_weights_scale_the_loss_and_leave_unweighted_metrics() -> None:
    model, x, y = linear(metrics=["mae"], weighted_metrics=["mse"]), floats(6, 2), floats(6, 1)
    w = rng.uniform(size=6)
    d = (x.sum(axis=1) - y[:, 0]).astype("float64")
    logs = model.evaluate(x, y, sample_weight=w, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(np.mean(w * d**2), rel=1e-5)
    assert logs["mae"] == pytest.approx(np.mean(np.abs(d)), rel=1e-5)
    assert logs["mse"] == pytest.approx(np.sum(w * d**2) / w.sum(), rel=1e-5)


def test_weights_of_single_steps() -> None:
    model = Sequential([Input((None, 2)), layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    model.compile("sgd", "mse")
    x, y, w = floats(3, 4, 2), floats(3, 4, 1), rng.uniform(size=(3, 4))
    d = x.sum(axis=2) - y[..., 0]
    assert model.evaluate(x, y, sample_weight=w, verbose=0) == pytest.approx(np.mean(w * d**2), rel=1e-5)
    with pytest.raises(ValueError, match="sample_weight must have shape"):
        model.evaluate(x, y, sample_weight=w[:, :3], verbose=0)


@pytest.mark.parametrize("form", ["(N,)", "(N, 1)", "one-hot", "(N, T)"])
def test_class_weights_are_the_sample_weights_of_the_labels(form: str) -> None:
    time = (4,) if form == "(N, T)" else ()
    model = Sequential([Input((*time, 2)), layers.Dense(3, "softmax")])
    sparse = form != "one-hot"
    model.compile(optimizers.SGD(0.0), "sparse_categorical_crossentropy" if sparse else "categorical_crossentropy")
    x, labels = floats(6, *time, 2), rng.integers(0, 3, size=(6, *time))
    class_weight = {0: 0.5, 2: 4.0}
    y = {"(N, 1)": labels[..., None], "one-hot": np.eye(3)[labels]}.get(form, labels)
    expected = model.evaluate(x, y, sample_weight=np.array([0.5, 1.0, 4.0])[labels], verbose=0)
    assert model.fit(x, y, class_weight=class_weight, verbose=0).history["loss"][0] == pytest.approx(expected, rel=1e-6)
    assert model.train_on_batch(x, y, class_weight=class_weight) == pytest.approx(expected, rel=1e-6)
    h = (
        model.fit([(x, y)], class_weight=class_weight, verbose=0)
        if form == "no"
        else model.fit(iter([(x, y)]), class_weight=class_weight, verbose=0)
    )
    assert h.history["loss"][0] == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match="cannot be given at the same time"):
        model.fit(x, y, class_weight=class_weight, sample_weight=np.ones(6), verbose=0)


def test_accuracy_means_what_the_shapes_say() -> None:
    x = floats(8, 2)
    for units, activation, loss, y, kind in (
        (1, "sigmoid", "bce", rng.integers(0, 2, (8, 1)), metrics.BinaryAccuracy),
        (3, "softmax", "sparse_categorical_crossentropy", rng.integers(0, 3, 8), metrics.SparseCategoricalAccuracy),
        (3, "softmax", "crossentropy", rng.integers(0, 3, (8, 1)), metrics.SparseCategoricalAccuracy),
        (3, "softmax", "ce", np.eye(3)[rng.integers(0, 3, 8)], metrics.CategoricalAccuracy),
    ):
        model = Sequential([Input((2,)), layers.Dense(units, activation)])
        model.compile("sgd", loss, metrics=["acc"])
        h = model.fit(x, y, verbose=0).history
        assert list(h) == ["acc", "loss"] and type(model.metrics[1]) is kind


def test_several_outputs_have_losses_weights_and_metrics_of_their_own() -> None:
    a, b = Input((2,), name="a"), Input((3,), name="b")
    model = Model([a, b], [layers.Dense(1, name="one")(a), layers.Dense(3, "softmax", name="two")(b)])
    x = {"a": floats(6, 2), "b": floats(6, 3)}
    y = {"one": floats(6, 1), "two": rng.integers(0, 3, 6)}
    model.compile(
        optimizers.SGD(0.0),
        {"one": "mse", "two": "sparse_categorical_crossentropy"},
        loss_weights={"one": 0.5, "two": 2},
        metrics={"one": ["mae", "mse"], "two": "accuracy"},
    )
    h = model.fit(x, y, batch_size=4, verbose=0).history
    assert list(h) == ["loss", "one_loss", "one_mae", "one_mse", "two_accuracy", "two_loss"]
    p, q = model.predict(x, verbose=0)
    one = np.mean((p - y["one"]) ** 2)
    two = -np.log(q[np.arange(6), y["two"]]).mean()
    assert h["one_loss"][0] == pytest.approx(one, rel=1e-5) == h["one_mse"][0]
    assert h["two_loss"][0] == pytest.approx(two, rel=1e-5)
    assert h["loss"][0] == pytest.approx(0.5 * one + 2 * two, rel=1e-5)
    assert h["two_accuracy"][0] == pytest.approx(np.mean(q.argmax(axis=1) == y["two"]))
    values = model.evaluate(x, y, verbose=0)
    assert model.metrics_names == ["loss", "one_loss", "two_loss", "one_mae", "one_mse", "two_accuracy"]
    assert dict(zip(model.metrics_names, values, strict=True)) == model.evaluate(x, y, verbose=0, return_dict=True)


def test_an_output_may_go_without_a_loss() -> None:
    a = Input((2,))
    model = Model(a, [layers.Dense(1, name="one")(a), layers.Dense(2, name="two")(a)])
    model.compile("sgd", {"one": "mse"})
    x, y = floats(4, 2), floats(4, 1)
    assert list(model.fit(x, {"one": y}, verbose=0).history) == ["loss"]
    _, g = model.gradients(x, [y, None])
    assert np.any(g[0]) and not np.any(g[2])


@pytest.mark.parametrize(
    ("compiled", "message"),
    [
        ({"loss": "wrong"}, "unknown loss 'wrong'"),
        ({"optimizer": "wrong"}, "unknown optimizer 'wrong'"),
        ({"metrics": ["wrong"]}, "unknown metric 'wrong'"),
        ({"loss": lambda y, p: 0}, "a loss needs its gradient"),
        ({"loss": {"third": "mse"}}, "loss names the output 'third'; the outputs are 'one', 'two'"),
        ({"loss": ["mse"]}, "loss must have one entry for each of the outputs 'one', 'two'; received 1"),
        ({"metrics": ["mae"]}, "metrics must have one entry for each"),
        ({"metrics": "mae"}, "metrics must be a list or a dict"),
        ({"loss_weights": 2.0}, "loss_weights must be a list or a dict"),
        ({"loss_weights": ["a", "b"]}, "loss_weights must be numbers"),
    ],
)
def test_compile_refuses_what_it_cannot_mean(compiled: dict[str, Any], message: str) -> None:
    a = Input((2,))
    model = Model(a, [layers.Dense(1, name="one")(a), layers.Dense(2, name="two")(a)])
    with pytest.raises(ValueError, match=message):
        model.compile(**{"loss": "mse", **compiled})
    assert model.optimizer is None


def test_training_needs_compile_and_a_loss() -> None:
    model = Sequential([Input((2,)), layers.Dense(1)])
    with pytest.raises(ValueError, match="must be compiled first"):
        model.fit(floats(2, 2), floats(2, 1), verbose=0)
    model.compile("sgd")
    with pytest.raises(ValueError, match="has no loss"):
        model.fit(floats(2, 2), floats(2, 1), verbose=0)


def test_users_losses_and_metrics() -> None:
    class Cubed:
        def value_and_gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> tuple[float, np.ndarray]:
            d = y_pred - y_true
            return np.mean(np.abs(d) ** 3), 3 * np.sign(d) * d**2 / d.size

    class Halved(losses.Loss):
        def elementwise_gradient(self, y_true: np.ndarray, y_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            d = y_pred - y_true
            return 0.5 * np.mean(d**2, axis=-1), d / d.shape[-1]

    def bias(y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        return (y_pred - y_true).mean(axis=-1)

    x, y = floats(6, 2), floats(6, 1)
    d = x.sum(axis=1, keepdims=True) - y
    for loss, expected in ((Cubed(), np.mean(np.abs(d) ** 3)), (Halved(), 0.5 * np.mean(d**2))):
        model = linear(optimizer=optimizers.SGD(0.1), loss=loss, metrics=[bias])
        assert model.evaluate(x, y, verbose=0) == pytest.approx([expected, d.mean()], rel=1e-5)
        model.fit(x, y, epochs=30, batch_size=6, verbose=0)
        assert model.evaluate(x, y, verbose=0)[0] < expected
        assert list(model.history.history) == ["bias", "loss"]


def test_rows_are_shuffled_anew_each_epoch_and_repeatably() -> None:
    seen: list[np.ndarray] = []

    class Watching(layers.Dense):
        def forward(self, x: np.ndarray, mask: Any, context: Any) -> Any:
            if context.training:
                seen.append(x[:, 0].copy())
            return super().forward(x, mask, context)

    def order(**options: Any) -> list[list[float]]:
        seen.clear()
        utils.set_random_seed(3)
        model = Sequential([Input((1,)), Watching(1)])
        model.compile("sgd", "mse")
        model.fit(np.arange(10.0)[:, None], np.zeros((10, 1)), batch_size=4, epochs=2, verbose=0, **options)
        flat = np.concatenate(seen).reshape(2, 10)
        return flat.tolist()

    first, second = order()
    assert first != second and sorted(first) == sorted(second) == list(range(10)) and order() == [first, second]
    assert order(shuffle=False) == [list(range(10))] * 2
    blocks = order(shuffle="batch")[0]
    assert sorted(blocks) == list(range(10))
    assert all(b - a == 1 for a, b in itertools.pairwise(blocks) if int(a) % 4 != 3 and a != 9)


def test_steps_per_epoch_go_on_where_the_last_epoch_stopped() -> None:
    model, x, y = linear(), np.arange(12.0).reshape(6, 2), np.zeros((6, 1))
    each = np.square(x.sum(axis=1))
    h = model.fit(x, y, batch_size=2, steps_per_epoch=2, epochs=1, shuffle=False, verbose=0).history["loss"]
    assert h == pytest.approx([each[:4].mean()])
    with pytest.warns(UserWarning, match="ran out of data after 1 of 2"):
        h = model.fit(x, y, batch_size=2, steps_per_epoch=2, epochs=3, shuffle=False, verbose=0).history["loss"]
    assert h == pytest.approx([each[:4].mean(), each[4:].mean(), each[:4].mean()])
    h = model.fit(x, y, steps_per_epoch=2, epochs=1, shuffle=False, verbose=0).history["loss"]
    assert h == pytest.approx([each.mean()]) and model.fit(x, y, steps_per_epoch=3, verbose=0).params["steps"] == 3


def test_initial_epoch_numbers_the_epochs() -> None:
    model, x, y, seen = linear(), floats(4, 2), floats(4, 1), Recorder()
    h = model.fit(x, y, initial_epoch=3, epochs=5, verbose=0, callbacks=seen)
    assert h.epoch == [3, 4] and [n for name, n, _ in seen.calls if name == "epoch_end"] == [3, 4]


def test_callbacks_stop_after_a_batch_or_an_epoch() -> None:
    class Stop(Recorder):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            super().on_train_batch_end(batch, logs)
            self.model.stop_training = batch == 1

    model, x, y, seen = linear(), floats(8, 2), floats(8, 1), Stop()
    h = model.fit(x, y, batch_size=2, epochs=5, verbose=0, callbacks=[seen])
    assert [name for name, _, _ in seen.calls] == [
        "epoch_begin",
        "batch_end",
        "batch_end",
        "epoch_end",
    ] and h.epoch == [0]
    h = model.fit(x, y, epochs=9, verbose=0, callbacks=[callbacks.EarlyStopping("loss", patience=1)])
    assert h.epoch == [0, 1]


def test_an_exception_in_a_callback_leaves_fit_and_aborts_the_others() -> None:
    class Boom(callbacks.Callback):
        aborted = False

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            raise RuntimeError("boom")

        def abort(self) -> None:
            self.aborted = True

    model, boom = linear(), Boom()
    with pytest.raises(RuntimeError, match="boom"):
        model.fit(floats(4, 2), floats(4, 1), verbose=0, callbacks=[boom])
    assert boom.aborted and len(model.fit(floats(4, 2), floats(4, 1), verbose=0).epoch) == 1


def test_single_batches_report_their_own_loss() -> None:
    model, x, y = linear(metrics=["mae"]), floats(6, 2), floats(6, 1)
    d = np.square(x.sum(axis=1) - y[:, 0])
    for rows in (slice(0, 3), slice(3, 6)):
        assert model.train_on_batch(x[rows], y[rows])[0] == pytest.approx(d[rows].mean(), rel=1e-5)
        assert model.test_on_batch(x[rows], y[rows], return_dict=True)["loss"] == pytest.approx(
            d[rows].mean(), rel=1e-5
        )
    np.testing.assert_allclose(model.predict_on_batch(x), x.sum(axis=1, keepdims=True), rtol=1e-5, atol=1e-6)


def test_recompiling_starts_the_optimizer_and_the_metrics_anew() -> None:
    model, x, y = linear(), floats(4, 2), floats(4, 1)
    model.fit(x, y, verbose=0)
    model.compile("adam", "mae", metrics=["mse"])
    assert model.optimizer.iterations == 0
    assert list(model.fit(x, y, verbose=0).history) == ["loss", "mse"] and model.optimizer.iterations == 1


# Where no metric looks at probabilities, the loss takes the last softmax itself: no bit may depend on it.


class OwnDense(layers.Dense):
    """It looks at what `Dense` gives."""

    def forward(self, x: Any, mask: Any, context: Any) -> Any:
        y, saved = super().forward(x, mask, context)
        return y * 1, saved


class OwnCrossentropy(losses.CategoricalCrossentropy):
    def value_and_gradient(self, y_true: Any, y_pred: Any, *rest: Any, **named: Any) -> Any:
        assert abs(y_pred.sum(axis=-1) - 1).max() < 1e-5 and "applied" not in named
        return super().value_and_gradient(y_true, y_pred, *rest, **named)


def classifier(*last: Any, **options: Any) -> Sequential:
    return Sequential([Input((5, 3)), layers.GRU(6, return_sequences=True, **options), *last])


def frozen_top() -> Sequential:
    model = classifier(layers.Dense(4, "softmax"))
    model.layers[-1].trainable = False
    return model


def two_heads() -> Model:
    x = Input((5, 3))
    y = layers.LSTM(6, return_sequences=True)(x)
    return Model(x, [layers.Dense(4, "softmax", name="a")(y), layers.Dense(4, "softmax", name="b")(y)])


def seen_twice() -> Model:
    x = Input((5, 3))
    p = layers.Dense(4, "softmax", name="a")(layers.LSTM(6, return_sequences=True)(x))
    return Model(x, [p, layers.Dense(4, "softmax", name="b")(p)])


DENSE = layers.Dense
HEADS = {
    "dense": (lambda: classifier(DENSE(4, "softmax")), [True]),
    "masked": (
        lambda: Sequential(
            [Input((5, 3)), layers.Masking(), layers.LSTM(6, return_sequences=True), DENSE(4, "softmax")]
        ),
        [True],
    ),
    "time distributed": (lambda: classifier(layers.TimeDistributed(DENSE(4, "softmax"))), [True]),
    "an activation layer": (lambda: classifier(DENSE(4), layers.Activation("softmax")), [False]),
    "an activation of the cell's sequence": (
        lambda: Sequential([Input((5, 3)), layers.SimpleRNN(4, return_sequences=True), layers.Activation("softmax")]),
        [False],
    ),
    "a penalty": (lambda: classifier(DENSE(4, "softmax", activity_regularizer="l2")), [False]),
    "frozen": (frozen_top, [True]),
    "all frozen": (lambda: classifier(DENSE(4, "softmax"), trainable=False), [True]),
    "two heads": (two_heads, [True, True]),
    "used again": (seen_twice, [False, True]),
    "a layer of one's own": (lambda: classifier(OwnDense(4, "softmax")), [False]),
}


@pytest.mark.parametrize(
    "loss", ("categorical_crossentropy", "sparse_categorical_crossentropy", OwnCrossentropy()), ids=str
)
@pytest.mark.parametrize("head", HEADS)
def test_a_metric_that_looks_on_changes_no_bit(head: str, loss: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(8)
    x = data.normal(size=(22, 5, 3)).astype("float32") * (data.random((22, 5, 1)) < 0.8)
    labels = data.integers(0, 4, (22, 5))
    weights = data.uniform(0.5, 2, 22)
    y = labels if loss == "sparse_categorical_crossentropy" else np.eye(4, dtype="float32")[labels]
    make, taken = HEADS[head]
    found, kinds = [], []
    before = losses.Loss.value_and_gradient

    def noted(self: Any, *given: Any, **named: Any) -> Any:
        kinds.append(named.get("applied", True))
        return before(self, *given, **named)

    monkeypatch.setattr(losses.Loss, "value_and_gradient", noted)
    outputs = len(taken)
    for sample_weight in (None, weights):
        for watched in (None, ["accuracy"]):
            utils.set_random_seed(1)
            model = make()
            model.compile("adam", [loss] * outputs, metrics=watched and [watched] * outputs)
            kinds.clear()
            given = sample_weight if sample_weight is None else [sample_weight] * outputs
            history = model.fit(x, [y] * outputs, sample_weight=given, batch_size=4, epochs=2, verbose=0)
            early = [t and watched is None and isinstance(loss, str) for t in taken]
            assert kinds[:outputs] == [True] * outputs and len(kinds) > outputs
            assert kinds[outputs:] == [not e for e in early] * (len(kinds) // outputs - 1)
            found.append((history.history["loss"], model.get_weights()))
        (loss_without, without), (loss_with, with_metric) = found[-2:]
        assert loss_without == loss_with
        for a, b in zip(without, with_metric, strict=True):
            np.testing.assert_array_equal(a, b)
