"""Arguments, configuration and weights of LSTM, GRU and SimpleRNN."""

from __future__ import annotations

import copy
import inspect
import pickle
import threading

import numpy as np
import pytest

from fastrnn import Model, activations
from fastrnn.layers import GRU, LSTM, Bidirectional, Input, Layer, SimpleRNN
from fastrnn.regularizers import L2
from fastrnn.states import Context

ALL = [LSTM, GRU, SimpleRNN]
POSITIONAL = {
    LSTM: "units activation recurrent_activation use_bias kernel_initializer recurrent_initializer bias_initializer "
    "unit_forget_bias kernel_regularizer recurrent_regularizer bias_regularizer activity_regularizer kernel_constraint "
    "recurrent_constraint bias_constraint dropout recurrent_dropout seed return_sequences return_state go_backwards "
    "stateful unroll use_cudnn",
    GRU: "units activation recurrent_activation use_bias kernel_initializer recurrent_initializer bias_initializer "
    "kernel_regularizer recurrent_regularizer bias_regularizer activity_regularizer kernel_constraint "
    "recurrent_constraint bias_constraint dropout recurrent_dropout seed return_sequences return_state go_backwards "
    "stateful unroll reset_after use_cudnn",
    SimpleRNN: "units activation use_bias kernel_initializer recurrent_initializer bias_initializer kernel_regularizer "
    "recurrent_regularizer bias_regularizer activity_regularizer kernel_constraint recurrent_constraint "
    "bias_constraint dropout recurrent_dropout return_sequences return_state go_backwards stateful unroll seed",
}
DEFAULTS = {
    "activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True, "kernel_initializer": "glorot_uniform",
    "recurrent_initializer": "orthogonal", "bias_initializer": "zeros", "unit_forget_bias": True, "dropout": 0.0,
    "recurrent_dropout": 0.0, "return_sequences": False, "return_state": False, "go_backwards": False,
    "stateful": False, "unroll": False, "reset_after": True, "use_cudnn": "auto",
}  # fmt: skip


def array(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


# arguments


@pytest.mark.parametrize("cls", ALL)
def test_arguments_have_keras_order_and_defaults(cls):
    parameters = dict(inspect.signature(cls).parameters)
    in_place = [n for n, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert in_place == POSITIONAL[cls].split()
    for name in in_place[1:]:
        assert parameters[name].default == DEFAULTS.get(name)
    assert parameters["zero_output_for_mask"].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("cls", ALL)
def test_arguments_given_by_position_land_where_keras_puts_them(cls):
    names = POSITIONAL[cls].split()
    values = {
        "units": 3, "activation": "relu", "recurrent_activation": "hard_sigmoid", "use_bias": False,
        "kernel_initializer": "he_normal", "recurrent_initializer": "ones", "bias_initializer": "ones",
        "unit_forget_bias": False, "kernel_regularizer": "l1", "recurrent_regularizer": "l2", "bias_regularizer": "l1",
        "activity_regularizer": "l2", "kernel_constraint": "max_norm", "recurrent_constraint": "non_neg",
        "bias_constraint": "unit_norm", "dropout": 0.1, "recurrent_dropout": 0.2, "seed": 5, "return_sequences": True,
        "return_state": True, "go_backwards": True, "stateful": True, "unroll": True, "reset_after": False,
        "use_cudnn": False,
    }  # fmt: skip
    by_position = cls(*(values[n] for n in names), name="layer")
    by_name = cls(**{n: values[n] for n in names}, name="layer")
    assert by_position.get_config() == by_name.get_config()
    for name in ("units", "use_bias", "dropout", "recurrent_dropout", "seed", "go_backwards", "stateful", "unroll"):
        assert getattr(by_position, name) == values[name]


@pytest.mark.parametrize("cls", ALL)
def test_too_many_or_doubled_arguments_are_refused(cls):
    with pytest.raises(TypeError, match="by position"):
        cls(*[3] * 40)
    with pytest.raises(TypeError, match="units"):
        cls(3, units=3)
    with pytest.raises(TypeError, match="units"):
        cls()
    with pytest.raises(TypeError, match="input_dim"):
        cls(3, input_dim=4)


@pytest.mark.parametrize("units", [0, -1, 2.5, "3", None, True])
@pytest.mark.parametrize("cls", ALL)
def test_units_must_be_a_positive_integer(cls, units):
    with pytest.raises(ValueError, match=rf"{cls.__name__}: units must be a positive integer; received"):
        cls(units)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, "half", float("nan")])
