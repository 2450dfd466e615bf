"""Penalties and projections of weights: gradients, formulas, configuration, and Keras' numbers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from fastrnn import constraints, registry, regularizers

REGULARIZERS = [
    regularizers.L1(0.3),
    regularizers.L2(0.2),
    regularizers.L1L2(l1=0.1, l2=0.2),
    regularizers.L1L2(l2=0.2),
    regularizers.OrthogonalRegularizer(0.7),
    regularizers.OrthogonalRegularizer(0.7, mode="columns"),
]
CONSTRAINTS = [
    constraints.MaxNorm(1.5),
    constraints.MaxNorm(1.5, axis=1),
    constraints.MaxNorm(1.5, axis=[0, 1]),
    constraints.NonNeg(),
    constraints.UnitNorm(axis=0),
    constraints.MinMaxNorm(min_value=1.0, max_value=1.5),
    constraints.MinMaxNorm(min_value=1.0, max_value=1.5, rate=0.3, axis=1),
]
every_regularizer = pytest.mark.parametrize("regularizer", REGULARIZERS, ids=repr)
every_constraint = pytest.mark.parametrize("constraint", CONSTRAINTS, ids=repr)


def weights(dtype: str = "float64") -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.choice([-1, 1], (4, 5)) * rng.uniform(0.1, 1.5, (4, 5))).astype(dtype)


@every_regularizer
def test_gradient_is_the_derivative_of_the_penalty(regularizer: Any) -> None:
    w, step = weights(), 1e-6
    value, dw = regularizer.value_and_gradient(w)
    assert value == regularizer(w) and isinstance(value, float)
    for i in np.ndindex(w.shape):
        up, down = w.copy(), w.copy()
        up[i] += step
        down[i] -= step
        assert dw[i] == pytest.approx((regularizer(up) - regularizer(down)) / (2 * step), rel=1e-6, abs=1e-8)


@every_regularizer
def test_penalty_keeps_float32_and_its_argument(regularizer: Any) -> None:
    w = weights("float32")
    value, dw = regularizer.value_and_gradient(w)
    value64, dw64 = regularizer.value_and_gradient(w.astype("float64"))
    assert dw.dtype == np.float32 and value == pytest.approx(value64, rel=1e-6)
    np.testing.assert_allclose(dw, dw64, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(w, weights("float32"))


@pytest.mark.parametrize("thing", [*REGULARIZERS, *CONSTRAINTS], ids=repr)
def test_configuration_comes_back(thing: Any) -> None:
    again = registry.deserialize(json.loads(json.dumps(registry.serialize(thing))))
    assert type(again) is type(thing) and repr(again) == repr(thing)
    np.testing.assert_array_equal(again(weights()), thing(weights()))


def test_strings_give_a_hundredth_each() -> None:
    for name in ("l1", "l2", "l1_l2"):
        found = regularizers.get(name)
        assert {v for v in found.get_config().values()} == {0.01}
    assert regularizers.L1L2(l1=0.5).l2 == 0
    assert regularizers.get(None) is None and constraints.get(None) is None
    assert isinstance(constraints.get("max_norm"), constraints.MaxNorm)


def test_orthogonal_rows_cost_nothing_and_zero_rows_do_no_harm() -> None:
    regularizer = regularizers.OrthogonalRegularizer(1.0)
    assert regularizer(np.eye(3)) == 0
    assert regularizer(np.ones((3, 4))) == pytest.approx(1.0)
    value, dw = regularizer.value_and_gradient(np.array([[0.0, 0], [1, 2]]))
    assert value == 0 and np.isfinite(dw).all()


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="L2: l2 must be a number >= 0; received -1"):
        regularizers.L2(-1)
    with pytest.raises(ValueError, match="L1: l1 must be"):
        regularizers.L1(float("nan"))
    with pytest.raises(ValueError, match="mode must be rows or columns"):
        regularizers.OrthogonalRegularizer(mode="row")
    with pytest.raises(ValueError, match=r"expects a matrix; received the shape \(3,\)"):
        regularizers.OrthogonalRegularizer().value_and_gradient(np.ones(3))
    with pytest.raises(ValueError, match="needs value_and_gradient"):
        regularizers.get(lambda w: 0.0)
    with pytest.raises(ValueError, match="unknown regularizer 'l3'"):
        regularizers.get("l3")
    with pytest.raises(ValueError, match="unknown constraint 'max'"):
        constraints.get("max")


def test_norms_after_a_constraint() -> None:
    w = 3 * weights()
    assert np.linalg.norm(constraints.MaxNorm(1.5)(w), axis=0).max() == pytest.approx(1.5, rel=1e-6)
    np.testing.assert_allclose(constraints.MaxNorm(100)(w), w, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(constraints.UnitNorm(axis=1)(w), axis=1), 1, rtol=1e-6)
    norms = np.linalg.norm(constraints.MinMaxNorm(1.0, 1.5)(np.hstack([w, 0.01 * w])), axis=0)
    np.testing.assert_allclose(norms, [1.5] * 5 + [1] * 5, rtol=1e-4)
    part = np.linalg.norm(constraints.MinMaxNorm(1.0, 1.5, rate=0.25)(np.array([[4.0], [3.0]])))
    assert part == pytest.approx(0.75 * 5 + 0.25 * 1.5, rel=1e-6)
    np.testing.assert_array_equal(constraints.NonNeg()(np.array([-1.0, 2])), [0, 2])


@every_constraint
def test_constraint_keeps_float32_and_its_argument(constraint: Any) -> None:
    w = weights("float32")
    assert constraint(w).dtype == np.float32 and constraint(w).shape == w.shape
    np.testing.assert_array_equal(w, weights("float32"))


def test_a_constraint_may_be_a_function() -> None:
    def halve(w: np.ndarray) -> np.ndarray:
        return w / 2

    assert constraints.get(halve) is halve


@every_regularizer
def test_penalty_and_gradient_equal_those_of_keras(regularizer: Any, keras: Any, torch: Any) -> None:
    config = dict(regularizer.get_config())
    theirs = getattr(keras.regularizers, type(regularizer).__name__)(**config)
    w = torch.from_numpy(weights()).requires_grad_(True)
    value = theirs(w)
    value.backward()
    ours, dw = regularizer.value_and_gradient(weights())
    assert ours == pytest.approx(value.item(), rel=1e-7)
    np.testing.assert_allclose(dw, w.grad.numpy(), rtol=1e-6, atol=1e-8)


@every_constraint
def test_projection_equals_that_of_keras(constraint: Any, keras: Any, torch: Any) -> None:
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in constraint.get_config().items()}
    theirs = getattr(keras.constraints, type(constraint).__name__)(**config)
    np.testing.assert_allclose(constraint(weights()), theirs(torch.from_numpy(weights())).numpy(), rtol=1e-12)


def test_defaults_are_those_of_keras(keras: Any) -> None:
    for name in ("L1", "L2", "OrthogonalRegularizer"):
        theirs = getattr(keras.regularizers, name)().get_config()
        assert getattr(regularizers, name)().get_config() == pytest.approx(theirs)
    for name in ("MaxNorm", "NonNeg", "UnitNorm", "MinMaxNorm"):
        assert getattr(constraints, name)().get_config() == getattr(keras.constraints, name)().get_config()
