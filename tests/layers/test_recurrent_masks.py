"""What masked steps do: to outputs, to states, to gradients, and in which order."""

from __future__ import annotations

import numpy as np
import pytest

from fastrnn.states import Context

BATCH, TIME, FEATURES, UNITS = 3, 5, 4, 2


@pytest.fixture
def x():
    return np.random.default_rng(1).normal(size=(BATCH, TIME, FEATURES))


def mask(*rows):
    return np.array([[step == "x" for step in row] for row in rows])


def gradients(layer, x, mask, dy):
    """dx (and those for states) for the gradients dy of what the layer returns."""
    y, saved = layer.forward(x, mask, Context(record=True))
    return layer.backward(saved, dy if isinstance(y, list) else dy[0])


def test_masked_step_repeats_the_output_before_it(make, x):
    y = make(return_sequences=True)(x, mask=mask("xx..x", "x.x.x", "xxxxx"))
    assert np.array_equal(y[0, 2], y[0, 1])
    assert np.array_equal(y[0, 3], y[0, 1])
    assert np.array_equal(y[1, 1], y[1, 0])
    assert np.array_equal(y[1, 3], y[1, 2])
    assert not np.allclose(y[0, 4], y[0, 3])


def test_masked_step_carries_the_state_past(make, x):
    """With holes, a row computes what it would without the masked steps."""
    layer = make(return_state=True)
    short = layer(x[:1][:, [0, 2, 4]])
    for ours, theirs in zip(layer(x[:1], mask=mask("x.x.x")), short, strict=True):
        assert np.allclose(ours, theirs, rtol=0, atol=1e-15)


def test_output_is_zero_until_the_first_valid_step(make, x):
    layer = make(return_sequences=True)
    y = layer(x, mask=mask("..xxx", ".xxxx", "xxxxx"), initial_state=[np.ones((BATCH, UNITS))] * layer.cell.states)
    assert not y[0, :2].any()
    assert not y[1, 0].any()
    assert y[2].all()


def test_a_masked_first_step_keeps_the_initial_state(make, x):
    layer = make(return_state=True)
    start = [np.full((1, UNITS), 0.3)] * layer.cell.states
    late = layer(x[:1], mask=mask("..xxx"), initial_state=start)
    for ours, theirs in zip(late, layer(x[:1, 2:], initial_state=start), strict=True):
        assert np.allclose(ours, theirs, rtol=0, atol=1e-15)


def test_gradient_of_an_output_before_the_first_valid_step_is_dropped(make, x):
    layer = make(return_sequences=True)
    start = [np.full((BATCH, UNITS), 0.3)] * layer.cell.states
    dy = np.zeros((BATCH, TIME, UNITS))
    dy[:, 0] = 1
    inputs, masks = [x, *start], [mask(".xxxx", "..xxx", "xxxxx"), *[None] * len(start)]
    dx, *dstart = gradients(layer, inputs, masks, [dy])
    assert not dx[:2].any()
    assert not any(d[:2].any() for d in dstart)
    assert dx[2, 0].any() and dstart[0][2].any()


def test_gradient_of_a_repeated_output_joins_that_of_the_step_it_repeats(make, x):
    layer, holes = make(return_sequences=True), mask("xx..x", "x...x", "x.x.x")
    dy = np.random.default_rng(2).normal(size=(BATCH, TIME, UNITS))
    joined = dy.copy()
    joined[0, 1] += dy[0, 2] + dy[0, 3]
    joined[1, 0] += dy[1, 1] + dy[1, 2] + dy[1, 3]
    joined[2, 0] += dy[2, 1]
    joined[2, 2] += dy[2, 3]
    joined[~holes] = 0
    assert np.allclose(gradients(layer, x, holes, [dy]), gradients(layer, x, holes, [joined]), rtol=0, atol=1e-14)


def test_masked_steps_have_no_gradient_for_x(make, x):
    holes = mask("xx..x", ".xx.x", "x.x..")
    dx = gradients(make(return_sequences=True), x, holes, [np.ones((BATCH, TIME, UNITS))])
    assert not dx[~holes].any()
    assert dx[holes].all()


def test_a_row_of_padding_gives_zero_and_hands_its_states_through(make, x):
    layer = make(return_sequences=True, return_state=True)
    start = [np.full((BATCH, UNITS), 0.1 * (i + 1)) for i in range(layer.cell.states)]
    nothing = mask(".....", "xxxxx", ".....")
    y, *states = layer(x, mask=nothing, initial_state=start)
    assert not y[[0, 2]].any()
    for state, first in zip(states, start, strict=True):
        assert np.array_equal(state[[0, 2]], first[[0, 2]])
    masks = [nothing, *[None] * len(start)]
    dy = [np.ones((BATCH, TIME, UNITS)), *(np.full((BATCH, UNITS), 2.0 + i) for i in range(len(start)))]
    dx, *dstart = gradients(layer, [x, *start], masks, dy)
    assert not dx[[0, 2]].any()
    for i, d in enumerate(dstart):
        assert np.array_equal(d[[0, 2]], np.full((2, UNITS), 2.0 + i))


