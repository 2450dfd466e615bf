"""Every kernel in every build computes what tests/reference.py says."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest
from kernel_cases import (
    BOUNDED,
    BUILDS,
    CELLS,
    DIRECTIONS,
    MASKS,
    Case,
    Run,
    assert_close,
    assert_same_bits,
    by_kernel,
    by_reference,
    draw,
    pack,
    run_backward,
    run_forward,
)

from fastrnn._core import kernels

DTYPES = ("float32", "float64")
SIZES = (1, 3, 7, 15, 16, 17, 31, 33, 64, 65, 100, 200)
BATCHES = (1, 2, 3, 4, 5, 6, 7, 8, 13, 17, 33, 70)
EDGES = [
    (BATCHES[(i + 5 * j) % 12], 3, SIZES[(5 * i + 4 * j) % 12], units)
    for i, units in enumerate(SIZES)
    for j in range(3)
]
# A narrow x, which is multiplied together with h: around the bound, and with an h that is several blocks of k long and
# whose gradients are made of dz range by range.
EDGES += [(13, 3, 23, 31), (13, 3, 24, 31), (13, 3, 25, 31), (70, 2, 3, 1050)]
# dx in ranges of dz too, with a last block of columns that can't be written in place; gradients of weights in
# long turns.
EDGES += [(50, 8, 75, 1050)]


@cache
def masked(cell: str, dtype: str, mask: str, direction: str, zero_output: bool) -> tuple[Case, Run]:
    rng = np.random.default_rng([CELLS.index(cell), MASKS.index(mask), len(direction), zero_output])
    case = draw(rng, cell, 5, 9, 6, 19, mask=mask, zero_output_for_mask=zero_output, **DIRECTIONS[direction])
    case = case.astype(dtype)
    return case, by_reference(case)


@pytest.mark.parametrize("isa", BUILDS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_masks_and_directions(cell, dtype, mask, direction, isa):
    for zero_output in (False, True):
        case, expected = masked(cell, dtype, mask, direction, zero_output)
        run = by_kernel(case, isa)
        assert_close(run, expected, dtype)
        for threads in (2, 3, 6):
            assert_same_bits(by_kernel(case, isa, threads), run)


@cache
def edge(cell: str, dtype: str, shape: tuple[int, int, int, int]) -> tuple[Case, Run]:
    rng = np.random.default_rng([CELLS.index(cell), *shape])
    case = draw(rng, cell, *shape, mask="holes" if shape[0] % 2 else "none").astype(dtype)
    return case, by_reference(case)


@pytest.mark.parametrize("isa", BUILDS)
@pytest.mark.parametrize("shape", EDGES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_shapes_at_the_edges_of_blocks(cell, dtype, shape, isa):
    case, expected = edge(cell, dtype, shape)
    assert_close(by_kernel(case, isa), expected, dtype)


@cache
def one_step(cell: str, dtype: str, inner: str, outer: str) -> tuple[Case, Run]:
    rng = np.random.default_rng([CELLS.index(cell), 1])
    case = draw(rng, cell, 7, 1, 5, 21, activation=inner, recurrent_activation=outer, gain=0.8).astype(dtype)
    return case, by_reference(case)


@pytest.mark.parametrize("isa", BUILDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("inner", kernels.activations)
@pytest.mark.parametrize("cell", CELLS)
def test_activations_one_step(cell, inner, dtype, isa):
    for outer in kernels.activations:
        case, expected = one_step(cell, dtype, inner, outer)
        assert_close(by_kernel(case, isa), expected, dtype)


@pytest.mark.parametrize("isa", BUILDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("inner", BOUNDED)
@pytest.mark.parametrize("cell", CELLS)
def test_bounded_activations_over_time(cell, inner, dtype, isa):
    rng = np.random.default_rng([CELLS.index(cell), 2])
    for outer in ("sigmoid", "hard_sigmoid"):
        case = draw(rng, cell, 3, 20, 4, 18, mask="holes", activation=inner, recurrent_activation=outer).astype(dtype)
        assert_close(by_kernel(case, isa), by_reference(case), dtype)


@pytest.mark.parametrize("isa", BUILDS)
@pytest.mark.parametrize("dropout", ("shared", "gates", "recurrent", "both", "mixed"))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_dropout(cell, dtype, dropout, isa):
    rng = np.random.default_rng([CELLS.index(cell), 3])
    for mask, direction, shape in (
        ("none", "forwards", (6, 7, 5, 18)),
        ("holes", "backwards", (9, 5, 17, 33)),
        ("right", "flipped", (1, 4, 1, 1)),
    ):
        case = draw(rng, cell, *shape, mask=mask, dropout=dropout, **DIRECTIONS[direction]).astype(dtype)
        run = by_kernel(case, isa)
        assert_close(run, by_reference(case), dtype)
        assert_same_bits(by_kernel(case, isa, threads=3), run)


@pytest.mark.parametrize("isa", BUILDS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_long_sequence_in_both_dtypes(cell, isa):
    case = draw(np.random.default_rng(4), cell, 2, 300, 8, 48, mask="holes")
    for dtype in DTYPES:
        rounded = case.astype(dtype)
        assert_close(by_kernel(rounded, isa, threads=2), by_reference(rounded), dtype)


@pytest.mark.parametrize("isa", BUILDS)
@pytest.mark.parametrize("gradients", ("s", "l", "f", "c", "sl", "sf", "lf", ""))
@pytest.mark.parametrize("cell", CELLS)
def test_any_of_the_incoming_gradients_may_be_missing(cell, gradients, isa):
    rng = np.random.default_rng([CELLS.index(cell), 5])
    for bias, initial in ((True, False), (False, True)):
        case = draw(rng, cell, 4, 6, 3, 10, mask="row", bias=bias, initial=initial, gradients=gradients)
        assert_close(by_kernel(case, isa), by_reference(case), "float64")


@pytest.mark.parametrize("isa", BUILDS)
@pytest.mark.parametrize("dropout", ("none", "gates", "both"))
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_of_weights_are_added_to_what_is_there(cell, dropout, isa):
    case = draw(np.random.default_rng(6), cell, 3, 5, 6, 19, dropout=dropout).astype("float32")
    packed = pack(case, isa)
    alone = run_backward(case, packed, run_forward(case, packed)[1])
    there = {name: alone[name][..., ::-1] for name in ("dkernel", "drecurrent_kernel", "dbias")}
    both = run_backward(case, packed, run_forward(case, packed)[1], before=there)
    assert_same_bits({name: both[name] for name in there}, {name: there[name] + alone[name] for name in there})


@pytest.mark.parametrize("isa", BUILDS)
@pytest.mark.parametrize("cell", CELLS)
def test_steps_that_are_all_masked_give_gradients_of_zero(cell, isa):
    case = draw(np.random.default_rng(7), cell, 2, 3, 4, 19)
    case = dataclasses.replace(case, mask=np.zeros((2, 3), bool))
    packed = pack(case, isa)
    found = run_backward(case, packed, run_forward(case, packed)[1])
    assert not any(found[name].any() for name in ("dkernel", "drecurrent_kernel", "dbias"))
