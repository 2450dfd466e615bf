"""States going in, coming out, and staying from call to call."""

from __future__ import annotations

import numpy as np
import pytest

from fastrnn.states import Context, StateStore

BATCH, TIME, FEATURES, UNITS = 3, 6, 4, 2


@pytest.fixture
def x():
    return np.random.default_rng(1).normal(size=(BATCH, TIME, FEATURES))


def same(a, b):
    return np.allclose(a, b, rtol=0, atol=1e-15)


def test_the_first_returned_state_is_the_last_output(make, x):
    layer = make(return_sequences=True, return_state=True)
    y, h, *c = layer(x)
    assert np.array_equal(h, y[:, -1])
    assert len(c) == layer.cell.states - 1


def test_states_handed_on_make_one_long_sequence(make, x):
    layer = make(return_sequences=True, return_state=True)
    whole, *end = layer(x)
    first, *states = layer(x[:, :2])
    second, *states = layer(x[:, 2:], initial_state=states)
    assert same(np.concatenate([first, second], axis=1), whole)
    assert all(same(a, b) for a, b in zip(states, end, strict=True))


def test_an_initial_state_may_be_given_in_three_ways(make, x):
    layer = make()
    start = [np.random.default_rng(2).normal(size=(BATCH, UNITS)) for _ in range(layer.cell.states)]
    y = layer(x, initial_state=start)
    assert np.array_equal(y, layer([x, *start]))
    assert np.array_equal(y, layer(x, start if len(start) > 1 else start[0]))
    assert not same(y, layer(x))


def test_gradients_flow_through_handed_on_states(make, x):
    """Backward over two halves, the gradient of the states in between, is backward over the whole."""
    layer, context = make(return_sequences=True, return_state=True), Context(record=True)
    dy = np.random.default_rng(2).normal(size=(BATCH, TIME, UNITS))
    dfinal = [np.random.default_rng(3 + i).normal(size=(BATCH, UNITS)) for i in range(layer.cell.states)]
    start = [np.full((BATCH, UNITS), 0.2)] * layer.cell.states

    _, saved = layer.forward([x, *start], None, context)
    whole = layer.backward(saved, [dy, *dfinal]), [w.gradient.copy() for w in layer.weights]
    for w in layer.weights:
        w.gradient[...] = 0

    (_, *states), early = layer.forward([np.ascontiguousarray(x[:, :2]), *start], None, context)
    _, late = layer.forward([np.ascontiguousarray(x[:, 2:]), *states], None, context)
    dx_late, *dstates = layer.backward(late, [dy[:, 2:], *dfinal])
    dx_early, *dstart = layer.backward(early, [dy[:, :2], *dstates])

    parts = [np.concatenate([dx_early, dx_late], axis=1), *dstart, *(w.gradient for w in layer.weights)]
    for part, all_at_once in zip(parts, [*whole[0], *whole[1]], strict=True):
        assert np.allclose(part, all_at_once, rtol=1e-12, atol=1e-14)


def test_a_stateful_layer_goes_on_where_it_ended(make, x):
    layer, plain = make(stateful=True, return_sequences=True), make(return_sequences=True)
    parts = [layer(x[:, :1]), layer(x[:, 1:4]), layer(x[:, 4:])]
    assert same(np.concatenate(parts, axis=1), plain(x))


def test_reset_state_starts_from_zeros_again(make, x):
    for reset in ("reset_state", "reset_states"):
        layer = make(stateful=True)
        first, second = layer(x), layer(x)
        assert not same(first, second)
        getattr(layer, reset)()
        assert np.array_equal(layer(x), first)


def test_a_layer_that_is_not_stateful_forgets(make, x):
    layer = make()
    assert np.array_equal(layer(x), layer(x))


def test_a_stateful_layer_refuses_another_batch_size_until_it_is_reset(make, x):
    layer = make(stateful=True)
    layer(x)
    with pytest.raises(ValueError, match=rf"{layer.name}.* stateful .* 3 rows; received a batch of 2"):
        layer(x[:2])
    layer.reset_state()
    assert layer(x[:2]).shape == (2, UNITS)


def test_a_given_initial_state_goes_before_the_stored_one_and_the_end_is_stored(make, x):
    layer, plain = make(stateful=True), make(return_state=True)
    layer(x)
    start = [np.full((BATCH, UNITS), 0.2)] * layer.cell.states
    y, *states = plain(x, initial_state=start)
    assert np.array_equal(layer(x, initial_state=start), y)
    assert np.array_equal(layer(x), plain(x, initial_state=states)[0])


def test_states_live_in_the_store_of_the_call(make, x):
    layer, one, other = make(stateful=True), StateStore(), StateStore()
    y, _ = layer.forward(x, None, Context(store=one))
    assert layer.forward(x, None, Context(store=other))[0].tobytes() == y.tobytes()
    assert not same(layer.forward(x, None, Context(store=one))[0], y)
    layer.reset_state()
    for store in (one, other):
        assert store.states(layer) is None


def test_stored_states_are_safe_from_who_gets_them_back(make, x):
    layer, plain = make(stateful=True, return_state=True), make(return_sequences=True)
    for state in layer(x)[1:]:
        state[...] = 0
    expected = plain(np.concatenate([x, x], axis=1))[:, -1]
    assert same(layer(x)[0], expected)


def test_a_stateful_layer_trains_by_the_gradient_of_the_last_call_alone(make, x):
    """The stored state is a constant: truncated backpropagation through time."""
    layer, plain = make(stateful=True), make()
    layer(x)
    context = Context(record=True, store=StateStore())
    layer.forward(x, None, context)
    states = context.store.states(layer)
    dx = layer.backward(layer.forward(x, None, context)[1], np.ones((BATCH, UNITS)))
    expected = plain.backward(plain.forward([x, *states], None, Context(record=True))[1], np.ones((BATCH, UNITS)))
    assert np.array_equal(dx, expected[0])
    assert all(np.array_equal(a.gradient, b.gradient) for a, b in zip(layer.weights, plain.weights, strict=True))