def test_last_output_is_that_of_the_last_valid_step(make, x):
    layer = make()
    y = layer(x, mask=mask("xxx..", "xxxxx", "....."))
    assert np.allclose(y[0], layer(x[:1, :3])[0], rtol=0, atol=1e-15)
    assert np.allclose(y[1], layer(x[1:2])[0], rtol=0, atol=1e-15)
    assert not y[2].any()


def test_zero_output_for_mask_zeroes_masked_outputs_and_drops_their_gradients(make, x):
    layer, plain = make(return_sequences=True, zero_output_for_mask=True), make(return_sequences=True)
    holes = mask("xx..x", ".xx.x", "x.x..")
    y = layer(x, mask=holes)
    assert not y[~holes].any()
    assert np.array_equal(y[holes], plain(x, mask=holes)[holes])
    dy = np.random.default_rng(2).normal(size=(BATCH, TIME, UNITS))
    valid = np.where(holes[:, :, None], dy, 0)
    assert np.array_equal(gradients(layer, x, holes, [dy]), gradients(plain, x, holes, [valid]))


def test_zero_output_for_mask_zeroes_a_last_output_whose_step_is_masked(make, x):
    layer, plain, holes = make(zero_output_for_mask=True), make(), mask("xxx..", "..xxx", "xxxxx")
    y = layer(x, mask=holes)
    assert not y[0].any()
    assert np.array_equal(y[1:], plain(x, mask=holes)[1:])
    dx = gradients(layer, x, holes, [np.ones((BATCH, UNITS))])
    assert not dx[0].any()
    assert np.array_equal(dx[1:], gradients(plain, x, holes, [np.ones((BATCH, UNITS))])[1:])


def test_go_backwards_is_a_reversed_input_with_outputs_in_the_order_of_processing(make, x):
    holes = mask("xx..x", ".xx.x", "x.x..")
    backwards = make(return_sequences=True, return_state=True, go_backwards=True)
    plain = make(return_sequences=True, return_state=True)
    ours, theirs = backwards(x, mask=holes), plain(x[:, ::-1], mask=holes[:, ::-1])
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert np.array_equal(ours[0][:, -1], ours[1])
    dy = [np.random.default_rng(i).normal(size=y.shape) for i, y in enumerate(ours)]
    turned = gradients(plain, np.ascontiguousarray(x[:, ::-1]), np.ascontiguousarray(holes[:, ::-1]), dy)
    assert np.array_equal(gradients(backwards, x, holes, dy), turned[:, ::-1])


def test_go_backwards_over_right_padding_needs_no_reversed_copy(make, x):
    layer = make(go_backwards=True)
    y = layer(x, mask=mask("xxx..", "x....", "xxxxx"))
    assert np.allclose(y[0], layer(x[:1, :3])[0], rtol=0, atol=1e-15)
    assert np.allclose(y[1], layer(x[1:2, :1])[0], rtol=0, atol=1e-15)


def test_mask_passes_with_a_sequence_in_its_order_and_ends_with_a_single_output(make, x):
    holes = mask("xx..x", ".xx.x", "x.x..")
    assert make(return_sequences=True).output_mask(x, holes) is holes
    assert make().output_mask(x, holes) is None
    assert make(return_sequences=True).output_mask(x, None) is None
    states = make().cell.states
    assert make(return_state=True).output_mask(x, holes) == [None] * (1 + states)
    listed = make(return_sequences=True, return_state=True).output_mask([x, None], [holes, None])
    assert listed[0] is holes and listed[1:] == [None] * states
    turned = make(return_sequences=True, go_backwards=True).output_mask(x, holes)
    assert np.array_equal(turned, holes[:, ::-1])


@pytest.mark.parametrize("go_backwards", [False, True])
def test_nan_in_padding_changes_no_bit(make, x, go_backwards):
    layer = make(return_sequences=True, return_state=True, go_backwards=go_backwards)
    holes = mask("xx..x", ".xx.x", ".....")
    spoilt = np.where(holes[:, :, None], x, np.nan)
    dy = [np.ones(y.shape) for y in layer(x)]
    results = []
    for array in (x, spoilt):
        for w in layer.weights:
            w.gradient[...] = 0
        y, saved = layer.forward(array, holes, Context(record=True))
        results.append([*y, layer.backward(saved, dy), *(w.gradient.copy() for w in layer.weights)])
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))


def test_a_mask_of_ones_is_no_mask(make, x):
    layer = make(return_sequences=True)
    assert np.array_equal(layer(x), layer(x, mask=np.ones((BATCH, TIME), bool)))
