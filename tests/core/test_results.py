"""The memory of large results is used again, but not before the last array that shows it is gone."""

from __future__ import annotations

import gc
import pickle

import numpy as np
from kernel_cases import by_kernel, draw

from fastrnn._core import kernels

SHAPE = (40, 60, 40, 40)  # a sequence of 384 KB in float32: large enough to be used again


def large_case(seed=31, mask="none"):
    return draw(np.random.default_rng(seed), "lstm", *SHAPE, mask=mask).astype("float32")


def sequence_of(case):
    packed = kernels.pack("lstm", *case.weights())
    return kernels.forward(packed, case.x)[0]


def test_a_result_stays_while_it_or_a_view_of_it_lives():
    first, second = sequence_of(large_case(1)), sequence_of(large_case(2))
    kept, view = first.copy(), second[3:5]
    seen = view.copy()
    del second
    gc.collect()
    for seed in range(3, 9):
        sequence_of(large_case(seed))
    assert np.array_equal(first, kept)
    assert np.array_equal(view, seen)


def test_results_are_ordinary_arrays():
    y = sequence_of(large_case())
    assert y.flags.c_contiguous and y.flags.writeable and y.dtype == np.float32 and y.shape == (40, 60, 40)
    assert np.array_equal(pickle.loads(pickle.dumps(y)), y)
    y[...] = 0
    assert not y.any()


def test_gradients_at_masked_steps_are_zero_in_memory_that_was_used():
    for _ in range(3):
        sequence_of(large_case())[...] = np.nan
    case = large_case(mask="holes")
    for _ in range(3):
        run = by_kernel(case)
        assert not run["dx"][~case.mask].any()
        run["dx"][...] = np.nan
