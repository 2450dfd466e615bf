"""Dense and the activation layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastrnn import activations, layers, threads
from fastrnn.layers.layer import BeforeActivation
from fastrnn.states import Context

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 5, 4))


def built(**options: Any) -> layers.Dense:
    layer = layers.Dense(2, dtype="float64", bias_initializer="random_normal", **options)
    layer.build((None, 4))
    return layer


def test_acts_on_the_last_axis_of_any_rank() -> None:
    layer = built()
    for x in (X, X[0], X[:, None]):
        np.testing.assert_allclose(layer(x), x @ layer.kernel.values + layer.bias.values, rtol=1e-12)


def test_softmax_over_another_axis_sees_the_whole_array() -> None:
    layer = built(activation=activations.Softmax(axis=1))
    np.testing.assert_allclose(layer(X).sum(axis=1), 1)


def test_frozen_layer_passes_the_gradient_and_keeps_its_own_at_zero() -> None:
    layer = built()
    _, saved = layer.forward(X, None, Context(record=True))
    layer.trainable = False
    dx = layer.backward(saved, np.ones((3, 5, 2)))
    np.testing.assert_allclose(dx, np.broadcast_to(layer.kernel.values.sum(axis=1), X.shape))
    assert not layer.kernel.gradient.any() and not layer.bias.gradient.any()


def test_input_gradient_is_left_out_where_nobody_wants_it() -> None:
    layer = built()
    _, saved = layer.forward(X, None, Context(record=True, input_gradient=False))
    assert layer.backward(saved, np.ones((3, 5, 2))) is None and layer.kernel.gradient.any()


def test_padding_that_has_a_gradient_counts() -> None:
    """Where a mask was dropped behind the layer (Flatten), masked steps are ordinary ones."""
    layer, mask = built(activation="tanh"), RNG.random((3, 5)) < 0.5
    dy = RNG.standard_normal((3, 5, 2))
    gradients = []
    for m in (None, mask):
        layer.kernel.gradient[...] = 0
        _, saved = layer.forward(X, m, Context(record=True))
        dx = layer.backward(saved, dy)
        gradients.append((dx, layer.kernel.gradient.copy()))
    assert all((a == b).all() for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("all_padding", [False, True])
def test_masked_rows_without_gradient_are_left_out(all_padding: bool) -> None:
    layer, mask = built(activation="softmax"), np.zeros((3, 5), bool)
    if not all_padding:
        mask[0, :2] = True
    dy = np.where(mask[..., None], RNG.standard_normal((3, 5, 2)), 0)
    expected = []
    for x, m in ((X, None), (np.where(mask[..., None], X, np.nan), mask)):
        layer.kernel.gradient[...], layer.bias.gradient[...] = 0, 0
        _, saved = layer.forward(x, m, Context(record=True))
        dx = layer.backward(saved, BeforeActivation(dy) if all_padding else dy)
        expected.append([dx, layer.kernel.gradient.copy(), layer.bias.gradient.copy()])
    for a, b in zip(*expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_products_give_the_same_bits_for_any_number_of_threads(dtype: str) -> None:
    x = RNG.standard_normal((50, 20, 200)).astype(dtype)
    layer = layers.Dense(130, activation="tanh", dtype=dtype, kernel_initializer="glorot_normal")
    layer.build(x.shape)
    before, found = threads.get_num_threads(), set()
    try:
        for count in (1, 2, 3, 64):
            threads.set_num_threads(count)
            for w in layer.weights:
                w.gradient[...] = 0
            y, saved = layer.forward(x, None, Context(record=True))
            dx = layer.backward(saved, y)
            found.add(b"".join(a.tobytes() for a in (y, dx, layer.kernel.gradient, layer.bias.gradient)))
    finally:
        threads.set_num_threads(before)
    assert len(found) == 1


def test_arguments_of_the_weights_arrive() -> None:
    layer = layers.Dense(
        2,
        kernel_initializer="ones",
        bias_initializer="ones",
        kernel_regularizer="l2",
        bias_regularizer="l1",
        kernel_constraint="non_neg",
        bias_constraint="max_norm",
        activity_regularizer="l1",
    )
    assert (layer(np.ones((1, 3))) == 4).all()
    names = [type(o).__name__ for w in layer.weights for o in (w.regularizer, w.constraint)]
    assert names == ["L2", "NonNeg", "L1", "MaxNorm"] and type(layer.activity_regularizer).__name__ == "L1"


@pytest.mark.parametrize("units", [0, -1, 2.5, "3", True, None])
def test_units_must_be_a_positive_integer(units: Any) -> None:
    with pytest.raises(ValueError, match="Dense: units must be a positive integer"):
        layers.Dense(units)


def test_unknown_activation_is_named() -> None:
    with pytest.raises(ValueError, match="tahn"):
        layers.Dense(2, activation="tahn")
    with pytest.raises(ValueError, match="forward"):
        layers.Activation(lambda x: x)


def test_relu_layers_follow_their_formulas() -> None:
    x = np.array([[-2.0, -0.5, 0.5, 2.0]])
    assert layers.ReLU()(x).tolist() == [[0, 0, 0.5, 2]]
    assert layers.ReLU(max_value=1.0, negative_slope=0.5, threshold=1.0)(x).tolist() == [[-1.5, -0.75, -0.25, 1]]
    assert layers.LeakyReLU(0.5)(x).tolist() == [[-1, -0.25, 0.5, 2]]
    np.testing.assert_allclose(layers.ELU(2.0)(x), [[2 * np.expm1(-2), 2 * np.expm1(-0.5), 0.5, 2]], rtol=1e-6)
    with pytest.raises(ValueError, match="max_value must not be negative"):
        layers.ReLU(max_value=-1)
