"""What a mask, a direction and an initial state mean, each claim by itself and without the reference."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_cases import BUILDS, CELLS, DIRECTIONS, MASKS, assert_same_bits, by_kernel, draw, error

pytestmark = [pytest.mark.parametrize("isa", BUILDS), pytest.mark.parametrize("cell", CELLS)]
DTYPES = ("float32", "float64")


def rng_of(cell):
    return np.random.default_rng([9, CELLS.index(cell)])


def test_masked_step_carries_state(cell, isa):
    case = draw(rng_of(cell), cell, 3, 6, 4, 9)
    mask = np.array([[1, 1, 0, 1, 0, 0]] * 3, bool)
    run, short = by_kernel(case.with_(mask=mask), isa), by_kernel(without_steps(case, mask[0]), isa)
    assert error(run["sequence"][:, mask[0]], short["sequence"]) < 1e-14
    for name in ("last", "final_0"):
        assert error(run[name], short[name]) < 1e-14


def without_steps(case, keep):
    return case.with_(
        x=np.ascontiguousarray(case.x[:, keep]), dsequence=np.ascontiguousarray(case.dsequence[:, keep]), mask=None
    )


def test_masked_step_repeats_the_last_output(cell, isa):
    case = draw(rng_of(cell), cell, 2, 6, 4, 9).with_(mask=np.array([[0, 1, 0, 0, 1, 0]] * 2, bool))
    sequence = by_kernel(case, isa)["sequence"]
    for masked, repeated in ((2, 1), (3, 1), (5, 4)):
        assert np.array_equal(sequence[:, masked], sequence[:, repeated])


def test_output_is_zero_before_the_first_valid_step_although_the_state_is_not(cell, isa):
    case = draw(rng_of(cell), cell, 2, 4, 3, 9).with_(mask=np.array([[0, 0, 1, 1], [0, 0, 0, 0]], bool))
    run = by_kernel(case, isa)
    assert not run["sequence"][0, :2].any() and run["sequence"][0, 2:].all()
    assert not run["sequence"][1].any() and not run["last"][1].any()
    for i, initial in enumerate(case.initial_state):
        assert np.array_equal(run[f"final_{i}"][1], initial[1])


def test_zero_output_for_mask_changes_masked_outputs_only(cell, isa):
    case = draw(rng_of(cell), cell, 5, 8, 3, 9, mask="holes")
    plain, zeroed = by_kernel(case, isa), by_kernel(case.with_(options={"zero_output_for_mask": True}), isa)
    assert not zeroed["sequence"][~case.mask].any()
    assert np.array_equal(zeroed["sequence"][case.mask], plain["sequence"][case.mask])
    assert np.array_equal(zeroed["last"], zeroed["sequence"][:, -1])
    assert np.array_equal(zeroed["final_0"], plain["final_0"])


def test_last_output_is_the_last_valid_one(cell, isa):
    case = draw(rng_of(cell), cell, 5, 8, 3, 9, mask="holes")
    run = by_kernel(case, isa)
    assert np.array_equal(run["last"], run["sequence"][:, -1])
    for row, valid in enumerate(case.mask):
        assert np.array_equal(run["last"][row], run["sequence"][row, np.flatnonzero(valid)[-1]])


def test_dy_of_a_masked_step_joins_the_last_valid_output(cell, isa):
    case = draw(rng_of(cell), cell, 4, 7, 3, 9).with_(mask=np.array([[1, 1, 0, 1, 1, 0, 0]] * 4, bool))
    joined = case.dsequence.copy()
    joined[:, 1] += joined[:, 2]
    joined[:, 4] += joined[:, 5] + joined[:, 6]
    joined[:, [2, 5, 6]] = 0
    run, expected = by_kernel(case, isa), by_kernel(case.with_(dsequence=joined), isa)
    for name, value in run.items():
        assert error(value, expected[name]) < 1e-13, name


def test_dy_before_the_first_valid_step_is_dropped(cell, isa):
    case = draw(rng_of(cell), cell, 4, 5, 3, 9, mask="left")
    case = case.with_(mask=np.array([[0, 0, 1, 1, 1]] * 3 + [[0] * 5], bool))
    other = np.where(np.logical_or.accumulate(case.mask, axis=1)[..., None], case.dsequence, np.nan)
    last = np.where(case.mask.any(1)[:, None], case.dlast, np.nan)
    assert_same_bits(by_kernel(case.with_(dsequence=other, dlast=last), isa), by_kernel(case, isa))


def test_zero_output_for_mask_drops_every_masked_dy(cell, isa):
    case = draw(rng_of(cell), cell, 5, 8, 3, 9, mask="holes", zero_output_for_mask=True)
    case.mask[:, -1] = [True, False, True, False, False]
    sequence = np.where(case.mask[..., None], case.dsequence, np.nan)
    last = np.where(case.mask[:, -1:], case.dlast, np.nan)
    assert_same_bits(by_kernel(case.with_(dsequence=sequence, dlast=last), isa), by_kernel(case, isa))


def test_a_row_without_a_valid_step_hands_gradients_of_its_state_through(cell, isa):
    case = draw(rng_of(cell), cell, 3, 4, 3, 9, mask="row")
    run = by_kernel(case, isa)
    assert not run["dx"][0].any()
    for i, dfinal in enumerate(case.dfinal):
        assert np.array_equal(run[f"dinitial_{i}"][0], dfinal[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("mask", [m for m in MASKS if m != "none"])
def test_nothing_leaks_out_of_padding(cell, isa, mask, direction, dtype):
    for dropout in ("none", "shared", "both"):
        case = draw(rng_of(cell), cell, 6, 9, 5, 19, mask=mask, dropout=dropout, **DIRECTIONS[direction]).astype(dtype)
        expected = by_kernel(case, isa)
        for padding in (np.nan, np.inf, 1e30):
            padded = np.where(case.mask[..., None], case.x, np.asarray(padding, dtype))
            run = by_kernel(case.with_(x=padded), isa)
            assert_same_bits(run, expected)
            assert not run["dx"][~case.mask].any()


def test_a_mask_of_ones_is_no_mask(cell, isa):
    case = draw(rng_of(cell), cell, 4, 6, 5, 19)
    run, expected = by_kernel(case.with_(mask=np.ones((4, 6), bool)), isa), by_kernel(case, isa)
    for name, value in run.items():
        assert error(value, expected[name]) < 1e-14, name


def test_go_backwards_is_forwards_on_reversed_time(cell, isa):
    case = draw(rng_of(cell), cell, 4, 6, 5, 19, mask="holes")
    turned = case.with_(x=flip(case.x), mask=flip(case.mask), options={"go_backwards": True})
    run, expected = by_kernel(turned, isa), by_kernel(case, isa)
    assert_same_bits({**run, "dx": flip(run["dx"])}, expected)


def test_original_time_flips_the_sequence_and_nothing_else(cell, isa):
    case = draw(rng_of(cell), cell, 4, 6, 5, 19, mask="holes", go_backwards=True)
    turned = case.with_(options={"go_backwards": True, "original_time": True}, dsequence=flip(case.dsequence))
    run, expected = by_kernel(turned, isa), by_kernel(case, isa)
    assert_same_bits({**run, "sequence": flip(run["sequence"])}, expected)


def flip(a):
    return np.ascontiguousarray(a[:, ::-1])


def test_no_initial_state_is_zeros(cell, isa):
    case = draw(rng_of(cell), cell, 4, 6, 5, 19, mask="first", initial=False)
    zeros = tuple(np.zeros((4, 19)) for _ in case.dfinal)
    assert_same_bits(by_kernel(case, isa), by_kernel(case.with_(initial_state=zeros), isa))


def test_a_sequence_cut_in_two_hands_its_state_on(cell, isa):
    case = draw(rng_of(cell), cell, 4, 8, 5, 19, mask="none")
    whole = by_kernel(case, isa)
    first = by_kernel(part(case, slice(0, 3)), isa)
    states = tuple(first[f"final_{i}"] for i in range(len(case.dfinal)))
    second = by_kernel(part(case, slice(3, 8)).with_(initial_state=states), isa)
    assert error(np.concatenate([first["sequence"], second["sequence"]], 1), whole["sequence"]) < 1e-14
    for name in ("last", "final_0"):
        assert error(second[name], whole[name]) < 1e-14


def part(case, steps):
    return case.with_(
        x=np.ascontiguousarray(case.x[:, steps]), dsequence=np.ascontiguousarray(case.dsequence[:, steps])
    )
