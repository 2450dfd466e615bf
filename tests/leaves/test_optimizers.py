"""Optimizers: their formulas written out, their memory, their state, their checks."""

from __future__ import annotations

import copy
import json
import math
import pickle
from dataclasses import dataclass

import numpy as np
import pytest

from fastrnn import optimizers
from fastrnn.optimizers import optimizer as engine
from fastrnn.optimizers import schedules
from fastrnn.params import Parameter, adopt
from fastrnn.registry import names, register

NAMES = ["SGD", "RMSprop", "Adam", "AdamW", "Adamax", "Adagrad", "Adadelta", "Nadam", "Lion"]
OPTIONS = {
    "SGD": {"momentum": 0.9, "nesterov": True},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "Adam": {"amsgrad": True, "use_ema": True, "weight_decay": 0.01},
    "Nadam": {"gradient_accumulation_steps": 2},
}
every_optimizer = pytest.mark.parametrize("name", NAMES)


def make(name, **options):
    return getattr(optimizers, name)(**{**OPTIONS.get(name, {}), **options})


def parameters(dtype="float64", seed=0, shapes=((3, 8), (2, 8), (8,))):
    rng = np.random.default_rng(seed)
    found = [Parameter(f"w{i}", rng.standard_normal(s), dtype, path=f"layer/w{i}") for i, s in enumerate(shapes)]
    adopt(found)
    return found


def train(optimizer, weights, steps, seed=0):
    """`steps` updates with gradients that depend on `seed` and on the number of the step."""
    for i in range(steps):
        rng = np.random.default_rng([seed, i])
        for p in weights:
            p.gradient[...] = rng.standard_normal(p.shape)
        optimizer.apply()


def values(weights):
    return [p.numpy() for p in weights]


