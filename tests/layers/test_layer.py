"""The base class: names, building, weights, freezing, calling, states, configuration."""

from __future__ import annotations

import copy
import pickle
import threading
import time
from typing import Any

import numpy as np
import pytest

from fastrnn import config, layers, registry, rng
from fastrnn.graph import SymbolicTensor
from fastrnn.layers.layer import BeforeActivation, Layer, clear_session
from fastrnn.states import Context, StateStore

X = np.arange(12, dtype="float32").reshape(3, 4)


class Plain(Layer):
    """y = x + offset"""

    def build(self, shape: Any) -> None:
        self.offset = self.add_weight("offset", shape[-1:], initializer="ones")

    def forward(self, x: Any, mask: Any, context: Context) -> Any:
        return x + self.offset.values, None

    def backward(self, saved: Any, dy: Any) -> Any:
        self.offset.gradient += dy.reshape(-1, dy.shape[-1]).sum(axis=0)
        return dy


# names


def test_names_are_numbered_by_class_until_the_session_is_cleared() -> None:
    clear_session()
    assert [layers.Dense(1).name, layers.Dense(1).name, layers.RepeatVector(2).name] == [
        "dense",
        "dense_1",
        "repeat_vector",
    ]
    clear_session()
    assert layers.Dense(1, name="mine").name == "mine"
    assert layers.Dense(1).name == "dense"


@pytest.mark.parametrize("name", ["", "a/b", 3])
def test_impossible_name_is_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="name must be a string without '/'"):
        layers.Dense(1, name=name)


def test_repr_is_the_call_that_makes_the_layer() -> None:
    assert repr(layers.Dense(3, activation="tanh", name="d")) == "Dense(3, activation=Tanh(), name='d')"


# building


def test_build_runs_once() -> None:
    layer = layers.Dense(2)
    layer.build((None, 4))
    kernel = layer.kernel
    layer.build((None, 4))
    layer(X)
    assert layer.kernel is kernel and len(layer.weights) == 2 and layer.built


def test_failed_build_leaves_no_weights() -> None:
    class Fails(Plain):
        fails = True

        def build(self, shape: Any) -> None:
            super().build(shape)
            if self.fails:
                raise RuntimeError("no")

    layer = Fails()
    with pytest.raises(RuntimeError):
        layer(X)
    layer.fails = False
    assert layer.weights == [] and not layer.built
    layer(X)
    assert [w.name for w in layer.weights] == ["offset"]


