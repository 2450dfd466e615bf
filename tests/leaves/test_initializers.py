"""Initial values: distributions, seeds, shapes, and Keras' formulas."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from fastrnn import initializers, registry, rng
from fastrnn.initializers import fans, initial_values

SHAPE = (300, 400)
RANDOM = ["RandomNormal", "RandomUniform", "TruncatedNormal", "VarianceScaling", "Orthogonal"]
RANDOM += ["GlorotUniform", "GlorotNormal", "HeUniform", "HeNormal", "LecunUniform", "LecunNormal"]
ALL = [*RANDOM, "Zeros", "Ones", "Constant", "Identity"]


def expected_stddev(name: str, shape: tuple[int, int]) -> float:
    fan_in, fan_out = shape
    return {
        "RandomNormal": 0.05,
        "RandomUniform": 0.05 / math.sqrt(3),
        "TruncatedNormal": 0.05 * initializers.TRUNCATED_STDDEV,
        "VarianceScaling": math.sqrt(1 / fan_in),
        "Orthogonal": math.sqrt(1 / max(shape)),
        "Glorot": math.sqrt(2 / (fan_in + fan_out)),
        "He": math.sqrt(2 / fan_in),
        "Lecun": math.sqrt(1 / fan_in),
    }[name.replace("Uniform", "").replace("Normal", "") if name[0] in "GHL" else name]


@pytest.mark.parametrize("name", RANDOM)
def test_mean_and_standard_deviation(name: str) -> None:
    w = getattr(initializers, name)(seed=1)(SHAPE, "float64")
    stddev = expected_stddev(name, SHAPE)
    assert abs(w.mean()) < 5 * stddev / math.sqrt(w.size)
    assert w.std() == pytest.approx(stddev, rel=0.01)
    largest = np.abs(w).max() / stddev
    if name.endswith("Uniform"):
        assert 1.7 < largest <= math.sqrt(3)
    elif name in ("TruncatedNormal", "VarianceScaling", "GlorotNormal", "HeNormal", "LecunNormal"):
        assert 2.2 < largest <= 2 / initializers.TRUNCATED_STDDEV
    else:
        assert largest > 3.5


@pytest.mark.parametrize("name", ALL)
def test_shape_dtype_and_configuration(name: str) -> None:
    initializer = getattr(initializers, name)()
    assert initializer((3, 5)).dtype == np.float32
    w = initializer((3, 5), "float64")
    assert w.shape == (3, 5) and w.dtype == np.float64 and w.flags.c_contiguous and w.flags.writeable
    again = registry.deserialize(json.loads(json.dumps(registry.serialize(initializer))))
    assert type(again) is type(initializer) and again.get_config() == initializer.get_config()
    assert type(registry.get("initializer", registry.snake_case(name))) is type(initializer)


@pytest.mark.parametrize("name", RANDOM)
def test_a_seed_repeats_and_none_goes_on(name: str) -> None:
    make = getattr(initializers, name)
    seeded, free = make(seed=7), make()
    np.testing.assert_array_equal(seeded((3, 4)), seeded((3, 4)))
    assert (seeded((3, 4)) != make(seed=8)((3, 4))).any()
    rng.set_random_seed(5)
    first, second = free((3, 4)), free((3, 4))
    assert (first != second).any()
    rng.set_random_seed(5)
    np.testing.assert_array_equal(first, free((3, 4)))
    given = [free((3, 4), rng=np.random.default_rng(3)) for _ in range(2)]
    np.testing.assert_array_equal(*given)


@pytest.mark.parametrize("name", RANDOM)
def test_float32_values_are_the_float64_values_rounded(name: str) -> None:
    initializer = getattr(initializers, name)(seed=2)
    np.testing.assert_array_equal(initializer((4, 6), "float32"), initializer((4, 6), "float64").astype("float32"))


def test_fixed_initializers_leave_the_global_stream_alone() -> None:
    state = rng.get_state()
    for name in ("Zeros", "Ones", "Constant", "Identity"):
        getattr(initializers, name)()((2, 2))
    assert rng.get_state() == state


@pytest.mark.parametrize("shape", [(6, 24), (24, 6), (5, 5), (2, 3, 4), (1, 4)])
def test_orthogonal_over_the_whole_shape(shape: tuple[int, ...]) -> None:
    w = initializers.Orthogonal(gain=2.0, seed=1)(shape, "float64").reshape(-1, shape[-1])
    small = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(small, 4 * np.eye(len(small)), atol=1e-12)


def test_orthogonal_has_no_preferred_sign() -> None:
    draws = np.array([initializers.Orthogonal(seed=s)((2, 2), "float64") for s in range(400)])
    assert np.abs(draws.mean(axis=0)).max() < 0.15


def test_identity_constant_and_ones() -> None:
    np.testing.assert_array_equal(initializers.Identity(gain=3)((2, 3)), [[3, 0, 0], [0, 3, 0]])
    np.testing.assert_array_equal(initializers.Constant(2.5)((2,)), [2.5, 2.5])
    np.testing.assert_array_equal(initializers.Ones()((2,)), [1, 1])
    table = np.arange(6.0).reshape(2, 3)
    kept = initializers.Constant(table)
    np.testing.assert_array_equal(kept((2, 3)), table)
    np.testing.assert_array_equal(initializers.Constant.from_config(kept.get_config())((2, 3)), table)
    with pytest.raises(ValueError, match=r"values of shape \(2, 3\); the weight has shape \(3, 2\)"):
        kept((3, 2))


def test_fans_of_shapes() -> None:
    assert fans((3, 4)) == (3, 4) and fans((7,)) == (7, 7) and fans(()) == (1, 1)
    assert fans((5, 2, 3, 4)) == (30, 40)
    assert fans((2, 3, 4), input_axes=[0, 1], output_axes=[2]) == (6, 4)


def test_initial_values_take_what_users_write() -> None:
    np.testing.assert_array_equal(initial_values(np.eye(2), (2, 2), "float64"), np.eye(2))
    np.testing.assert_array_equal(initial_values(lambda shape, dtype: np.ones(shape), (2,), "float32"), [1, 1])
    np.testing.assert_array_equal(initial_values("zeros", (2,), "float32"), [0, 0])
    assert np.abs(initial_values(None, (3, 4), "float32")).max() <= math.sqrt(6 / 7)
    with pytest.raises(ValueError, match=r"lstm/kernel has shape \(2, 3\).*\(3, 2\)"):
        initial_values(lambda shape, dtype: np.ones((3, 2)), (2, 3), "float32", what="lstm/kernel")
    with pytest.raises(ValueError, match="unknown initializer 'glorot'"):
        initial_values("glorot", (2,), "float32")


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="scale must be positive"):
        initializers.VarianceScaling(scale=0)
    with pytest.raises(ValueError, match="mode must be one of fan_in"):
        initializers.VarianceScaling(mode="fan")
    with pytest.raises(ValueError, match="distribution must be one of uniform"):
        initializers.VarianceScaling(distribution="cauchy")
    with pytest.raises(ValueError, match="two axes or more"):
        initializers.Orthogonal()((3,))
    with pytest.raises(ValueError, match="Identity makes matrices"):
        initializers.Identity()((3,))
    with pytest.raises(ValueError, match="float32, float64"):
        initializers.Zeros()((3,), "int32")


@pytest.mark.parametrize("name", ALL)
def test_defaults_are_those_of_keras(name: str, keras: Any) -> None:
    ours, theirs = getattr(initializers, name)(), getattr(keras.initializers, name)()
    config = {k: v for k, v in theirs.get_config().items() if k != "dtype"}
    assert {**ours.get_config(), "seed": 0}.items() >= {**config, "seed": 0}.items()
    if name in RANDOM:
        ours, theirs = getattr(initializers, name)(seed=1), getattr(keras.initializers, name)(seed=1)
        a, b = ours((200, 300), "float64"), np.asarray(theirs((200, 300), "float64"))
        assert a.std() == pytest.approx(b.std(), rel=0.02)
        tolerance = 0.03 if name.endswith(("Uniform", "Normal")) and name != "RandomNormal" else 0.3
        assert np.abs(a).max() == pytest.approx(np.abs(b).max(), rel=tolerance)
    else:
        np.testing.assert_array_equal(ours((3, 4), "float64"), np.asarray(theirs((3, 4), "float64")))