def assert_same_bits(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


def test_first_step_of_adam_is_the_learning_rate():
    """The bias correction makes m / sqrt(v) = sign(g) at the first step, whatever the size of the gradient."""
    weights = parameters()
    before = values(weights)
    optimizer = optimizers.Adam(0.25, epsilon=0.0)
    optimizer.build(weights)
    for p in weights:
        p.gradient[...] = np.where(np.arange(p.size).reshape(p.shape) % 2, 1e-4, -30.0)
    optimizer.apply()
    for p, w in zip(weights, before, strict=True):
        np.testing.assert_allclose(p.values, w - 0.25 * np.sign(p.gradient), rtol=1e-12)


def test_adam_equals_its_formula_for_one_weight():
    w, m, v = 0.5, 0.0, 0.0
    p = Parameter("w", [w], "float64")
    optimizer = optimizers.Adam(0.1, beta_1=0.8, beta_2=0.9, epsilon=1e-3)
    optimizer.build([p])
    for t, g in enumerate((0.3, -2.0, 1e-3, 0.0, 5.0), start=1):
        m = 0.8 * m + 0.2 * g
        v = 0.9 * v + 0.1 * g * g
        w -= 0.1 * math.sqrt(1 - 0.9**t) / (1 - 0.8**t) * m / (math.sqrt(v) + 1e-3)
        p.gradient[...] = g
        optimizer.apply()
        assert p.values[0] == pytest.approx(w, rel=1e-13)


def test_sgd_takes_the_steps_of_torch(torch):
    weights = parameters()
    theirs = [torch.tensor(p.numpy(), requires_grad=True) for p in weights]
    ours = optimizers.SGD(0.1)
    ours.build(weights)
    other = torch.optim.SGD(theirs, lr=0.1)
    for _ in range(3):
        other.zero_grad()
        sum((t**3).sum() for t in theirs).backward()
        other.step()
        for p in weights:
            p.gradient[...] = 3 * p.values**2
        ours.apply()
    for p, t in zip(weights, theirs, strict=True):
        np.testing.assert_allclose(p.values, t.detach().numpy(), rtol=1e-12)


@every_optimizer
def test_step_lowers_a_quadratic(name):
    weights = parameters()
    optimizer = make(name, learning_rate=1.0 if name == "Adadelta" else 0.01)
    optimizer.build(weights)

    def loss():
        return sum(float((p.values**2).sum()) for p in weights)

    before = loss()
    for _ in range(40):
        for p in weights:
            p.gradient[...] = 2 * p.values
        optimizer.apply()
    optimizer.finalize()
    assert loss() < before


@every_optimizer
def test_chunks_change_no_bit(name, monkeypatch):
    whole, pieces = parameters("float32"), parameters("float32")
    one, other = make(name), make(name)
    one.build(whole)
    train(one, whole, 4)
    monkeypatch.setattr(engine, "CHUNK", 5)
    other.build(pieces)
    train(other, pieces, 4)
    assert_same_bits(values(whole), values(pieces))


@every_optimizer
def test_float32_follows_float64(name):
    single, double = parameters("float32"), parameters("float64")
    for weights in (single, double):
        optimizer = make(name)
        optimizer.build(weights)
        train(optimizer, weights, 5)
    for p, q in zip(single, double, strict=True):
        assert p.values.dtype == np.float32
        np.testing.assert_allclose(p.values, q.values, rtol=1e-5, atol=1e-6)


@every_optimizer
def test_several_blocks_and_dtypes_train_like_one(name):
    together = parameters("float64")
    apart = [Parameter(p.name, p.values, "float64", path=p.path) for p in together]
    stranger = Parameter("single", np.ones(4), "float32")
    one, other = make(name), make(name)
    one.build(together)
    other.build([apart[0], stranger, *apart[1:]])
    for i in range(4):
        rng = np.random.default_rng(i)
        for p, q in zip(together, apart, strict=True):
            p.gradient[...] = q.gradient[...] = rng.standard_normal(p.shape)
        stranger.gradient[...] = 1.0
        one.apply()
        other.apply()
    assert_same_bits(values(together), values(apart))
    assert stranger.values.dtype == np.float32
    assert (stranger.values < 1).all()


@every_optimizer
def test_weights_that_are_not_trained_stay(name):
    weights = parameters()
    frozen = weights[1].numpy()
    alone = [parameters()[i] for i in (0, 2)]
    one, other = make(name), make(name)
    one.build([weights[0], weights[2]])
    other.build(alone)
    for i in range(3):
        rng = np.random.default_rng(i)
        weights[1].gradient[...] = 1.0
        for p, q in zip((weights[0], weights[2]), alone, strict=True):
            p.gradient[...] = q.gradient[...] = rng.standard_normal(p.shape)
        one.apply()
        other.apply()
    np.testing.assert_array_equal(weights[1].values, frozen)
    assert_same_bits([weights[0].values, weights[2].values], values(alone))


@every_optimizer
def test_state_continues_bit_for_bit(name):
    straight, stopped = parameters("float32"), parameters("float32")
    one, first = make(name), make(name)
    one.build(straight)
    first.build(stopped)
    train(one, straight, 7)
    train(first, stopped, 3)
    state = {key: array.copy() for key, array in first.state().items()}
    config = json.loads(json.dumps(optimizers.serialize(first)))

    resumed = [Parameter(p.name, p.values, "float32", path=p.path) for p in stopped]
    second = optimizers.deserialize(config)
    second.build(resumed)
    second.set_state(state)
    assert second.iterations == first.iterations
    for i in range(3, 7):
        rng = np.random.default_rng([0, i])
        for p in resumed:
            p.gradient[...] = rng.standard_normal(p.shape)
        second.apply()
    assert_same_bits(values(straight), values(resumed))
    for key, array in one.state().items():
        np.testing.assert_array_equal(second.state()[key], array, err_msg=key)


def test_state_is_a_copy_by_the_paths_of_the_weights():
    weights = parameters()
    optimizer = optimizers.Adam()
    optimizer.build(weights)
    train(optimizer, weights, 1)
    state = optimizer.state()
    assert state.keys() == {
        "iterations",
        "learning_rate",
        *(f"{slot}/layer/w{i}" for slot in ("momentum", "velocity") for i in range(3)),
    }
    assert state["momentum/layer/w0"].shape == (3, 8)
    before = state["momentum/layer/w0"].copy()
    train(optimizer, weights, 1)
    np.testing.assert_array_equal(state["momentum/layer/w0"], before)


def test_state_of_another_model_is_refused_and_changes_nothing():
    weights = parameters()
    optimizer = optimizers.Nadam()
    optimizer.build(weights)
    train(optimizer, weights, 2)
    state = optimizer.state()
    for other, message in (
        ({k: v for k, v in state.items() if k != "velocity/layer/w1"}, "missing.*velocity/layer/w1"),
        ({**state, "velocity/other": np.zeros(3)}, "unknown.*velocity/other"),
        ({**state, "momentum/layer/w2": np.zeros(9)}, r"momentum/layer/w2.*\(8,\).*\(9,\)"),
        ({k: v for k, v in state.items() if k != "u_product"}, "u_product"),
    ):
        with pytest.raises(ValueError, match=message):
            optimizer.set_state(other)
        for key, array in optimizer.state().items():
            np.testing.assert_array_equal(array, state[key], err_msg=key)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_train_on_their_own_weights(duplicate):
    weights = parameters()
    optimizer = make("Adam")
    optimizer.build(weights)
    train(optimizer, weights, 2)
    twin_optimizer, twin_weights = duplicate((optimizer, weights))
    before = values(weights)
    train(twin_optimizer, twin_weights, 2, seed=1)
    assert_same_bits(values(weights), before)
    train(optimizer, weights, 2, seed=1)
    assert_same_bits(values(weights), values(twin_weights))


def test_follows_weights_that_a_model_adopts_later():
    weights = [Parameter("a", np.ones(3), "float64"), Parameter("b", np.ones(2), "float64")]
    optimizer = optimizers.SGD(0.5)
    optimizer.build(weights[:1])
    train(optimizer, weights[:1], 1)
    adopt(weights)
    weights[0].assign(np.ones(3))
    weights[0].gradient[...] = 1.0
    optimizer.apply()
    np.testing.assert_array_equal(weights[0].values, 0.5)
    np.testing.assert_array_equal(weights[1].values, 1.0)


def test_weights_that_come_and_go_keep_their_momentum():
    a, b = Parameter("a", [0.0], "float64"), Parameter("b", [0.0], "float64")
    optimizer = optimizers.SGD(1.0, momentum=0.5)
    optimizer.build([a])
    a.gradient[...] = 1.0
    optimizer.apply()
    optimizer.build([a, b])
    b.gradient[...] = 1.0
    optimizer.apply()
    assert a.values[0] == -2.5
    assert b.values[0] == -1.0
    optimizer.build([b])
    optimizer.apply()
    assert b.values[0] == -2.5
    optimizer.build([a])
    optimizer.apply()
    assert a.values[0] == -2.5 - 1.75, "the momentum 1.5 of its last step is kept, halved, and 1 added"


def test_built_again_it_trains_the_new_weights_only():
    weights = parameters()
    optimizer = optimizers.SGD(1.0)
    for p in weights:
        before = values(weights)
        optimizer.build([p])
        p.gradient[...] = 1.0
        optimizer.apply()
        for q, w in zip(weights, before, strict=True):
            np.testing.assert_array_equal(q.values, w - 1.0 if q is p else w)


def test_apply_gives_the_block_a_new_version():
    weights = parameters()
    optimizer = optimizers.SGD(gradient_accumulation_steps=2)
    optimizer.build(weights)
    before = weights[0].version
    optimizer.apply()
    assert weights[0].version == before
    optimizer.apply()
    assert weights[0].version != before


def test_clipping_keeps_small_gradients_as_they_are():
    for kind in ("clipnorm", "clipvalue", "global_clipnorm"):
        weights = parameters()
        optimizer = optimizers.SGD(**{kind: 5.0})
        optimizer.build(weights)
        for p in weights:
            p.gradient[...] = 0.1
        optimizer.apply()
        for p in weights:
            np.testing.assert_array_equal(p.gradient, 0.1)


def test_clips_each_array_or_all_together():
    def gradients(**clip):
        weights = [Parameter("a", [3.0, 4.0], "float64"), Parameter("b", [12.0], "float64")]
        optimizer = optimizers.SGD(**clip)
        optimizer.build(weights)
        for p in weights:
            p.gradient[...] = p.values
        optimizer.apply()
        return [*weights[0].gradient, *weights[1].gradient]

    assert gradients(clipnorm=1.0) == pytest.approx([0.6, 0.8, 1.0])
    assert gradients(global_clipnorm=6.5) == pytest.approx([1.5, 2.0, 6.0])
    assert gradients(clipvalue=3.5) == pytest.approx([3.0, 3.5, 3.5])


def test_schedule_counts_steps_and_cannot_be_overwritten():
    weights = parameters()
    optimizer = optimizers.SGD(schedules.PiecewiseConstantDecay([1], [0.5, 0.25]))
    optimizer.build(weights)
    rates = []
    for _ in range(4):
        rates.append(optimizer.learning_rate)
        optimizer.apply()
    assert rates == [0.5, 0.5, 0.25, 0.25]
    with pytest.raises(TypeError, match="SGD: learning_rate follows PiecewiseConstantDecay"):
        optimizer.learning_rate = 0.1
    optimizer.learning_rate = schedules.InverseTimeDecay(1.0, 4, 1.0)
    assert optimizer.learning_rate == 0.5


def test_learning_rate_may_be_a_function():
    weights = parameters()
    rate = [0.5]
    optimizer = optimizers.SGD(lambda: rate[0])
    optimizer.build(weights)
    rate[0] = 0.125
    before = values(weights)
    for p in weights:
        p.gradient[...] = 1.0
    optimizer.apply()
    np.testing.assert_allclose(weights[0].values, before[0] - 0.125)


def test_restarts_begin_at_the_top():
    schedule = schedules.CosineDecayRestarts(1.0, 10, t_mul=3.0, m_mul=0.5)
    assert [schedule(s) for s in (0, 10, 40, 130)] == [1.0, 0.5, 0.25, 0.125]
    assert schedule(5) == pytest.approx(0.5)
    assert schedule(25) == pytest.approx(0.25)


def test_registered_optimizers_are_all_tested():
    assert {type(optimizers.get(name)).__name__ for name in names("optimizer")} == set(NAMES)


@every_optimizer
def test_configuration_goes_there_and_back(name):
    rate = schedules.CosineDecay(0.1, 100, warmup_target=0.3, warmup_steps=10)
    optimizer = make(name, learning_rate=rate, clipvalue=0.5)
    config = json.loads(json.dumps(optimizers.serialize(optimizer)))
    twin = optimizers.get(config)
    assert type(twin) is type(optimizer)
    assert twin.get_config() == optimizer.get_config()
    assert twin.learning_rate == optimizer.learning_rate == 0.1


@every_optimizer
def test_is_found_by_name_in_any_case(name):
    for written in (name, name.lower(), name.upper()):
        assert type(optimizers.get(written)) is getattr(optimizers, name)
    keras_style = {"class_name": name, "config": {"learning_rate": 0.5}}
    assert optimizers.get(keras_style).learning_rate == 0.5
    instance = make(name)
    assert optimizers.get(instance) is instance
    assert optimizers.get(getattr(optimizers, name)).learning_rate > 0


def test_arguments_have_the_places_that_keras_gives_them():
    assert optimizers.AdamW(0.1, 0.2, 0.3, 0.4).get_config().items() >= {
        "learning_rate": 0.1, "weight_decay": 0.2, "beta_1": 0.3, "beta_2": 0.4,
    }.items()  # fmt: skip
    assert optimizers.SGD(0.1, 0.2, True).get_config().items() >= {"momentum": 0.2, "nesterov": True}.items()
    assert optimizers.RMSprop(0.1, 0.2, 0.3, 0.4, True).epsilon == 0.4
    assert optimizers.Adam(0.1, 0.2, 0.3, 0.4, True).amsgrad is True


def test_a_user_can_write_one():
    @register("optimizer", "signed")
    @dataclass(eq=False, repr=False)
    class SignSGD(optimizers.Optimizer):
        @staticmethod
        def step(w, g, scratch, learning_rate):
            w -= learning_rate * np.sign(g)

    try:
        weights = parameters()
        before = values(weights)
        optimizer = optimizers.get("signed")
        optimizer.build(weights)
        train(optimizer, weights, 1)
        np.testing.assert_allclose(weights[0].values, before[0] - 0.001 * np.sign(weights[0].gradient))
    finally:
        from fastrnn import registry

        for key in ("SignSGD", "sign_sgd", "signed"):
            del registry._entries["optimizer"][key]


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: optimizers.Adam(-1.0), "Adam: learning_rate must be .*received -1.0"),
        (lambda: optimizers.Adam(float("nan")), "learning_rate must be .*nan"),
        (lambda: optimizers.Adam(float("inf")), "learning_rate must be .*inf"),
        (lambda: optimizers.Adam("fast"), "learning_rate must be .*'fast'"),
        (lambda: optimizers.Adam(None), "learning_rate must be .*None"),
        (lambda: optimizers.Adam([0.1]), r"learning_rate must be .*\[0.1\]"),
        (lambda: setattr(optimizers.Adam(), "learning_rate", -0.1), "learning_rate must be .*-0.1"),
        (lambda: optimizers.Adam(beta_1=1.0), r"Adam: beta_1 must lie in \[0, 1\); received 1.0"),
        (lambda: optimizers.Adam(beta_2=-0.1), "beta_2"),
        (lambda: optimizers.Adam(epsilon=-1e-7), "epsilon"),
        (lambda: optimizers.SGD(momentum=1.5), "momentum"),
        (lambda: optimizers.RMSprop(rho=2.0), "rho"),
        (lambda: optimizers.Lion(beta_1=0.0), "beta_1"),
        (lambda: optimizers.AdamW(weight_decay=None), "AdamW: weight_decay"),
        (lambda: optimizers.SGD(weight_decay=-1.0), "weight_decay"),
        (lambda: optimizers.SGD(clipnorm=1.0, clipvalue=1.0), "clipnorm and clipvalue"),
        (lambda: optimizers.SGD(clipnorm=-1.0), "clipnorm must be positive"),
        (lambda: optimizers.SGD(global_clipnorm=0.0), "global_clipnorm must be positive"),
        (lambda: optimizers.SGD(gradient_accumulation_steps=1), "gradient_accumulation_steps"),
        (lambda: optimizers.SGD(use_ema=True, ema_momentum=1.5), "ema_momentum"),
        (lambda: optimizers.SGD(use_ema=True, ema_overwrite_frequency=0), "ema_overwrite_frequency"),
        (lambda: optimizers.SGD().apply(), "SGD has nothing to train"),
        (lambda: optimizers.get("adan"), "unknown optimizer 'adan'; known are: .*adam"),
        (lambda: optimizers.get(3), "received 3"),
        (lambda: optimizers.get(None), "received None"),
        (lambda: schedules.PiecewiseConstantDecay([1, 2], [0.1, 0.2]), "2 boundaries and 2 values"),
        (lambda: schedules.PiecewiseConstantDecay([2, 1], [0.1, 0.2, 0.3]), "rising"),
        (lambda: schedules.CosineDecay(0.1, 0), "CosineDecay: decay_steps must be positive; received 0"),
        (lambda: schedules.CosineDecayRestarts(0.1, 10, t_mul=0.5), "t_mul"),
    ],
)
def test_bad_arguments_are_named(make_it, message):
    with pytest.raises(ValueError, match=message):
        make_it()