def test_threads_that_call_at_once_build_once() -> None:
    class Slow(Plain):
        def build(self, shape: Any) -> None:
            time.sleep(0.02)
            self.offset = self.add_weight("offset", shape[-1:])

    layer, errors = Slow(), []

    def call() -> None:
        try:
            layer(X)
        except Exception as error:
            errors.append(error)

    workers = [threading.Thread(target=call) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not errors and len(layer.weights) == 1


def test_two_weights_of_one_name_are_refused() -> None:
    layer = Plain(name="p")
    layer(X)
    with pytest.raises(ValueError, match="Plain 'p' has a weight 'offset' already"):
        layer.add_weight("offset", (1,))


def test_features_are_fixed_by_the_first_call() -> None:
    layer = layers.Dense(2, name="d")
    layer(X)
    with pytest.raises(ValueError, match=r"Dense 'd' was built for 4 features; received input of shape \(3, 5\)"):
        layer(np.ones((3, 5)))
    with pytest.raises(ValueError, match="was built for 4 features"):
        layer(layers.Input((5,)))


def test_unknown_features_are_refused() -> None:
    with pytest.raises(ValueError, match="must know the number of features"):
        layers.Dense(2)(layers.Input((3, None)))


def test_init_without_super_is_told() -> None:
    class Forgets(Plain):
        def __init__(self) -> None:
            self.n = 1

    with pytest.raises(RuntimeError, match=r"must call super\(\).__init__\(\)"):
        Forgets()(X)


# weights


def test_weights_are_written_all_or_not_at_all() -> None:
    layer = layers.Dense(2, name="d")
    layer(X)
    before = layer.get_weights()
    with pytest.raises(ValueError, match="'d/bias' has shape"):
        layer.set_weights([np.zeros((4, 2)), np.zeros(3)])
    with pytest.raises(ValueError, match="has 2 weights; received 1"):
        layer.set_weights([np.zeros((4, 2))])
    assert all((a == b).all() for a, b in zip(before, layer.get_weights(), strict=True))


def test_get_weights_gives_copies_and_values_are_read_only() -> None:
    layer = layers.Dense(2)
    layer(X)
    layer.get_weights()[0][:] = 7
    assert not (layer.kernel.values == 7).any()
    with pytest.raises(ValueError, match="read-only"):
        layer.kernel.values[0, 0] = 1


def test_count_params_needs_a_built_layer() -> None:
    layer = layers.Dense(2)
    with pytest.raises(ValueError, match="has no weights yet"):
        layer.count_params()
    layer(X)
    assert layer.count_params() == 10


def test_paths_say_where_a_weight_stands() -> None:
    layer = layers.TimeDistributed(layers.Dense(2, name="d"), name="td")
    layer(np.ones((2, 3, 4)))
    assert [w.path for w in layer.weights] == ["td/d/kernel", "td/d/bias"]
    layer.label("model/")
    assert layer.layer.path == "model/td/d" and layer.weights[0].path == "model/td/d/kernel"


def test_freezing_reaches_the_layers_inside_and_can_be_undone() -> None:
    layer = layers.TimeDistributed(layers.Dense(2))
    layer(np.ones((2, 3, 4)))
    layer.trainable = False
    assert not layer.layer.trainable
    assert layer.trainable_weights == [] and layer.non_trainable_weights == layer.weights
    layer.trainable = True
    assert layer.trainable_weights == layer.weights and layer.layer.trainable
    layer.layer.trainable = False
    assert layer.trainable_weights == []


def test_freezing_is_kept_by_the_configuration() -> None:
    layer = layers.TimeDistributed(layers.Dense(2, trainable=False))
    assert layer.trainable and not layer.layer.trainable
    twin = registry.deserialize(registry.serialize(layer))
    assert twin.trainable and not twin.layer.trainable


def test_weight_may_be_not_trainable_by_itself() -> None:
    class Counts(Plain):
        def build(self, shape: Any) -> None:
            super().build(shape)
            self.add_weight("count", (), initializer="zeros", trainable=False)

    layer = Counts()
    layer(X)
    assert [w.name for w in layer.trainable_weights] == ["offset"]
    assert [w.name for w in layer.non_trainable_weights] == ["count"]


def test_layers_in_lists_are_found() -> None:
    class Stack(Layer):
        def __init__(self) -> None:
            super().__init__()
            self.parts = [Plain(), Plain()]

        def build(self, shape: Any) -> None:
            for part in self.parts:
                part.build(shape)

        def forward(self, x: Any, mask: Any, context: Context) -> Any:
            for part in self.parts:
                x, _ = part.forward(x, mask, context)
            return x, None

    layer = Stack()
    assert (layer(X) == X + 2).all()
    assert len(layer.weights) == 2 and layer.sublayers == layer.parts


# dtypes


def test_dtype_is_floatx_unless_given() -> None:
    config.set_floatx("float64")
    try:
        assert layers.Dense(2)(X).dtype == "float64"
    finally:
        config.set_floatx("float32")
    assert layers.Dense(2)(X.astype("float64")).dtype == "float32"
    assert layers.Dense(2, dtype="float64")(X).dtype == "float64"
    assert layers.Dense(2)(X.astype(int)).dtype == "float32"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int32", "complex64", "nonsense"])
def test_any_other_dtype_is_refused(dtype: str) -> None:
    with pytest.raises(ValueError, match="dtype must be one of float32, float64"):
        layers.Dense(2, dtype=dtype)


def test_layers_that_move_values_keep_integers() -> None:
    ids = np.array([[1, 2], [3, 2**25 + 1]])
    for layer in (layers.Flatten(), layers.Reshape((2, 1)), layers.Permute((1,))):
        assert layer(ids).dtype == ids.dtype
    assert layers.Concatenate()([ids, ids.astype("int32")]).dtype == "int64"
    assert layers.Concatenate()([ids, ids.astype("float64")]).dtype == "float32"
    assert layers.Flatten()(layers.Input((2,), dtype="int32")).dtype == "int32"


def test_layers_see_arrays_in_c_order() -> None:
    x = layers.Dense(2).cast([np.asfortranarray(X), X[:, ::2]])
    assert all(v.flags.c_contiguous and v.dtype == "float32" for v in x)


# calling


def test_nested_lists_are_an_array_and_lists_of_arrays_are_several_inputs() -> None:
    assert layers.Activation("linear")([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
    assert layers.Add()([X, X]).tolist() == (2 * X).tolist()
    with pytest.raises(ValueError, match="expects one input; received 2"):
        layers.Dense(2)([X, X])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.ones(4), r"Dense 'd' expects input of shape \(batch, ..., features\); received \(4,\)"),
        (np.ones((0, 4)), r"received an empty array of shape \(0, 4\)"),
        (np.ones((2, 0, 4)), r"received an empty array of shape \(2, 0, 4\)"),
        ([["a", "b"]], "expects numbers; received an array of <U1"),
        ([[1, 2], [3]], "lists of unequal lengths"),
        (np.ones((2, 4), complex), "expects numbers; received an array of complex128"),
        (None, "expects numbers; received an array of object"),
    ],
)
def test_bad_inputs_are_named(bad: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layers.Dense(2, name="d")(bad)


def test_arrays_and_symbolic_tensors_do_not_mix() -> None:
    x = layers.Input((4,), name="x")
    with pytest.raises(TypeError, match="symbolic tensors and arrays at once"):
        layers.Add()([x, X])
    with pytest.raises(TypeError, match="symbolic tensors and arrays at once"):
        layers.Dense(2)(layers.Input((3, 4)), mask=np.ones((2, 3)))


def test_layer_without_states_takes_no_initial_state() -> None:
    with pytest.raises(TypeError, match="takes no initial_state"):
        layers.Dense(2)(X, initial_state=[X])


def test_states_follow_the_input_in_one_list() -> None:
    class Walks(Layer):
        takes_states = True
        expects = "(batch, time, features)"

        def output_shape(self, shape: Any) -> Any:
            return [shape[0], *shape[1:]]

        def forward(self, x: Any, mask: Any, context: Context) -> Any:
            self.seen = mask
            return x, None

    layer = Walks()
    sequence, state = np.ones((2, 3, 4)), np.zeros((2, 5))
    for call in (lambda: layer(sequence, [state]), lambda: layer([sequence, state]), lambda: layer(sequence, state)):
        y, h = call()
        assert y.shape == (2, 3, 4) and h.shape == (2, 5)
    layer(sequence.tolist(), initial_state=state.tolist(), mask=np.ones((2, 3)))
    assert layer.seen[0].dtype == bool and layer.seen[1] is None
    x, h = layers.Input((3, 4)), layers.Input((5,))
    outputs = layer(x, initial_state=[h])
    assert outputs[0].node.inputs == [x, h] and [t.shape for t in outputs] == [(None, 3, 4), (None, 5)]


def test_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mask must have shape \(batch, time\) = \(2, 3\); received \(3, 2\)"):
        layers.Activation("tanh")(np.ones((2, 3, 4)), mask=np.ones((3, 2)))


def test_symbolic_call_remembers_mask_and_training() -> None:
    x, mask = layers.Input((None, 4)), layers.Input((None,), dtype="bool")
    y = layers.Dropout(0.5)(x, mask=mask, training=True)
    assert y.node.mask is mask and y.node.training is True
    assert [p.layer for p in y.node.parents] == [x.node.layer, mask.node.layer]
    assert layers.Dropout(0.5)(x).node.training is None


def test_shared_layer_has_one_node_a_call_and_its_first_is_its_input() -> None:
    a, b, layer = layers.Input((4,)), layers.Input((4,)), layers.Dense(2, name="d")
    with pytest.raises(AttributeError, match="Dense 'd' was never called on a symbolic tensor"):
        layer.input  # noqa: B018
    y, z = layer(a), layer(b)
    assert isinstance(y, SymbolicTensor) and y.node is not z.node and y.node.layer is z.node.layer
    assert layer.input is a and layer.output is y


def test_missing_methods_say_what_to_write() -> None:
    with pytest.raises(NotImplementedError, match="must define forward"):
        Layer()(X)
    with pytest.raises(NotImplementedError, match="must define backward"):
        Layer().backward(None, X)


def test_gradient_before_the_activation_skips_its_derivative() -> None:
    layer = layers.TimeDistributed(layers.Dense(3, activation="softmax"))
    linear = layers.TimeDistributed(layers.Dense(3))
    x = np.random.default_rng(0).random((2, 3, 4), "float32")
    assert layer(x).shape == linear(x).shape and layer.final_activation.name == "softmax"
    linear.set_weights(layer.get_weights())
    dz = np.random.default_rng(1).random((2, 3, 3), "float32")
    _, saved = layer.forward(x, None, Context(record=True))
    _, plain = linear.forward(x, None, Context(record=True))
    assert (layer.backward(saved, BeforeActivation(dz)) == linear.backward(plain, dz)).all()
    assert (layer.weights[0].gradient == linear.weights[0].gradient).all()
    assert layers.Flatten().final_activation is None


# states and randomness


def test_reset_state_reaches_every_store_and_the_layers_inside() -> None:
    layer = layers.TimeDistributed(layers.Dense(2))
    stores, states = [StateStore(), StateStore()], (np.ones(2),)
    for store in stores:
        store.set_states(layer, states)
        store.set_states(layer.layer, states)
    layer.reset_state()
    assert [s.states(part) for s in stores for part in (layer, layer.layer)] == [None] * 4
    stores[0].set_states(layer, states)
    assert stores[0].states(layer) is states and stores[1].states(layer) is None


def test_seed_makes_dropout_repeatable_and_calls_differ() -> None:
    x = np.ones((4, 50))
    first, second = layers.Dropout(0.5, seed=3), layers.Dropout(0.5, seed=3)
    a, b = first(x, training=True), first(x, training=True)
    assert (a == second(x, training=True)).all() and (b == second(x, training=True)).all()
    assert (a != b).any()


def test_seed_comes_from_the_global_stream_when_none_is_given() -> None:
    x, runs = np.ones((4, 50)), []
    for seed in (1, 1, 2):
        rng.set_random_seed(seed)
        runs.append(layers.Dropout(0.5)(x, training=True))
    assert (runs[0] == runs[1]).all() and (runs[0] != runs[2]).any()


# configuration and copies


def test_init_of_ones_own_needs_get_config() -> None:
    class Own(Plain):
        def __init__(self, units: int) -> None:
            super().__init__()
            self.units = units

    with pytest.raises(NotImplementedError, match="define get_config"):
        Own(3).get_config()

    class Documented(Own):
        def get_config(self) -> Any:
            return {**super().get_config(), "units": self.units}

    assert Documented(3).get_config()["units"] == 3


def test_layer_knows_no_other_layer_when_copied() -> None:
    x = layers.Input((4,))
    for _ in range(300):
        x = layers.Activation("tanh")(x)
    layer = layers.Dense(2)
    layer(x)
    assert len(pickle.dumps(layer)) < 5000
    assert copy.deepcopy(layer)._nodes == []


def test_unknown_argument_is_refused() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'unitz'"):
        layers.Dense(2, unitz=3)


@pytest.mark.parametrize("argument", ["input_shape", "batch_input_shape", "input_dim"])
def test_arguments_of_an_input_say_where_they_belong(argument: str) -> None:
    with pytest.raises(TypeError, match=rf"LSTM takes no {argument}: .*Sequential\(\[Input\(shape\), LSTM\(...\)\]\)"):
        layers.LSTM(2, **{argument: (5, 2)})
    assert layers.Embedding(input_dim=5, output_dim=2).input_dim == 5


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (layers.LeakyReLU(negative_slope=0.1), "LeakyRelu(negative_slope=0.1)"),
        (layers.ELU(), "elu"),
        (layers.ReLU(), "relu"),
        (layers.Softmax(), "softmax"),
        (layers.Activation("tanh"), "tanh"),
    ],
)
def test_a_layer_of_an_activation_is_taken_for_the_activation(given: Any, name: str) -> None:
    x = np.linspace(-3, 3, 12, dtype="float32").reshape(2, 6)
    np.testing.assert_array_equal(layers.Activation(given)(x), given(x))
    dense = layers.Dense(6, activation=given, kernel_initializer="identity")
    np.testing.assert_array_equal(dense(x), given(x))
    assert dense.activation.name == name
    again = layers.Dense.from_config(dense.get_config())
    assert again.activation.name == name


def test_layers_that_are_no_activation_are_refused() -> None:
    with pytest.raises(ValueError, match="ReLU 're' with its arguments is no activation of another layer"):
        layers.Dense(2, activation=layers.ReLU(max_value=1.0, name="re"))
    with pytest.raises(ValueError, match=r"an activation needs its derivative.*received <?Dense"):
        layers.Activation(layers.Dense(2))