@pytest.mark.parametrize("argument", ["dropout", "recurrent_dropout"])
@pytest.mark.parametrize("cls", ALL)
def test_rates_lie_between_0_and_1(cls, argument, rate):
    with pytest.raises(ValueError, match=rf"{cls.__name__}: {argument} must be a number in \[0, 1\); received"):
        cls(3, **{argument: rate})


@pytest.mark.parametrize("name", ["gelu", "silu", "softmax", "leaky_relu", "no_such_thing", activations.Elu(alpha=0.5)])
@pytest.mark.parametrize("argument", ["activation", "recurrent_activation"])
def test_activations_that_cannot_stand_in_a_cell_are_refused_with_those_that_can(argument, name):
    with pytest.raises(ValueError, match=r"tanh.*sigmoid.*relu.*received|unknown activation"):
        LSTM(3, **{argument: name})


def test_a_function_as_activation_is_refused():
    with pytest.raises(ValueError, match="activation"):
        GRU(3, activation=lambda x: x)


def test_unknown_names_are_refused():
    for argument in ("kernel_initializer", "recurrent_regularizer", "bias_constraint"):
        with pytest.raises(ValueError, match="no_such_thing"):
            SimpleRNN(3, **{argument: "no_such_thing"})


@pytest.mark.parametrize("cls", ALL)
def test_unroll_and_implementation_change_nothing_but_the_configuration(cls):
    plain, other = (
        cls(3, name="a"),
        cls(3, name="a", unroll=True, **({} if cls is SimpleRNN else {"implementation": 1})),
    )
    x = array(2, 4, 5)
    plain(x), other(x)
    other.set_weights(plain.get_weights())
    assert np.array_equal(plain(x), other(x))
    assert other.get_config()["unroll"] is True


@pytest.mark.parametrize("cls", ALL)
def test_repr_shows_what_differs_from_the_defaults(cls):
    shown = repr(cls(3, return_sequences=True, name="a"))
    assert shown == f"{cls.__name__}(3, name='a', return_sequences=True)"


# inputs


@pytest.mark.parametrize("cls", ALL)
def test_inputs_of_other_rank_or_width_are_refused(cls):
    layer = cls(3)
    with pytest.raises(
        ValueError, match=rf"{cls.__name__}.* expects input of shape \(batch, time, features\); received \(32, 10\)"
    ):
        layer(array(32, 10))
    layer(array(2, 4, 5))
    with pytest.raises(ValueError, match=r"built for 5 features; received input of shape \(2, 4, 6\)"):
        layer(array(2, 4, 6))
    for shape in [(0, 4, 5), (2, 0, 5)]:
        with pytest.raises(ValueError, match="empty"):
            layer(array(*shape))
    with pytest.raises(ValueError, match=r"mask must have shape .*\(2, 4\)"):
        layer(array(2, 4, 5), mask=np.ones((2, 5), bool))
    with pytest.raises(ValueError, match="number of features"):
        cls(3)(Input((4, None)))


@pytest.mark.parametrize("cls", ALL)
def test_initial_states_of_other_number_or_shape_are_refused(cls):
    layer, x, count = cls(3), array(2, 4, 5), 2 if cls is LSTM else 1
    with pytest.raises(ValueError, match=f"has {count} states; received 3"):
        layer(x, initial_state=[array(2, 3)] * 3)
    for shape in [(2, 4), (3, 3), (2, 1, 3)]:
        with pytest.raises(ValueError, match=r"initial states of shape \(batch, units\) = \(2, 3\)"):
            layer(x, initial_state=[array(*shape)] * count)


