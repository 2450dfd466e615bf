"""Every optimizer, option and schedule takes the steps that Keras takes, in float64."""

from __future__ import annotations

import numpy as np
import pytest

from fastrnn import constraints, optimizers
from fastrnn.optimizers import schedules
from fastrnn.params import Parameter, adopt

SHAPES = {"kernel": (3, 8), "recurrent_kernel": (2, 8), "bias": (8,)}
STEPS = 7

OPTIONS = {
    "SGD": [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}],
    "RMSprop": [{}, {"momentum": 0.8}, {"centered": True}, {"momentum": 0.8, "centered": True, "rho": 0.7}],
    "Adam": [{}, {"amsgrad": True, "beta_2": 0.5}, {"epsilon": 1e-3, "beta_1": 0.7}],
    "AdamW": [{}, {"weight_decay": 0.3}],
    "Adamax": [{}, {"beta_2": 0.6}],
    "Adagrad": [{}, {"initial_accumulator_value": 0.0, "epsilon": 1e-3}],
    "Adadelta": [{"learning_rate": 1.0}, {"learning_rate": 1.0, "rho": 0.5}],
    "Nadam": [{}, {"beta_1": 0.7}],
    "Lion": [{}, {"beta_1": 0.5}],
}
COMMON = [
    {"weight_decay": 0.1},
    {"clipnorm": 0.5},
    {"clipvalue": 0.2},
    {"global_clipnorm": 0.5},
    {"global_clipnorm": 1e6},
    {"use_ema": True, "ema_momentum": 0.6},
    {"use_ema": True, "ema_momentum": 0.6, "ema_overwrite_frequency": 3},
    {"gradient_accumulation_steps": 3},
    {
        "gradient_accumulation_steps": 2,
        "use_ema": True,
        "ema_overwrite_frequency": 2,
        "weight_decay": 0.1,
        "clipnorm": 0.3,
    },
]
CASES = [(name, options) for name, several in OPTIONS.items() for options in several]
CASES += [(name, options) for name in ("SGD", "Adam", "Nadam") for options in COMMON]


@pytest.fixture
def keras(keras):
    """Keras with learning rates and schedules in float64."""
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    yield keras
    keras.config.set_floatx(before)


class Twins:
    """The same weights and gradients, given to Keras' optimizer and to ours."""

    def __init__(self, keras, theirs, ours):
        rng = np.random.default_rng(1)
        values = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
        self.rng, self.keras, self.theirs, self.ours = rng, keras, theirs, ours
        self.variables = [keras.Variable(v, dtype="float64", name=name) for name, v in values.items()]
        self.parameters = [Parameter(name, v, "float64", path=f"lstm/{name}") for name, v in values.items()]
        adopt(self.parameters)

    def build(self):
        self.theirs.build(self.variables)
        self.ours.build(self.parameters)
        return self

    def step(self):
        gradients = [self.rng.standard_normal(p.shape) * 10.0 ** self.rng.integers(-3, 2) for p in self.parameters]
        for p, gradient in zip(self.parameters, gradients, strict=True):
            p.gradient[...] = gradient
        self.ours.apply()
        self.theirs.apply([self.keras.ops.convert_to_tensor(g, dtype="float64") for g in gradients])

    def assert_equal(self):
        for p, variable in zip(self.parameters, self.variables, strict=True):
            np.testing.assert_allclose(p.values, variable.numpy(), rtol=1e-10, atol=1e-12, err_msg=p.path)


def twins(keras, name, options):
    return Twins(keras, getattr(keras.optimizers, name)(**options), getattr(optimizers, name)(**options))


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_takes_the_steps_of_keras(keras, name, options):
    pair = twins(keras, name, {"learning_rate": 0.01, **options}).build()
    for _ in range(STEPS):
        pair.step()
        pair.assert_equal()
    assert pair.ours.iterations == int(pair.theirs.iterations)
    if options.get("use_ema"):
        pair.theirs.finalize_variable_values(pair.variables)
        pair.ours.finalize()
        pair.assert_equal()