def test_bad_rate_of_a_schedule_is_an_error_before_any_weight_changes():
    weights = parameters()
    before = values(weights)
    optimizer = optimizers.SGD(schedules.ExponentialDecay(-1.0, 10, 0.5))
    optimizer.build(weights)
    with pytest.raises(ValueError, match="learning_rate"):
        train(optimizer, weights, 1)
    assert_same_bits(values(weights), before)


def test_exclusion_from_weight_decay_comes_before_build_and_is_kept():
    weights = parameters()
    optimizer = optimizers.SGD(0.5, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["w1"])
    twin = optimizers.get(optimizers.serialize(optimizer))
    twin.build(weights)
    before = values(weights)
    twin.apply()
    np.testing.assert_allclose(weights[0].values, 0.75 * before[0])
    np.testing.assert_array_equal(weights[1].values, before[1])
    with pytest.raises(ValueError, match="before the optimizer is built"):
        twin.exclude_from_weight_decay(var_names=["w0"])


def test_a_learning_rate_of_ones_own_is_asked_in_every_step():
    class Warm(optimizers.SGD):
        @property
        def learning_rate(self):
            return self._learning_rate * min(1.0, (self.iterations + 1) / 10)

        @learning_rate.setter
        def learning_rate(self, value):
            self._learning_rate = float(value)

    (w,), optimizer = parameters(shapes=((3,),)), Warm(learning_rate=1.0)
    optimizer.build([w])
    for step in range(1, 4):
        before = w.numpy()
        w.gradient[...] = 1
        optimizer.apply()
        np.testing.assert_allclose(before - w.numpy(), step / 10)