# weights


@pytest.mark.parametrize(
    ("layer", "bias"),
    [
        (LSTM(3), (12,)),
        (GRU(3), (2, 9)),
        (GRU(3, reset_after=False), (9,)),
        (SimpleRNN(3), (3,)),
        (LSTM(3, use_bias=False), None),
        (GRU(3, use_bias=False), None),
    ],
    ids=repr,
)
def test_weights_have_keras_names_shapes_and_order(layer, bias):
    layer.build((None, None, 5))
    gates = len(layer.cell.gates)
    expected = [("kernel", (5, 3 * gates)), ("recurrent_kernel", (3, 3 * gates))] + ([("bias", bias)] if bias else [])
    assert [(w.name, w.shape) for w in layer.weights] == expected
    assert [w.path for w in layer.weights] == [f"{layer.name}/{name}" for name, _ in expected]
    assert layer.count_params() == sum(np.prod(shape) for _, shape in expected)


def test_unit_forget_bias_sets_the_forget_block_to_ones_and_nothing_else():
    for initializer, rest in [("zeros", 0), ("ones", 1)]:
        layer = LSTM(3, bias_initializer=initializer)
        layer.build((None, None, 5))
        assert np.array_equal(layer.bias.values, [rest] * 3 + [1] * 3 + [rest] * 6)
    layer = LSTM(3, unit_forget_bias=False)
    layer.build((None, None, 5))
    assert not layer.bias.values.any()
    layer = LSTM(3, bias_initializer=lambda shape, dtype: np.arange(12.0))
    layer.build((None, None, 5))
    assert np.array_equal(layer.bias.values, [0, 1, 2, 1, 1, 1, 6, 7, 8, 9, 10, 11])


def test_glorot_counts_all_gates_and_orthogonal_spans_them():
    layer = LSTM(32, dtype="float64")
    layer.build((None, None, 16))
    limit = np.sqrt(6 / (16 + 4 * 32))
    assert 0.95 * limit < np.abs(layer.kernel.values).max() <= limit
    rows = layer.recurrent_kernel.values
    assert np.allclose(rows @ rows.T, np.eye(32), atol=1e-12)
    assert not np.allclose(rows[:, :32] @ rows[:, :32].T, np.eye(32), atol=0.1)


def test_regularizers_and_constraints_reach_their_weights():
    layer = GRU(3, kernel_regularizer="l1", recurrent_regularizer="l2", bias_constraint="non_neg")
    layer.build((None, None, 5))
    assert [type(w.regularizer).__name__ for w in layer.weights] == ["L1", "L2", "NoneType"]
    assert [type(w.constraint).__name__ for w in layer.weights] == ["NoneType", "NoneType", "NonNeg"]


@pytest.mark.parametrize("cls", ALL)
def test_written_weights_are_used_by_the_next_call(cls):
    """The packed copy of the weights follows every way of writing them."""
    layer, x = cls(3), array(2, 4, 5)
    first = layer(x)
    values = layer.get_weights()
    layer.kernel.assign(2 * values[0])
    second = layer(x)
    layer.set_weights(values)
    assert not np.allclose(first, second)
    assert np.array_equal(layer(x), first)
    layer.kernel.block.values *= 2
    layer.kernel.block.changed()
    assert np.array_equal(layer(x), second)


@pytest.mark.parametrize("cls", ALL)
def test_packed_weights_are_not_copied_along(cls):
    layer, x = cls(3), array(2, 4, 5)
    y = layer(x)
    assert layer._packed
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert not twin._packed
        assert np.array_equal(twin(x), y)


