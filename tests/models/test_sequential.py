"""Stacks of layers: with an Input or without, added to and taken from."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from fastrnn import Input, Model, Sequential, config, layers
from fastrnn.params import segments

rng = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype("float32")


def test_with_an_input_weights_exist_at_once() -> None:
    model = Sequential()
    model.add(Input((None, 3)))
    model.add(layers.LSTM(4))
    assert model.built and [w.shape for w in model.weights] == [(3, 16), (4, 16), (16,)]
    model.add(layers.Dense(2))
    assert model.output.shape == (None, 2) and len(model.layers) == 2
    model.predict(floats(1, 2, 3), verbose=0)
    assert len(segments(model.weights)) == 1


@pytest.mark.parametrize("use", ["call", "predict", "fit", "train_on_batch", "evaluate", "generator", "build"])
def test_without_an_input_the_first_data_build_it(use: str) -> None:
    model = Sequential([layers.GRU(4), layers.Dense(1)])
    model.compile("sgd", "mse")
    assert not model.built and model.weights == []
    with pytest.raises(ValueError, match="is not built yet"):
        _ = model.network
    x, y = floats(4, 5, 3), floats(4, 1)
    if use == "call":
        model(x)
    elif use == "predict":
        model.predict(x, verbose=0)
    elif use == "generator":
        assert len(model.fit(((x, y) for _ in range(3)), verbose=0).history["loss"]) == 1
        assert model.optimizer.iterations == 3
    elif use == "build":
        model.build((None, None, 3))
    elif use in ("fit", "evaluate"):
        getattr(model, use)(x, y, verbose=0)
    else:
        model.train_on_batch(x, y)
    assert model.built and model.weights[0].shape == (3, 12)
    assert model.predict(floats(2, 9, 3), verbose=0).shape == (2, 1)


def test_data_of_integers_build_an_embedding() -> None:
    model = Sequential([layers.Embedding(10, 3), layers.GRU(2)])
    assert model.predict(np.array([[1, 2, 3]]), verbose=0).shape == (1, 2)
    with pytest.raises(ValueError, match=r"expects ids in .* received 10"):
        model.predict(np.array([[10]]), verbose=0)


def test_a_stack_that_needs_the_number_of_steps_takes_it_from_the_data() -> None:
    model = Sequential([layers.Flatten(), layers.Dense(2)])
    assert model.predict(floats(2, 5, 3), verbose=0).shape == (2, 2)
    assert [len(layer._nodes) for layer in model.layers] == [1, 1]
    with pytest.raises(ValueError, match=r"expects shape \(batch, 5, 3\); received \(2, 6, 3\)"):
        model.predict(floats(2, 6, 3), verbose=0)


def test_pop_takes_the_top_layer_off() -> None:
    model = Sequential([Input((3,)), layers.Dense(4), layers.Dense(2)])
    x = floats(2, 3)
    model.predict(x, verbose=0)
    top = model.pop()
    assert top.units == 2 and model.predict(x, verbose=0).shape == (2, 4)
    model.add(layers.Dense(5))
    assert model.predict(x, verbose=0).shape == (2, 5) and len(model.weights) == 4
    empty = Sequential([Input((3,))])
    with pytest.raises(ValueError, match="no layers to take off"):
        empty.pop()


def test_a_layer_that_does_not_fit_is_refused_and_leaves_the_stack() -> None:
    model = Sequential([Input((None, 3)), layers.LSTM(4)])
    with pytest.raises(ValueError, match=r"expects input of shape \(batch, time, features\)"):
        model.add(layers.LSTM(4))
    with pytest.raises(ValueError, match="gives several outputs"):
        Sequential([Input((None, 3)), layers.LSTM(4, return_state=True)])
    with pytest.raises(ValueError, match="Input comes first"):
        model.add(Input((3,)))
    with pytest.raises(TypeError, match=r"write Dense\(\.\.\.\)"):
        model.add(layers.Dense)
    with pytest.raises(ValueError, match="has a layer 'd' already"):
        Sequential([layers.Dense(1, name="d"), layers.Dense(2, name="d")])
    assert len(model.layers) == 1 and model.predict(floats(1, 2, 3), verbose=0).shape == (1, 4)


def test_empty_stacks_say_so() -> None:
    with pytest.raises(ValueError, match="has no layers"):
        Sequential().predict(floats(2, 3), verbose=0)
    with pytest.raises(AttributeError, match="has no output yet"):
        _ = Sequential([layers.Dense(1)]).output
    with pytest.raises(ValueError, match="is empty"):
        Sequential([layers.Dense(1)]).predict(np.zeros((0, 3)), verbose=0)


def test_a_stack_starts_with_a_model() -> None:
    inner = Sequential([Input((None, 3)), layers.LSTM(4)])
    model = Sequential([inner, layers.Dense(2)])
    assert model.built and model.input_shape == (None, None, 3) and model.layers[0] is inner
    with pytest.raises(ValueError, match="is part of another model's graph"):
        inner.add(layers.Dense(1))


def test_an_unbuilt_stack_is_built_by_the_model_it_joins() -> None:
    inner = Sequential([layers.Dense(4), layers.Dense(2)])
    a = Input((3,))
    model = Model(a, inner(a))
    assert inner.built and len(model.weights) == 4
    assert model.predict(floats(2, 3), verbose=0).shape == (2, 2)


@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: type(m).from_config(m.get_config())]
)
@pytest.mark.parametrize("start", ["input", "data", "none"])
def test_copies_and_configurations_are_built_as_the_original_is(again, start: str) -> None:
    model = Sequential([*([Input((None, 3))] if start == "input" else []), layers.GRU(4), layers.Dense(1)], name="s")
    x = floats(2, 4, 3)
    if start == "data":
        model.predict(x, verbose=0)
    other = again(model)
    assert other.built == model.built == (start != "none")
    other.predict(x, verbose=0)
    model.predict(x, verbose=0)
    other.set_weights(model.get_weights())
    np.testing.assert_array_equal(other.predict(x, verbose=0), model.predict(x, verbose=0))
    assert [layer.name for layer in other.layers] == [layer.name for layer in model.layers]


def test_floatx_is_the_type_of_everything_built_later() -> None:
    config.set_floatx("float64")
    try:
        model = Sequential([Input((None, 3)), layers.LSTM(4), layers.Dense(1)])
        model.compile("adam", "mse")
    finally:
        config.set_floatx("float32")
    x, y = floats(4, 5, 3), floats(4, 1)
    assert model.predict(x, verbose=0).dtype == np.float64
    model.train_on_batch(x, y)
    assert {w.dtype for w in model.weights} == {"float64"}


def test_layers_of_different_types_work_together() -> None:
    model = Sequential([Input((None, 3)), layers.LSTM(4, dtype="float64"), layers.Dense(2)])
    model.compile("adam", "mse")
    assert len(segments(model.weights)) == 2
    x, y = floats(4, 5, 3), floats(4, 2)
    first = model.train_on_batch(x, y)
    for _ in range(20):
        last = model.train_on_batch(x, y)
    assert last < first and model.predict(x, verbose=0).dtype == np.float32
