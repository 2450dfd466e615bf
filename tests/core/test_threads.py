"""Results do not depend on how many threads compute them, nor on who else computes at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from kernel_cases import BUILDS, CELLS, MASKS, assert_same_bits, by_kernel, draw, pack, run_backward, run_forward

SHAPES = (
    (13, 20, 64, 64),
    (1, 40, 8, 200),
    (2, 15, 100, 33),
    (5, 60, 3, 48),
    (70, 6, 33, 100),
    (16, 1, 200, 128),
    (3, 30, 40, 130),
)


@pytest.mark.parametrize("isa", BUILDS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("dtype", ("float32", "float64"))
@pytest.mark.parametrize("cell", CELLS)
def test_any_number_of_threads_gives_the_same_bits(cell, dtype, shape, isa):
    rng = np.random.default_rng([11, *shape])
    for mask, dropout in (("none", "none"), ("holes", "none"), ("right", "both")):
        case = draw(rng, cell, *shape, mask=mask, dropout=dropout).astype(dtype)
        expected = by_kernel(case, isa)
        for threads in (2, 3, 4, shape[0] + 1):
            assert_same_bits(by_kernel(case, isa, threads), expected)


@pytest.mark.parametrize("isa", BUILDS)
@pytest.mark.parametrize("mask", ("none", "holes", "right"))
@pytest.mark.parametrize("cell", CELLS)
def test_rows_that_go_from_thread_to_thread_change_no_bit(cell, mask, isa):
    """More threads than cores, in several calls at once, are never done together: who is first gets rows of others."""
    case = draw(np.random.default_rng(14), cell, 41, 40, 30, 72, mask=mask).astype("float32")
    expected = by_kernel(case, isa)
    with ThreadPoolExecutor(3) as pool:
        for run in pool.map(lambda threads: by_kernel(case, isa, threads), (2, 3, 5) * 4):
            assert_same_bits(run, expected)


@pytest.mark.parametrize("isa", BUILDS)
def test_concurrent_callers_get_their_own_results(isa):
    rng = np.random.default_rng(12)
    cases = [
        draw(
            rng,
            CELLS[i % len(CELLS)],
            9,
            12,
            20,
            40,
            mask=MASKS[i % len(MASKS)],
            dropout="both" if i % 3 == 0 else "none",
        )
        for i in range(12)
    ]
    expected = [by_kernel(case, isa) for case in cases]
    with ThreadPoolExecutor(6) as pool:
        runs = list(pool.map(lambda i: by_kernel(cases[i % 12], isa, threads=1 + i % 3), range(96)))
    for i, run in enumerate(runs):
        assert_same_bits(run, expected[i % 12])


@pytest.mark.parametrize("isa", BUILDS)
@pytest.mark.parametrize("cell", CELLS)
def test_one_pack_serves_concurrent_callers(cell, isa):
    case = draw(np.random.default_rng(13), cell, 6, 15, 20, 40, mask="holes")
    packed = pack(case, isa)
    expected = by_kernel(case, isa)

    def run(threads):
        outputs, tape = run_forward(case, packed, threads)
        return {**outputs, **run_backward(case, packed, tape, threads)}

    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(run, [1, 2] * 16):
            assert_same_bits(result, expected)
