"""Dropout of inputs and of states: how many masks, what scale, which stream."""

from __future__ import annotations

import numpy as np
import pytest

from fastrnn import rng
from fastrnn.layers import GRU, LSTM, SimpleRNN
from fastrnn.states import Context, StateStore

FEATURES, UNITS = 5, 4
ALL = [LSTM, GRU, SimpleRNN]


def make(cls, **options):
    layer = cls(UNITS, **{"seed": 3, "dtype": "float64", **options})
    layer.build((None, None, FEATURES))
    return layer


def training():
    return Context(training=True, record=True, store=StateStore())


def array(*shape):
    return np.random.default_rng(0).normal(size=shape)


@pytest.mark.parametrize(("cls", "gates"), [(LSTM, 4), (GRU, 3), (SimpleRNN, 1)])
def test_every_gate_has_masks_of_its_own_if_the_state_is_dropped(cls, gates):
    def shapes(**rates):
        masks = make(cls, **rates).dropout_masks(7, training())
        return [None if m is None else m.shape for m in masks]

    assert shapes(dropout=0.5) == [(1, 7, FEATURES), None]
    assert shapes(recurrent_dropout=0.5) == [None, (gates, 7, UNITS)]
    assert shapes(dropout=0.5, recurrent_dropout=0.5) == [(gates, 7, FEATURES), (gates, 7, UNITS)]
    assert shapes() == [None, None]


@pytest.mark.parametrize("cls", [LSTM, GRU])
def test_masks_of_gates_differ(cls):
    x, h = make(cls, dropout=0.5, recurrent_dropout=0.5).dropout_masks(50, training())
    for masks in (x, h):
        assert all(not np.array_equal(masks[0], other) for other in masks[1:])
    assert not np.array_equal(x[:, :, :UNITS], h)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_factors_are_0_or_scaled_up_and_1_on_average(rate):
    for mask in make(GRU, dropout=rate, recurrent_dropout=rate).dropout_masks(3000, training()):
        assert np.allclose(np.unique(mask), [0, 1 / (1 - rate)])
        assert abs((mask == 0).mean() - rate) < 0.01
        assert abs(mask.mean() - 1) < 0.03


@pytest.mark.parametrize("cls", ALL)
def test_input_dropout_is_the_layer_on_dropped_inputs_the_same_at_every_step(cls):
    layer, x = make(cls, dropout=0.5), array(3, 6, FEATURES)
    factors, _ = layer.dropout_masks(3, training())
    y, _ = layer.forward(x, None, training())
    assert np.allclose(y, layer(x * factors[0][:, None]), rtol=0, atol=1e-14)
    assert not np.allclose(y, layer(x))


def test_recurrent_dropout_scales_what_the_recurrent_weights_see():
    """h_t = x_t W + (h_{t-1} * mask) U, with a linear cell, by hand."""
    layer, x = make(SimpleRNN, recurrent_dropout=0.5, activation="linear", return_sequences=True), array(3, 4, FEATURES)
    _, (factors,) = layer.dropout_masks(3, training())
    kernel, recurrent_kernel, _ = layer.get_weights()
    h, expected = np.zeros((3, UNITS)), []
    for t in range(4):
        h = x[:, t] @ kernel + (h * factors) @ recurrent_kernel
        expected.append(h)
    y, _ = layer.forward(x, None, training())
    assert np.allclose(y, np.stack(expected, axis=1), rtol=0, atol=1e-13)


def test_a_gru_keeps_the_undropped_state():
    """With the update gate shut (z = 1) the state passes whole, whatever is dropped before the products."""
    layer = make(GRU, recurrent_dropout=0.5, return_state=True)
    kernel, recurrent_kernel, bias = (np.zeros(w.shape) for w in layer.weights)
    bias[0, :UNITS] = 1000
    layer.set_weights([kernel, recurrent_kernel, bias])
    start = array(3, UNITS)
    (_, h), _ = layer.forward([array(3, 6, FEATURES), start], None, training())
    assert np.array_equal(h, start)


def test_dropout_has_the_plain_layer_as_its_mean():
    """Over many rows that hold the same sequence of one step, through a linear cell."""
    layer = make(SimpleRNN, dropout=0.5, activation="linear")
    x = np.repeat(array(1, 1, FEATURES), 20000, axis=0)
    y, _ = layer.forward(x, None, training())
    assert np.allclose(y.mean(0), layer(x[:1])[0], atol=0.05)


@pytest.mark.parametrize("options", [{"dropout": 0.5}, {"recurrent_dropout": 0.5}])
@pytest.mark.parametrize("cls", ALL)
def test_nothing_is_dropped_outside_training(cls, options):
    layer, x = make(cls, **options), array(3, 6, FEATURES)
    plain = make(cls)
    plain.set_weights(layer.get_weights())
    assert np.array_equal(layer(x), plain(x))
    assert np.array_equal(layer(x, training=False), plain(x))
    assert not np.allclose(layer(x, training=True), plain(x))


@pytest.mark.parametrize("cls", ALL)
def test_a_seed_gives_the_same_masks_again_and_every_call_new_ones(cls):
    options = {"dropout": 0.5, "recurrent_dropout": 0.3}
    layer, twin, x = make(cls, **options), make(cls, **options), array(3, 6, FEATURES)
    twin.set_weights(layer.get_weights())
    first, second = layer(x, training=True), layer(x, training=True)
    assert not np.allclose(first, second)
    assert np.array_equal(twin(x, training=True), first)
    assert np.array_equal(twin(x, training=True), second)
    other = make(cls, **options, seed=4)
    other.set_weights(layer.get_weights())
    assert not np.allclose(other(x, training=True), first)


def test_without_a_seed_the_global_one_decides():
    results = []
    for seed in (1, 1, 2):
        rng.set_random_seed(seed)
        layer = make(LSTM, dropout=0.5, seed=None)
        results.append(layer(array(3, 6, FEATURES), training=True))
    assert np.array_equal(results[0], results[1])
    assert not np.allclose(results[0], results[2])


def test_float32_and_float64_drop_the_same_units():
    single, double = (
        make(GRU, dropout=0.3, recurrent_dropout=0.3, dtype=dtype).dropout_masks(9, training())
        for dtype in ("float32", "float64")
    )
    for a, b in zip(single, double, strict=True):
        assert (a.dtype, b.dtype) == (np.dtype("float32"), np.dtype("float64"))
        assert np.array_equal(a == 0, b == 0)


def test_a_layer_without_dropout_draws_no_random_numbers():
    context = training()
    layer = make(LSTM)
    layer.forward(array(3, 6, FEATURES), None, context)
    assert context.store.get_state([layer]) == {}
