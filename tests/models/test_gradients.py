"""`model.gradients` against finite differences: every way in which a graph can join, stop, mask and penalize."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastrnn import Input, Model, Sequential, layers, regularizers, utils
from fastrnn.states import Context

F64 = {"dtype": "float64"}
rng = np.random.default_rng(3)
Case = tuple[Model, Any, Any, Any]


def floats(*shape: int) -> np.ndarray:
    return rng.normal(size=shape)


def differences(
    model: Model, x: Any, y: Any, sample_weight: Any = None, training: bool = False, step: float = 1e-6
) -> list[np.ndarray]:
    found = []
    for w in model.weights:
        values, slopes = w.numpy(), np.zeros(w.shape)
        for i in np.ndindex(*w.shape):
            sides = []
            for sign in (1, -1):
                moved = values.copy()
                moved[i] += sign * step
                w.assign(moved)
                sides.append(model.gradients(x, y, sample_weight, training)[0])
            slopes[i] = (sides[0] - sides[1]) / (2 * step)
        w.assign(values)
        found.append(slopes)
    return found


def check(model: Model, x: Any, y: Any, sample_weight: Any = None, training: bool = False) -> None:
    _, gradients = model.gradients(x, y, sample_weight, training)
    expected = differences(model, x, y, sample_weight, training)
    assert len(gradients) == len(model.weights) and any(np.abs(g).max() > 1e-3 for g in gradients)
    for w, g, e in zip(model.weights, gradients, expected, strict=True):
        assert np.linalg.norm(g - e) <= 1e-6 * np.linalg.norm(e) + 1e-8, w.path


def many_to_one() -> Case:
    model = Sequential([Input((None, 2), **F64), layers.LSTM(3, **F64), layers.Dense(2, "tanh", **F64)])
    model.compile("sgd", "mse")
    return model, floats(3, 4, 2), floats(3, 2), None


def many_to_many_with_masks() -> Case:
    a = Input((None,), dtype="int32")
    h = layers.Embedding(6, 3, mask_zero=True, **F64)(a)
    h = layers.GRU(3, return_sequences=True, **F64)(h)
    h = layers.SimpleRNN(3, return_sequences=True, **F64)(h)
    model = Model(a, layers.TimeDistributed(layers.Dense(4, "softmax", **F64))(h))
    model.compile("sgd", "sparse_categorical_crossentropy")
    x = np.array([[1, 2, 0, 0], [3, 4, 5, 1], [0, 2, 0, 3]])
    return model, x, rng.integers(0, 4, size=(3, 4)), rng.uniform(0.5, 2, size=(3, 4))


def states_into_states() -> Case:
    a, b = Input((None, 2), **F64), Input((None, 3), **F64)
    _, h, c = layers.LSTM(3, return_state=True, **F64)(a)
    y, h2, c2 = layers.LSTM(3, return_sequences=True, return_state=True, **F64)(b, initial_state=[h, c])
    model = Model([a, b], [layers.Dense(2, **F64)(y), layers.Concatenate(**F64)([h2, c2])])
    model.compile("sgd", "mse", loss_weights=[0.3, 2])
    return model, [floats(2, 3, 2), floats(2, 4, 3)], [floats(2, 4, 2), floats(2, 6)], None


def shared_layers() -> Case:
    a, b = Input((None, 2), **F64), Input((None, 2), **F64)
    rnn, out = layers.GRU(3, **F64), layers.Dense(3, "sigmoid", **F64)
    h = rnn(a)
    model = Model([a, b], [out(out(h)), layers.Add(**F64)([h, rnn(b)])])
    model.compile("sgd", "mse")
    return model, [floats(2, 3, 2), floats(2, 4, 2)], [floats(2, 3), floats(2, 3)], None


def nested_models() -> Case:
    inner = Sequential([Input((None, 2), **F64), layers.LSTM(3, return_sequences=True, **F64), layers.Dense(2, **F64)])
    middle_in = Input((None, 2), **F64)
    middle = Model(middle_in, [inner(middle_in), layers.LSTM(2, **F64)(inner(inner(middle_in)))])
    a = Input((None, 2), **F64)
    sequence, last = middle(a)
    model = Model(a, [sequence, layers.Dense(1, **F64)(last)])
    model.compile("sgd", ["mse", "mae"])
    return model, floats(2, 3, 2), [floats(2, 3, 2), floats(2, 1)], None


def model_over_time() -> Case:
    inner = Sequential([Input((None, 2), **F64), layers.LSTM(3, **F64), layers.Dense(2, **F64)])
    outer = Sequential([Input((None, None, 2), **F64), layers.TimeDistributed(inner), layers.GRU(2, **F64)])
    outer.compile("sgd", "mse")
    return outer, floats(2, 3, 4, 2), floats(2, 2), None


def penalties() -> Case:
    both = {"kernel_regularizer": regularizers.L2(0.1), "activity_regularizer": regularizers.L2(0.3)}
    a = Input((None, 2), **F64)
    h = layers.LSTM(3, **both, recurrent_regularizer="l2", bias_regularizer="l2", **F64)(a)
    model = Model(
        a, [layers.Dense(2, "softmax", activity_regularizer="l2", **F64)(h), layers.Dense(1, **both, **F64)(h)]
    )
    model.compile("sgd", ["categorical_crossentropy", None])
    return model, floats(4, 3, 2), [np.eye(2)[[0, 1, 1, 0]], None], None


def arithmetic_and_slices() -> Case:
    a = Input((5, 2), **F64)
    h = layers.GRU(3, return_sequences=True, **F64)(a)
    model = Model(a, (h[:, -1] + 2 * h[:, 0]) / 3 - h[:, 1] * h[:, 2])
    model.compile("sgd", "mse")
    return model, floats(2, 5, 2), floats(2, 3), None


def output_read_by_another_layer() -> Case:
    a = Input((3,), **F64)
    p = layers.Dense(3, "softmax", **F64)(a)
    model = Model(a, [p, layers.Dense(2, **F64)(p)])
    model.compile("sgd", ["sparse_categorical_crossentropy", "mse"])
    return model, floats(4, 3), [np.array([0, 1, 2, 1]), floats(4, 2)], None


def same_output_twice() -> Case:
    a = Input((3,), **F64)
    p = layers.Dense(3, "softmax", **F64)(a)
    model = Model(a, [p, p])
    model.compile("sgd", ["sparse_categorical_crossentropy", "mse"])
    return model, floats(4, 3), [np.array([0, 1, 2, 1]), floats(4, 3)], None


def bidirectional_with_dropout() -> Case:
    model = Sequential([
        Input((None, 2), **F64),
        layers.Bidirectional(layers.LSTM(2, return_sequences=True, dropout=0.4, recurrent_dropout=0.3, **F64), **F64),
        layers.Dropout(0.3, **F64),
        layers.GRU(2, dropout=0.2, **F64),
    ])  # fmt: skip
    model.compile("sgd", "mse")
    return model, floats(3, 4, 2), floats(3, 2), rng.uniform(0.5, 2, size=3)


CASES = [
    many_to_one, many_to_many_with_masks, states_into_states, shared_layers, nested_models, model_over_time, penalties,
    arithmetic_and_slices, output_read_by_another_layer, same_output_twice, bidirectional_with_dropout,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda f: f.__name__)
def test_gradients_are_those_of_finite_differences(case: Callable[[], Case]) -> None:
    check(*case())


def test_gradients_with_dropout_are_those_of_the_same_draw() -> None:
    model, x, y, w = bidirectional_with_dropout()
    check(model, x, y, w, training=True)
    assert model.gradients(x, y, w)[0] != model.gradients(x, y, w, training=True)[0]


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_frozen_layers_have_zeros_and_the_others_what_they_had(frozen: int) -> None:
    model = Sequential([Input((None, 2)), layers.LSTM(3, return_sequences=True), layers.LSTM(3), layers.Dense(1)])
    model.compile("sgd", "mse")
    x, y = floats(3, 4, 2), floats(3, 1)
    _, free = model.gradients(x, y)
    model.layers[frozen].trainable = False
    _, found = model.gradients(x, y)
    own = {id(w) for w in model.layers[frozen].weights}
    for w, a, b in zip(model.weights, free, found, strict=True):
        np.testing.assert_array_equal(b, np.zeros_like(a) if id(w) in own else a)


def test_a_frozen_layer_that_adds_gradients_all_the_same_has_zeros_and_is_not_trained() -> None:
    class Scale(layers.Layer):
        def build(self, shape: Any) -> None:
            self.scale = self.add_weight("scale", shape[-1:], initializer="ones")

        def forward(self, x: Any, mask: Any, context: Any) -> Any:
            return x * self.scale.values, x

        def backward(self, saved: Any, dy: Any) -> Any:
            self.scale.gradient += (saved * dy).sum(axis=0)
            return dy * self.scale.values

    model = Sequential([Input((2,)), layers.Dense(3), Scale(), layers.Dense(1)])
    model.layers[1].trainable = False
    model.compile("sgd", "mse")
    x, y = floats(4, 2), floats(4, 1)
    _, gradients = model.gradients(x, y)
    assert [bool(np.any(g)) for g in gradients] == [True, True, False, True, True]
    model.train_on_batch(x, y)
    assert np.all(model.layers[1].get_weights()[0] == 1)


def test_backward_stops_where_nothing_below_is_trained() -> None:
    class Counted(layers.Dense):
        asked: int = 0

        def backward(self, saved: Any, dy: Any) -> Any:
            type(self).asked += 1
            assert saved is not None
            return super().backward(saved, dy)

    a = Input((3,))
    below = Counted(3, name="below")
    model = Model(a, layers.Dense(1)(layers.Dense(2)(below(a))))
    below.trainable = False
    model.compile("sgd", "mse")
    model.train_on_batch(floats(2, 3), floats(2, 1))
    assert Counted.asked == 0
    assert [c.input_gradient for c in model._training_step.training] == [False, False, True]
    assert [c.record for c in model._training_step.training] == [False, True, True]


def test_gradients_leave_the_model_as_it_was() -> None:
    a = Input((None, 2), batch_size=2)
    model = Model(a, layers.GRU(3, stateful=True, dropout=0.5)(a))
    model.compile("adam", "mse")
    x, y = floats(2, 4, 2), floats(2, 3)
    model.train_on_batch(x, y)
    state, weights, metrics = model.get_training_state(), model.get_weights(), model.metrics[0].result()
    first = model.gradients(x, y, training=True)
    second = model.gradients(x, y, training=True)
    assert first[0] == second[0] and metrics == model.metrics[0].result()
    np.testing.assert_equal(model.get_training_state(), state)
    np.testing.assert_equal(model.get_weights(), weights)


def test_loss_of_gradients_is_that_of_evaluate() -> None:
    model, x, y, _ = penalties()
    assert model.gradients(x, y)[0] == pytest.approx(model.evaluate(x, y, verbose=0), rel=1e-12)


def test_nan_in_padding_reaches_no_gradient() -> None:
    a, m = Input((None, 2)), Input((None,), dtype="bool")
    h = layers.LSTM(3, return_sequences=True)(a, mask=m)
    model = Model([a, m], layers.Dense(1)(h))
    model.compile("sgd", "mse", metrics=["mae"])
    x, y = floats(2, 4, 2), floats(2, 4, 1)
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 0]], dtype=bool)
    clean = model.gradients([x, mask], y), model.evaluate([x, mask], y, verbose=0)
    x[~mask], y[~mask] = np.nan, np.nan
    dirty = model.gradients([x, mask], y), model.evaluate([x, mask], y, verbose=0)
    np.testing.assert_equal(dirty, clean)


def test_a_penalty_on_the_output_of_a_wrapped_layer_counts() -> None:
    x, y = np.random.default_rng(0).normal(size=(4, 3, 2)), np.zeros((4, 3, 5))
    losses = []
    for inside in (True, False):
        utils.set_random_seed(0)
        penalty = regularizers.L2(0.1)
        dense = layers.Dense(5, activity_regularizer=penalty if inside else None)
        wrapped = layers.TimeDistributed(dense, activity_regularizer=None if inside else penalty)
        model = Sequential([layers.Input((3, 2)), wrapped])
        model.compile("sgd", "mse")
        loss, gradients = model.gradients(x, y)
        plain = float((model.predict(x, verbose=0) ** 2).mean())
        np.testing.assert_allclose(loss, plain + 0.1 * (model.predict(x, verbose=0) ** 2).sum() / 4, rtol=1e-5)
        losses.append([loss, *gradients])
    for a, b in zip(*losses, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="not to both"):
        layers.TimeDistributed(layers.Dense(5, activity_regularizer="l1"), activity_regularizer="l2")


@pytest.mark.parametrize("kind", [layers.Dense, layers.SimpleRNN])
def test_a_layer_that_is_used_twice_adds_its_gradients_in_every_step(kind: Any) -> None:
    options = {"return_sequences": True} if kind is layers.SimpleRNN else {}
    twice = kind(2, **options)
    a, b = Input((3, 2)), Input((3, 2))
    model = Model([a, b], layers.Add()([twice(a), twice(b)]))
    model.compile("sgd", "mse")
    first, second, y = floats(4, 3, 2), floats(4, 3, 2), floats(4, 3, 2)
    steps = [model.gradients([first, second], y)[1] for _ in range(3)]
    slopes, parts = np.float32(2 / y.size * (model.predict([first, second], verbose=0) - y)), []
    for x in (first, second):  # one use alone
        _, saved = twice.forward(np.float32(x), None, Context(training=True, record=True))
        for w in twice.weights:
            w.gradient[...] = 0
        twice.backward(saved, slopes)
        parts.append([w.gradient.copy() for w in twice.weights])
    steps.append(model.gradients([first, second], y)[1])  # and now that somebody has seen the gradients
    for found in steps:
        for g, *of_parts in zip(found, *parts, strict=True):
            np.testing.assert_allclose(g, sum(of_parts), rtol=1e-4, atol=1e-6)


def test_weights_that_no_gradient_reaches_have_zeros_after_steps_in_which_one_did() -> None:
    a = Input((3,))
    one, other = layers.Dense(2, name="one"), layers.Dense(2, name="other")
    model = Model(a, [one(a), other(a)])
    model.compile("sgd", "mse")
    x, y = floats(4, 3), floats(4, 2)
    _, both = model.gradients(x, [y, y])
    assert all(g.any() for g in both)
    model.compile("sgd", ["mse", None])
    _, found = model.gradients(x, [y, y])
    np.testing.assert_array_equal(found[0], both[0])
    assert not found[2].any() and not found[3].any()


def test_weights_that_no_gradient_reaches_stay_after_steps_in_which_one_did() -> None:
    a = Input((3,))
    model = Model(a, [layers.Dense(2, name="one")(a), layers.Dense(2, name="other")(a)])
    x, y = floats(4, 3), floats(4, 2)
    model.compile("sgd", "mse")
    model.train_on_batch(x, [y, y])
    before = model.get_weights()
    model.compile("sgd", ["mse", None])
    model.train_on_batch(x, [y, y])
    same = [np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert same == [False, False, True, True]