@pytest.mark.parametrize("name", OPTIONS)
def test_has_the_defaults_of_keras(keras, name):
    theirs, ours = getattr(keras.optimizers, name)().get_config(), getattr(optimizers, name)().get_config()
    assert ours.keys() - theirs.keys() == {"excluded_from_weight_decay"}
    assert theirs.keys() <= ours.keys()
    assert {k: ours[k] for k in theirs if k != "name"} == {k: v for k, v in theirs.items() if k != "name"}


def test_excludes_the_weights_that_keras_excludes_from_weight_decay(keras):
    pair = twins(keras, "AdamW", {"weight_decay": 0.5, "learning_rate": 0.1})
    pair.theirs.exclude_from_weight_decay(var_list=[pair.variables[0]], var_names=["bias"])
    pair.ours.exclude_from_weight_decay(var_list=[pair.parameters[0]], var_names=["bias"])
    pair.build()
    for _ in range(STEPS):
        pair.step()
        pair.assert_equal()


def test_applies_constraints_when_keras_does(keras):
    pair = twins(keras, "Adam", {"learning_rate": 0.1, "use_ema": True, "gradient_accumulation_steps": 2}).build()
    pair.variables[0].constraint = keras.constraints.MinMaxNorm(0.5, 0.9, rate=0.7)
    pair.parameters[0].constraint = constraints.MinMaxNorm(0.5, 0.9, rate=0.7)
    pair.variables[1].constraint, pair.parameters[1].constraint = keras.constraints.NonNeg(), constraints.NonNeg()
    for _ in range(STEPS):
        pair.step()
        pair.assert_equal()


def test_learning_rate_may_change_between_steps_as_in_keras(keras):
    pair = twins(keras, "Adam", {}).build()
    for learning_rate in (0.1, 0.0, 0.01):
        pair.theirs.learning_rate = pair.ours.learning_rate = learning_rate
        pair.step()
        pair.assert_equal()


def test_schedule_counts_calls_and_decay_follows_it_as_in_keras(keras):
    options = {"gradient_accumulation_steps": 2, "weight_decay": 0.1, "momentum": 0.5}
    pair = Twins(
        keras,
        keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.5, 3, 0.5), **options),
        optimizers.SGD(schedules.ExponentialDecay(0.5, 3, 0.5), **options),
    ).build()
    for _ in range(STEPS):
        pair.step()
        pair.assert_equal()
        assert pair.ours.learning_rate == pytest.approx(float(pair.theirs.learning_rate), rel=1e-12)


SCHEDULES = [
    ("ExponentialDecay", (0.1, 10, 0.7)),
    ("ExponentialDecay", (0.1, 10, 0.7, True)),
    ("PiecewiseConstantDecay", ([5, 20, 21], [1.0, 0.5, 0.25, 0.1])),
    ("PolynomialDecay", (0.1, 30)),
    ("PolynomialDecay", (0.1, 30, 0.01, 2.0)),
    ("PolynomialDecay", (0.1, 30, 0.01, 0.5, True)),
    ("InverseTimeDecay", (0.1, 10, 0.7)),
    ("InverseTimeDecay", (0.1, 10, 0.7, True)),
    ("CosineDecay", (0.1, 40)),
    ("CosineDecay", (0.1, 40, 0.2)),
    ("CosineDecay", (0.0, 40, 0.2, "warm", 0.5, 13)),
    ("CosineDecay", (0.1, 40, 0.2, "warm", 0.5, 0)),
    ("CosineDecayRestarts", (0.1, 7)),
    ("CosineDecayRestarts", (0.1, 7, 1.0, 0.8, 0.1)),
    ("CosineDecayRestarts", (0.1, 9, 1.5, 0.8, 0.1)),
]


@pytest.mark.parametrize(("name", "arguments"), SCHEDULES, ids=str)
def test_schedule_gives_the_rates_of_keras(keras, name, arguments):
    theirs, ours = getattr(keras.optimizers.schedules, name)(*arguments), getattr(schedules, name)(*arguments)
    assert {k: v for k, v in theirs.get_config().items()} == ours.get_config()
    for step in (*range(70), 100, 1000, 12345):
        assert ours(step) == pytest.approx(float(theirs(np.int64(step))), rel=1e-9, abs=1e-15), step