@pytest.mark.parametrize("cls", ALL)
def test_several_threads_may_call_a_layer_while_it_is_packed_anew(cls):
    layer, x, results = cls(8), array(4, 6, 5), []
    expected = layer(x)
    callers = [threading.Thread(target=lambda: results.extend(layer(x) for _ in range(100))) for _ in range(3)]
    for caller in callers:
        caller.start()
    while any(caller.is_alive() for caller in callers):
        layer.kernel.block.changed()
    assert len(results) == 300
    assert all(np.array_equal(y, expected) for y in results)


@pytest.mark.parametrize("cls", ALL)
def test_a_frozen_layer_passes_gradients_on_and_collects_none(cls):
    layer, x = cls(3, return_sequences=True), array(2, 4, 5)
    context, dy = Context(record=True), array(2, 4, 3, seed=1)
    layer(x)
    dx = layer.backward(layer.forward(x, None, context)[1], dy)
    assert all(w.gradient.any() for w in layer.weights)
    for w in layer.weights:
        w.gradient[...] = 0
    layer.trainable = False
    assert np.array_equal(layer.backward(layer.forward(x, None, context)[1], dy), dx)
    assert not any(w.gradient.any() for w in layer.weights)
    assert layer.trainable_weights == []


def test_the_gradient_of_the_input_is_left_out_if_nobody_wants_it():
    layer, x = LSTM(3), array(2, 4, 5)
    layer(x)
    _, saved = layer.forward(x, None, Context(record=True, input_gradient=False))
    assert layer.backward(saved, array(2, 3)) is None


@pytest.mark.parametrize("cls", ALL)
def test_float64_layers_compute_in_float64(cls):
    layer = cls(3, dtype="float64", return_state=True)
    outputs = layer(array(2, 4, 5))
    assert {y.dtype for y in outputs} == {np.dtype("float64")}
    with pytest.raises(ValueError, match="float16"):
        cls(3, dtype="float16")


def test_a_symbolic_call_declares_shapes_with_and_without_states():
    x, h, c = Input((None, 5)), Input((3,)), Input((3,))
    assert LSTM(3)(x).shape == (None, 3)
    assert LSTM(3, return_sequences=True)(Input((7, 5))).shape == (None, 7, 3)
    assert [t.shape for t in LSTM(3, return_state=True)(x)] == [(None, 3)] * 3
    assert [t.shape for t in GRU(3, return_state=True, return_sequences=True)(x)] == [(None, None, 3), (None, 3)]
    assert LSTM(3)(x, initial_state=[h, c]).shape == (None, 3)
    assert LSTM(3)([x, h, c]).shape == (None, 3)
    assert GRU(3)(x, initial_state=h).shape == (None, 3)


@pytest.mark.parametrize("make", [LSTM, GRU, SimpleRNN, lambda *a, **k: Bidirectional(LSTM(*a, **k))])
def test_activity_regularizer_counts_every_output_by_the_batch_size(make):
    x = Input((4, 5))
    outputs = make(3, return_state=True, return_sequences=True, activity_regularizer=L2(0.3), dtype="float64")(x)
    model = Model(x, outputs[0])
    model.compile("sgd", "mse")
    inputs = array(6, 4, 5).astype("float64")
    ys = Model(x, outputs).predict(inputs, verbose=0)
    loss, gradients = model.gradients(inputs, ys[0])
    assert np.isclose(loss, 0.3 * sum((y**2).sum() for y in ys) / 6, rtol=1e-12)
    for weight, gradient in zip(model.weights, gradients, strict=True):
        values, step = weight.numpy(), np.random.default_rng(0).normal(size=weight.shape)
        ends = []
        for sign in (1, -1):
            weight.assign(values + sign * 1e-6 * step)
            ends.append(0.3 * sum((y**2).sum() for y in Model(x, outputs).predict(inputs, verbose=0)) / 6)
        weight.assign(values)
        assert np.isclose((gradient * step).sum(), (ends[0] - ends[1]) / 2e-6, rtol=1e-6)


def test_recurrent_layers_are_layers_with_a_stable_class_name():
    assert all(issubclass(cls, Layer) for cls in ALL)
    assert GRU(3, reset_after=False).get_config()["reset_after"] is False
