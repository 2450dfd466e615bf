"""Activations: how exact, at which special values, and where their results may not lie."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from kernel_cases import BUILDS

from fastrnn._core import kernels

DTYPES = ("float32", "float64")
ALPHA_SCALE = reference.ALPHA * reference.SCALE
pytestmark = pytest.mark.parametrize("isa", BUILDS)


def samples(dtype):
    """Both signs: points spread evenly over the bit patterns of finite numbers, and over the range that matters."""
    integer = np.uint32 if dtype == "float32" else np.uint64
    info = np.finfo(dtype)
    last = int(np.array(info.max, dtype).view(integer))
    patterns = np.linspace(0, last, 400_000, dtype=np.float64).astype(integer).view(dtype)
    interesting = np.linspace(-30, 30, 400_000).astype(dtype)
    edges = np.array([0.0, info.smallest_subnormal, info.tiny, info.eps, 1, np.log(info.max), info.max], dtype)
    inwards = np.nextafter(edges, np.array(1, dtype))
    values = np.concatenate([patterns[np.isfinite(patterns)], interesting, edges, inwards])
    return np.concatenate([values, -values])


def in_long_double(name, x):
    x = x.astype(np.longdouble)
    if name == "tanh":
        return np.tanh(x)
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1) / (1 + small)


@pytest.mark.parametrize("name", ("tanh", "sigmoid"))
@pytest.mark.parametrize("dtype", DTYPES)
def test_tanh_and_sigmoid_are_exact_to_a_few_ulp(name, dtype, isa):
    x = samples(dtype)
    with np.errstate(under="ignore"):
        exact = in_long_double(name, x)
    value = kernels.activate(name, x, isa=isa)
    info = np.finfo(dtype)
    normal = np.abs(exact) >= info.tiny
    wrong = np.abs(value - exact)
    if dtype == "float32":
        ulps = wrong[normal] / np.spacing(np.abs(exact[normal]).astype(dtype))
        assert ulps.max() <= 4, (ulps.max(), x[normal][ulps.argmax()])
    else:
        relative = wrong[normal] / np.abs(exact[normal])
        assert relative.max() <= 1e-15, (relative.max(), x[normal][relative.argmax()])
    assert wrong[~normal].max() <= info.tiny
    low = -1 if name == "tanh" else 0
    assert value.min() >= low and value.max() <= 1


@pytest.mark.parametrize("name", kernels.activations)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_activation_is_its_formula(name, dtype, isa):
    x = np.concatenate([np.linspace(-85, 85, 100_001), np.linspace(-4, 4, 100_001)]).astype(dtype)
    exact = reference.ACTIVATIONS[name].of(x.astype(np.float64))
    value = kernels.activate(name, x, isa=isa)
    assert value.dtype == dtype
    wrong = np.abs(value - exact) / (1 + np.abs(exact))
    assert wrong.max() <= (2e-6 if dtype == "float32" else 4e-15), x[wrong.argmax()]


@pytest.mark.parametrize("name", kernels.activations)
@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values(name, dtype, isa):
    at_infinity = {
        "tanh": (-1, 1),
        "sigmoid": (0, 1),
        "relu": (0, np.inf),
        "linear": (-np.inf, np.inf),
        "hard_sigmoid": (0, 1),
        "elu": (-1, np.inf),
        "selu": (-ALPHA_SCALE, np.inf),
        "softplus": (0, np.inf),
        "exponential": (0, np.inf),
    }
    at_zero = {"sigmoid": 0.5, "hard_sigmoid": 0.5, "softplus": np.log(2), "exponential": 1}
    for count in (1, 40):
        for special, expected in (
            *zip((-np.inf, np.inf), at_infinity.get(name, ()), strict=False),
            *((zero, at_zero.get(name, 0)) for zero in (0.0, -0.0)),
            (np.nan, np.nan),
        ):
            value = kernels.activate(name, np.full(count, special, dtype), isa=isa)
            assert np.allclose(value, expected, rtol=1e-6, atol=0, equal_nan=True), (special, value[0])
    if name in ("tanh", "linear"):
        assert np.signbit(kernels.activate(name, np.array([-0.0], dtype), isa=isa))[0]


@pytest.mark.parametrize("name", kernels.activations)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_value_does_not_depend_on_its_neighbours(name, dtype, isa):
    x = np.random.default_rng(21).normal(size=67).astype(dtype) * 3
    alone = np.concatenate([kernels.activate(name, x[i : i + 1].copy(), isa=isa) for i in range(67)])
    for length in (2, 7, 8, 15, 16, 17, 31, 33, 67):
        assert kernels.activate(name, x[:length].copy(), isa=isa).tobytes() == alone[:length].tobytes()


def test_any_shape_is_kept(isa):
    for shape in ((), (0,), (3,), (2, 3, 4), (2, 0, 4)):
        x = np.ones(shape, np.float32)
        value = kernels.activate("tanh", x, isa=isa)
        assert value.shape == shape and (x == 1).all() and np.allclose(value, np.tanh(1))
