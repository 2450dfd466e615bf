"""Every activation: its derivative, its dtype, large arguments, configuration, and Keras' numbers."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from fastrnn import activations, registry
from fastrnn.activations import Activation

PLAIN = sorted({activations.get(n).name for n in registry.names("activation")})
PARAMETERS = [
    activations.LeakyRelu(0.05),
    activations.Elu(alpha=0.4),
    activations.Celu(alpha=1.7),
    activations.Gelu(approximate=True),
    activations.HardShrink(1.1),
    activations.SoftShrink(0.2),
    activations.Squareplus(b=1),
    activations.Softmax(axis=0),
    activations.LogSoftmax(axis=1),
]
ALL = [*map(activations.get, PLAIN), *PARAMETERS]
every_activation = pytest.mark.parametrize("activation", ALL, ids=lambda a: a.name)
KINKS = np.array([-6, -3, -1.1, -1, -0.5, -0.2, 0, 0.2, 0.5, 1, 1.1, 3, 6])


def points(shape: tuple[int, ...] = (2, 5, 6), seed: int = 0) -> np.ndarray:
    """Random numbers away from the places where some derivative jumps."""
    x = np.random.default_rng(seed).normal(0, 2.5, shape)
    near = np.abs(x[..., None] - KINKS).min(axis=-1) < 1e-3
    return np.where(near, x + 4e-3, x)


@every_activation
def test_derivative(activation: Activation) -> None:
    x, dy, step = points(), points(seed=1), 1e-5
    expected = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        expected[i] = ((activation.forward(up) - activation.forward(down)) * dy).sum() / (2 * step)
    dx = activation.backward(activation.forward(x), dy, None if activation.from_output else x)
    np.testing.assert_allclose(dx, expected, rtol=1e-6, atol=1e-7)


@every_activation
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_and_shape_are_kept(activation: Activation, dtype: str) -> None:
    for shape in ((2, 3), (2, 3, 4), *([] if hasattr(activation, "axis") else [(), (3,), (0, 3)])):
        x = np.asarray(points(shape), dtype)
        before = x.copy()
        y = activation.forward(x)
        dx = activation.backward(y, np.ones_like(y), x)
        assert np.shape(y) == np.shape(dx) == shape and y.dtype == dx.dtype == dtype
        np.testing.assert_array_equal(x, before)


@every_activation
def test_float32_is_close_to_float64(activation: Activation) -> None:
    x = points((2, 5, 40)).astype("float32")
    x64 = x.astype("float64")
    y, y64 = activation.forward(x), activation.forward(x64)
    np.testing.assert_allclose(y, y64, rtol=4e-6, atol=2e-7)
    np.testing.assert_allclose(
        activation.backward(y, np.ones_like(x), x),
        activation.backward(y64, np.ones_like(x64), x64),
        rtol=1e-5,
        atol=5e-6,
    )


@every_activation
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_arguments_give_no_nan(activation: Activation, dtype: str) -> None:
    x = np.array([[-1e4, -90, -20, 0, 20, 90, 1e4]], dtype)
    if activation.name == "exponential":
        x = x[:, :-2]
    with np.errstate(invalid="raise", divide="raise", over="raise"):
        y = activation.forward(x)
        dx = activation.backward(y, np.ones_like(y), x)
    assert np.isfinite(y).all() and np.isfinite(dx).all()


@pytest.mark.parametrize("activation", [a for a in ALL if a.from_output], ids=lambda a: a.name)
def test_from_output_means_that_the_input_is_not_needed(activation: Activation) -> None:
    x, dy = points(), points(seed=2)
    y = activation.forward(x)
    np.testing.assert_array_equal(activation.backward(y, dy), activation.backward(y, dy, np.full_like(x, np.nan)))


@every_activation
def test_configuration_comes_back(activation: Activation) -> None:
    again = registry.deserialize(json.loads(json.dumps(registry.serialize(activation))))
    assert type(again) is type(activation) and again.name == activation.name
    np.testing.assert_array_equal(again.forward(points()), activation.forward(points()))


@every_activation
def test_an_array_nobody_needs_any_more_gives_the_same(activation: Activation) -> None:
    for dtype in ("float32", "float64"):
        x = points().astype(dtype)
        np.testing.assert_array_equal(activation.forward_over(x.copy()), activation.forward(x))


def test_names_tell_parameters_apart() -> None:
    assert activations.get("elu").name == "elu" and activations.Elu(1.0).name == "elu"
    assert activations.Elu(0.5).name == "Elu(alpha=0.5)"


def test_calls_take_lists_and_parameters() -> None:
    np.testing.assert_allclose(activations.tanh([0, 1]), [0, math.tanh(1)], rtol=1e-6)
    assert activations.relu([-1, 2]).dtype == np.float32
    np.testing.assert_allclose(activations.elu(np.array([-1.0]), alpha=0.5), [0.5 * math.expm1(-1)])
    np.testing.assert_allclose(activations.softmax(np.zeros((4, 2)), axis=0), np.full((4, 2), 0.25))


def test_normal_distribution_function() -> None:
    x = np.linspace(-37, 9, 500)
    expected = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x])
    np.testing.assert_allclose(activations.gelu(x), x * expected, rtol=2e-13)
    x32 = np.linspace(-9, 9, 500, dtype="float32")
    np.testing.assert_allclose(activations.gelu(x32), activations.gelu(x32.astype("float64")), rtol=4e-6)


def test_activations_are_found_by_what_users_write() -> None:
    assert activations.get(None).name == activations.get("linear").name == "linear"
    assert activations.get("swish").name == "silu" and activations.get(activations.tanh) is activations.tanh
    assert activations.get(activations.Relu).name == "relu"
    with pytest.raises(ValueError, match=r"unknown activation 'tahn'; known are: .*tanh"):
        activations.get("tahn")
    with pytest.raises(ValueError, match=r"subclass fastrnn.activations.Activation with forward.*np_tanh"):

        def np_tanh(x: np.ndarray) -> np.ndarray:
            return np.tanh(x)

        activations.get(np_tanh)


def test_an_activation_of_ones_own() -> None:
    class Cube(Activation):
        def forward(self, x: np.ndarray) -> np.ndarray:
            return x**3

        def backward(self, y: np.ndarray, dy: np.ndarray, x: Any = None) -> np.ndarray:
            return 3 * dy * x**2

    cube = activations.get(Cube())
    assert cube.name == "cube" and not cube.from_output and cube([2.0]) == 8
    assert activations.get("Cube", {"Cube": Cube}).name == "cube"


@every_activation
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_and_derivatives_equal_those_of_keras(
    activation: Activation, dtype: str, keras: Any, torch: Any
) -> None:
    theirs = getattr(keras.activations, registry.snake_case(type(activation).__name__))
    options = {k: v for k, v in activation.get_config().items() if not (k == "b" and v == 4)}
    x = points().astype(dtype)
    z = torch.from_numpy(x).requires_grad_(True)
    y = theirs(z, **options)
    y.backward(torch.ones_like(y) * torch.from_numpy(points(seed=1).astype(dtype)))
    close = {"rtol": 3e-6, "atol": 5e-7} if dtype == "float32" else {"rtol": 1e-12, "atol": 1e-14}
    ours = activation.forward(x)
    np.testing.assert_allclose(ours, y.detach().numpy(), **close)
    close = {"rtol": 2e-5, "atol": 5e-6} if dtype == "float32" else {"rtol": 1e-10, "atol": 1e-13}
    if activation.name in ("hard_sigmoid", "Celu(alpha=1.7)"):  # torch's derivatives divide in float32
        close = {"rtol": 2e-5, "atol": 1e-6}
    np.testing.assert_allclose(activation.backward(ours, points(seed=1).astype(dtype), x), z.grad.numpy(), **close)


def test_every_name_of_keras_that_keeps_the_shape_is_known(keras: Any) -> None:
    elsewhere = {"glu", "threshold", "sparsemax", "get", "serialize", "deserialize"}
    theirs = {n for n in dir(keras.activations) if n.islower() and not n.startswith("_")} - elsewhere
    assert theirs <= set(registry.names("activation"))
    assert all(isinstance(getattr(activations, n), Activation) for n in theirs)
