"""Layers that reshape, merge, pool, and the input layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastrnn import layers, registry
from fastrnn.states import Context

X = np.random.default_rng(0).standard_normal((2, 3, 4)).astype("float32")
Y = np.random.default_rng(1).standard_normal((2, 3, 4)).astype("float32")
MASK = np.array([[True, True, False], [True, False, False]])
OTHER = np.array([[True, False, False], [True, False, True]])


# reshaping


def test_values_are_moved_where_numpy_moves_them() -> None:
    assert (layers.Flatten()(X) == X.reshape(2, 12)).all()
    assert (layers.Reshape((6, -1))(X) == X.reshape(2, 6, 2)).all()
    assert (layers.Permute((2, 1))(X) == X.swapaxes(1, 2)).all()
    assert (layers.RepeatVector(5)(X[:, 0]) == np.stack([X[:, 0]] * 5, axis=1)).all()


def test_reshaping_ends_masks() -> None:
    for layer in (layers.Flatten(), layers.Reshape((12,)), layers.Permute((2, 1)), layers.RepeatVector(3)):
        assert layer.output_mask(X, MASK) is None


def test_sizes_that_are_not_known_stay_so() -> None:
    x = layers.Input((None, 4))
    assert layers.Flatten()(x).shape == (None, None)
    assert layers.Reshape((-1, 2))(x).shape == (None, None, 2)
    assert layers.Permute((2, 1))(x).shape == (None, 4, None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.Reshape((5, -1))(X), r"input of shape \(2, 3, 4\) cannot become \(batch, 5, -1\)"),
        (lambda: layers.Reshape((13,))(X), "cannot become"),
        (lambda: layers.Reshape((-1, -1)), "one may be -1"),
        (lambda: layers.Reshape((0, 2)), "positive integers"),
        (lambda: layers.Permute((0, 1)), "each of 1, 2, ... once"),
        (lambda: layers.Permute((1,))(X), "expects one input of 2 axes"),
        (lambda: layers.RepeatVector(0), "n must be a positive integer"),
        (lambda: layers.RepeatVector(2)(X), r"expects input of shape \(batch, values\)"),
    ],
)
def test_bad_shapes_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# merging


def test_merging_is_elementwise() -> None:
    for layer, function, expected in (
        (layers.Add(), layers.add, X + Y),
        (layers.Subtract(), layers.subtract, X - Y),
        (layers.Multiply(), layers.multiply, X * Y),
        (layers.Average(), layers.average, (X + Y) / 2),
        (layers.Maximum(), layers.maximum, np.maximum(X, Y)),
        (layers.Minimum(), layers.minimum, np.minimum(X, Y)),
        (layers.Concatenate(), layers.concatenate, np.concatenate([X, Y], axis=-1)),
    ):
        assert (layer([X, Y]) == expected).all() and (function([X, Y]) == expected).all()
    assert layers.concatenate([X, Y[:, :1]], axis=1).shape == (2, 4, 4)


def test_fewer_axes_are_put_in_after_the_batch() -> None:
    vector = X[:, 0]
    assert (layers.Add()([X, vector]) == X + vector[:, None]).all()
    a, b = layers.Input((None, 4)), layers.Input((4,))
    assert layers.Add()([a, b]).shape == (None, None, 4)
    assert layers.Multiply()([a, layers.Input((7, 1))]).shape == (None, 7, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.Add()(X), r"Add '.*' expects a list of inputs; received one of shape \(2, 3, 4\)"),
        (lambda: layers.Add()([X, Y[:, :2]]), r"inputs of shapes \(2, 3, 4\), \(2, 2, 4\) do not fit together"),
        (lambda: layers.Add()([X, Y[:1]]), "do not fit together"),
        (lambda: layers.Subtract()([X, X, X]), "expects a list of 2 inputs; received 3"),
        (lambda: layers.Concatenate(axis=0), "axis 0 is the batch"),
        (lambda: layers.Concatenate()([X, Y[:, :2]]), "whose shapes agree but for axis -1"),
        (lambda: layers.Concatenate()([X, Y[:, 0]]), "whose shapes agree"),
        (lambda: layers.Concatenate(axis=3)([X, Y]), "whose shapes agree"),
        (lambda: layers.Concatenate()(X), "expects a list of inputs"),
    ],
)
def test_bad_merges_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_step_counts_after_a_merge_if_it_counts_in_any_input() -> None:
    assert (layers.Add().output_mask([X, Y], [MASK, OTHER]) == MASK | OTHER).all()
    assert layers.Add().output_mask([X, Y], [MASK, None]) is None
    assert (layers.Concatenate().output_mask([X, Y], [MASK, OTHER]) == MASK | OTHER).all()
    assert layers.Concatenate().output_mask([X, Y], [MASK, None]).all()
    assert layers.Concatenate().output_mask([X, Y], [None, None]) is None
    joined = layers.Concatenate(axis=1).output_mask([X, Y], [MASK, None])
    assert (joined == np.concatenate([MASK, np.ones((2, 3), bool)], axis=1)).all()


def test_equal_values_share_the_gradient_of_a_maximum() -> None:
    layer = layers.Maximum()
    _, saved = layer.forward([X, X], None, Context(record=True))
    assert all((dx == 0.5).all() for dx in layer.backward(saved, np.ones_like(X)))


# pooling


def test_average_is_over_steps_that_count() -> None:
    pool = layers.GlobalAveragePooling1D()
    y = pool(np.where(MASK[..., None], X, np.nan), mask=MASK)
    np.testing.assert_allclose(y, [X[0, :2].mean(axis=0), X[1, 0]], rtol=1e-6)
    np.testing.assert_allclose(pool(X), X.mean(axis=1), rtol=1e-6)
    assert (pool(X, mask=np.zeros((2, 3))) == 0).all()
    assert pool.output_mask(X, MASK) is None


def test_maximum_is_over_all_steps() -> None:
    assert (layers.GlobalMaxPooling1D()(X, mask=MASK) == X.max(axis=1)).all()
    assert layers.GlobalMaxPooling1D(keepdims=True)(layers.Input((None, 4))).shape == (None, 1, 4)


def test_steps_of_equal_values_share_the_gradient() -> None:
    layer, x = layers.GlobalMaxPooling1D(), np.array([[[1.0], [1.0], [0.0]]])
    _, saved = layer.forward(x, None, Context(record=True))
    assert layer.backward(saved, np.array([[6.0]])).tolist() == [[[3], [3], [0]]]


# time distributed


def test_inner_layer_sees_every_step_once_and_its_weights_are_its_own() -> None:
    dense = layers.Dense(5)
    layer = layers.TimeDistributed(dense)
    np.testing.assert_allclose(layer(X)[:, 1], dense(X[:, 1]), rtol=1e-5)
    assert layer.weights == dense.weights and layer.layer is dense
    assert layers.TimeDistributed(layers.Dense(5))(layers.Input((None, 4))).shape == (None, None, 5)
    assert layers.TimeDistributed(layers.Dense(5, dtype="float64")).dtype == "float64"


def test_masks_pass_over_the_steps_and_reach_the_layer_inside_if_they_are_deep_enough() -> None:
    dense = layers.TimeDistributed(layers.Dense(5))
    assert (dense.output_mask(X, MASK) == MASK).all() and dense.output_mask(X, None) is None
    deep, words = np.ones((2, 3, 4, 5)), np.random.default_rng(0).random((2, 3, 4)) < 0.5
    words[0, 0] = False
    pool = layers.TimeDistributed(layers.GlobalAveragePooling1D())
    assert (pool.output_mask(deep, words) == words.any(axis=-1)).all()
    ids = np.array([[[1, 0], [0, 0]]])
    embedding = layers.TimeDistributed(layers.Embedding(3, 2, mask_zero=True))
    assert embedding.output_mask(ids, None).tolist() == [[[True, False], [False, False]]]
    assert embedding(ids).shape == (1, 2, 2, 2)


def test_bad_inner_layers_and_inputs_are_named() -> None:
    with pytest.raises(TypeError, match="TimeDistributed wraps a layer; received 'dense'"):
        layers.TimeDistributed("dense")
    with pytest.raises(ValueError, match=r"expects input of shape \(batch, time, ..., values\); received \(2, 4\)"):
        layers.TimeDistributed(layers.Dense(2))(X[:, 0])
    with pytest.raises(ValueError, match=r"RepeatVector '.*' expects input of shape \(batch, values\)"):
        layers.TimeDistributed(layers.RepeatVector(2))(X[:, :, None])


# input


def test_input_is_said_by_shape_or_by_batch_shape() -> None:
    for x in (layers.Input((None, 4), batch_size=2), layers.Input(batch_shape=(2, None, 4))):
        assert x.shape == (2, None, 4) and x.dtype == "float32"
        assert x.node.layer.shape == (None, 4) and x.node.layer.batch_size == 2
    assert layers.Input((), name="scalars").shape == (None,)


def test_input_converts_what_it_is_given() -> None:
    floats, ids = layers.Input((2,)).node.layer, layers.Input((2,), dtype="int32").node.layer
    assert floats.cast([[1, 2]]).dtype == "float32" and ids.cast([[1.0, 2.0]]).dtype == "int32"
    with pytest.raises(ValueError, match="received numbers that are not whole"):
        ids.cast([[1.5, 2.0]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": 10}, r"shape must be a tuple like \(None, 10\); received 10"),
        ({"shape": (0, 2)}, "positive integers or None"),
        ({"shape": (2.5,)}, "positive integers or None"),
        ({"shape": (2,), "batch_shape": (None, 2)}, "either shape or batch_shape"),
        ({}, "either shape or batch_shape"),
        ({"shape": (2,), "dtype": "float16"}, "dtype must be one of float32"),
        ({"shape": (2,), "dtype": "string"}, "dtype must be one of float32"),
        ({"shape": (2,), "sparse": True}, "not supported"),
    ],
)
def test_bad_inputs_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layers.Input(**options)


def test_input_layer_keeps_its_configuration() -> None:
    layer = layers.Input((None, 4), batch_size=3, dtype="int32", name="ids").node.layer
    twin = registry.deserialize(registry.serialize(layer))
    assert twin.output.shape == (3, None, 4) and twin.dtype == "int32" and twin.name == "ids"
