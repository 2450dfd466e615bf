"""An x that is mostly zeros is multiplied number by number: right, and with the bits of the whole product."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_cases import BUILDS, CELLS, Case, assert_close, assert_same_bits, by_kernel, by_reference, draw

SHAPES = ((5, 6, 57, 20), (33, 40, 93, 40), (1, 150, 300, 9), (7, 60, 25, 33), (3, 4, 1000, 5))


def one_hot(rng: np.random.Generator, case: Case) -> Case:
    """x has a one in most rows; in some it has nothing, or several numbers."""
    x = np.zeros_like(case.x)
    for row in x.reshape(-1, x.shape[-1]):
        many = rng.choice(4, p=(0.1, 0.7, 0.1, 0.1))
        row[rng.integers(len(row), size=many)] = 1 if many == 1 else rng.normal(size=many)
    return case.with_(x=x)


def among_others(case: Case) -> Case:
    """As many features again, none of them zero, which have no weight: the same numbers, and not mostly zeros."""
    x = np.concatenate([case.x, np.ones_like(case.x)], axis=-1)
    return case.with_(x=x, kernel=np.concatenate([case.kernel, np.zeros_like(case.kernel)]))


@pytest.mark.parametrize("isa", BUILDS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("dtype", ("float32", "float64"))
@pytest.mark.parametrize("cell", CELLS)
def test_one_hot_vectors(cell, dtype, shape, isa):
    rng = np.random.default_rng([31, *shape])
    for mask, options in (("none", {}), ("holes", {}), ("right", {"go_backwards": True})):
        case = one_hot(rng, draw(rng, cell, *shape, mask=mask, **options)).astype(dtype)
        run = by_kernel(case, isa)
        assert_close(run, by_reference(case), dtype)
        for threads in (2, 3):
            assert_same_bits(by_kernel(case, isa, threads), run)
        whole = by_kernel(among_others(case), isa)
        features = shape[2]
        whole["dx"] = np.ascontiguousarray(whole["dx"][..., :features])
        whole["dkernel"] = whole["dkernel"][:features]
        for name, value in run.items():
            np.testing.assert_array_equal(value, whole[name], err_msg=name)  # as bits, but 0 and -0 are equal


@pytest.mark.parametrize("isa", BUILDS)
@pytest.mark.parametrize("cell", CELLS)
def test_dropped_out_and_mixed_rows(cell, isa):
    rng = np.random.default_rng(32)
    case = one_hot(rng, draw(rng, cell, 9, 50, 64, 24, mask="holes", dropout="both")).astype("float32")
    assert_close(by_kernel(case, isa), by_reference(case), "float32")
    x = case.x.copy()
    x[::2, 20:] = rng.normal(size=x[::2, 20:].shape)  # some chunks are sparse, others are not
    case = case.with_(x=x)
    run = by_kernel(case, isa)
    assert_close(run, by_reference(case), "float32")
    assert_same_bits(by_kernel(case, isa, 3), run)


@pytest.mark.parametrize("isa", BUILDS)
@pytest.mark.parametrize("cell", CELLS)
def test_zeros_are_left_out(cell, isa):
    """What a zero meets is not looked at, so that NaN there does no harm: neither a weight nor, backward, dz."""
    rng = np.random.default_rng(34)
    case = one_hot(rng, draw(rng, cell, 9, 40, 64, 24)).astype("float32")
    x, kernel, dsequence = case.x.copy(), case.kernel.copy(), case.dsequence.copy()
    x[..., 7], kernel[7] = 0, np.nan
    for threads in (1, 3):
        assert np.isfinite(by_kernel(case.with_(x=x, kernel=kernel), isa, threads)["sequence"]).all()
        dsequence[4, 20] = np.nan
        run = by_kernel(case.with_(x=x, dsequence=dsequence), isa, threads)
        assert (run["dkernel"][7] == 0).all()
        assert np.isnan(run["dbias"]).any()


@pytest.mark.parametrize("isa", BUILDS)
def test_nan_in_a_row_of_zeros_is_not_lost(isa):
    case = one_hot(np.random.default_rng(33), draw(np.random.default_rng(33), "lstm", 3, 5, 60, 8)).astype("float32")
    x = case.x.copy()
    x[1, 2] = 0
    x[1, 2, 7] = np.nan
    sequence = by_kernel(case.with_(x=x), isa)["sequence"]
    assert np.isnan(sequence[1, 2:]).all()
    assert np.isfinite(sequence[[0, 2]]).all() and np.isfinite(sequence[1, :2]).all()
