"""Matrix products, the sums of columns that they take by the way, and rows by number."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from kernel_cases import BUILDS

from fastrnn._core import kernels

DTYPES = ("float32", "float64")
ROWS = (1, 2, 3, 5, 6, 7, 8, 13, 65)
COLUMNS = (1, 2, 15, 16, 17, 31, 48, 64, 100)
DEPTHS = (1, 2, 7, 16, 65, 300)
TRANSPOSES = (
    {"transpose_a": False, "transpose_b": False},
    {"transpose_a": True, "transpose_b": False},
    {"transpose_a": False, "transpose_b": True},
)
builds = pytest.mark.parametrize("isa", BUILDS)
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def operands(rng, m, n, k, dtype, transpose_a, transpose_b):
    a = rng.normal(size=(k, m) if transpose_a else (m, k)).astype(dtype)
    b = rng.normal(size=(n, k) if transpose_b else (k, n)).astype(dtype)
    return a, b


def expected_and_bound(a, b, transpose_a, transpose_b, plus=0.0):
    """The product in float64, and what k roundings of a sum of that size may add up to."""
    left, right = (a.T if transpose_a else a).astype(float), (b.T if transpose_b else b).astype(float)
    size = np.abs(left) @ np.abs(right) + np.abs(plus)
    return left @ right + plus, (left.shape[1] + 3) * np.finfo(a.dtype).eps * size


@builds
@pytest.mark.parametrize("turned", TRANSPOSES, ids=("plain", "transpose_a", "transpose_b"))
@dtypes
def test_every_size_and_transpose(dtype, turned, isa):
    rng = np.random.default_rng(14)
    for m, n, k in itertools.product(ROWS, COLUMNS, DEPTHS):
        a, b = operands(rng, m, n, k, dtype, **turned)
        expected, bound = expected_and_bound(a, b, **turned)
        value = kernels.product(a, b, **turned, isa=isa)
        assert value.shape == (m, n) and value.dtype == dtype
        assert np.all(np.abs(value - expected) <= bound), (m, n, k)


@builds
@dtypes
def test_bias_and_accumulate(dtype, isa):
    rng = np.random.default_rng(15)
    several_blocks = (390, 35, 1030), (775, 81, 200)
    for m, n, k in ((1, 1, 1), (3, 17, 5), (7, 64, 33), (70, 31, 100), *several_blocks):
        for turned in TRANSPOSES:
            a, b = operands(rng, m, n, k, dtype, **turned)
            bias, start = rng.normal(size=n).astype(dtype), rng.normal(size=(m, n)).astype(dtype)

            if not turned["transpose_a"]:
                expected, bound = expected_and_bound(a, b, **turned, plus=bias)
                assert np.all(np.abs(kernels.product(a, b, **turned, bias=bias, isa=isa) - expected) <= bound)

            out = start.copy()
            expected, bound = expected_and_bound(a, b, **turned, plus=start)
            assert kernels.product(a, b, **turned, out=out, accumulate=True, isa=isa) is out
            assert np.all(np.abs(out - expected) <= bound)

            out = np.full((m, n), np.nan, dtype)
            kernels.product(a, b, **turned, out=out, isa=isa)
            assert np.array_equal(out, kernels.product(a, b, **turned, isa=isa))


@builds
@dtypes
def test_product_stays_inside_its_arrays(dtype, isa):
    rng = np.random.default_rng(16)
    for m, n, k in itertools.product((1, 3, 7), (1, 15, 33), (1, 5, 19)):
        for turned in TRANSPOSES:
            a, b = operands(rng, m, n, k, dtype, **turned)
            out, field = fenced(np.zeros((m, n), dtype))
            kernels.product(fenced(a)[0], fenced(b)[0], **turned, out=out, isa=isa)
            assert np.array_equal(out, kernels.product(a, b, **turned, isa=isa))
            assert np.isnan(field[:23]).all() and np.isnan(field[23 + out.size :]).all()


def fenced(a):
    """A copy of `a` with NaNs on both sides, and the whole field it lies in."""
    field = np.full(a.size + 46, np.nan, a.dtype)
    field[23:-23] = a.reshape(-1)
    return field[23:-23].reshape(a.shape), field


@builds
@dtypes
def test_product_has_the_same_bits_for_any_number_of_threads(dtype, isa):
    rng = np.random.default_rng(17)
    for m, n, k in ((1, 300, 200), (300, 1, 200), (2000, 64, 33), (33, 500, 100), (257, 129, 400), (65, 130, 3000)):
        for turned in TRANSPOSES:
            a, b = operands(rng, m, n, k, dtype, **turned)
            start = rng.normal(size=(m, n)).astype(dtype)
            with_bias = [] if turned["transpose_a"] else [{"bias": rng.normal(size=n).astype(dtype)}]
            for keywords in ({}, {"accumulate": True}, *with_bias):
                results = set()
                for threads in (1, 2, 3, 4, 7):
                    out = start.copy()
                    kernels.product(a, b, **turned, **keywords, out=out, threads=threads, isa=isa)
                    results.add(out.tobytes())
                assert len(results) == 1


@builds
@dtypes
def test_product_of_nan_and_infinity(dtype, isa):
    a, b = np.ones((3, 5), dtype), np.ones((5, 18), dtype)
    a[0, 2], a[1, 3] = np.nan, np.inf
    value = kernels.product(a, b, isa=isa)
    assert np.isnan(value[0]).all() and np.isposinf(value[1]).all() and (value[2] == 5).all()


@builds
@dtypes
def test_sums_of_columns_are_chains_from_the_first_row_on(dtype, isa):
    """Whichever rows and panels of the product fall to whom; 770 rows of C are two turns, 800 of k two spans."""
    rng = np.random.default_rng(18)
    sizes = (
        (1, 1, 1),
        (3, 2, 3),
        (1, 3, 8),
        (5, 4, 9),
        (40, 5, 17),
        (3, 64, 64),
        (7, 101, 513),
        (770, 30, 40),
        (20, 800, 700),
    )
    for m, k, n in sizes:
        a, b = operands(rng, m, n, k, dtype, transpose_a=True, transpose_b=False)
        start = rng.normal(size=n).astype(dtype)
        expected = start.copy()
        for row in b:
            expected += row
        for threads in (1, 2, 3, 4):
            sums = start.copy()
            c = kernels.product(a, b, transpose_a=True, sums=sums, threads=threads, isa=isa)
            np.testing.assert_array_equal(sums, expected)
            np.testing.assert_array_equal(c, kernels.product(a, b, transpose_a=True, isa=isa))


@builds
@dtypes
def test_long_sums_with_many_panels(dtype, isa):
    """Several spans of k, and more panels than stay in L2 from block to block of it."""
    rng = np.random.default_rng(20)
    for m, n, k in ((5, 2100, 1600), (300, 230, 1000), (90, 1500, 400)):
        a, b = operands(rng, m, n, k, dtype, transpose_a=True, transpose_b=False)
        start = rng.normal(size=(m, n)).astype(dtype)
        for plus in (0.0, start):
            expected, bound = expected_and_bound(a, b, True, False, plus=plus)
            out = start.copy()
            kernels.product(a, b, transpose_a=True, out=out, accumulate=plus is start, threads=2, isa=isa)
            assert np.all(np.abs(out - expected) <= bound), (m, n, k)


@pytest.mark.parametrize("integer", ("int32", "int64"))
@dtypes
def test_gather_rows(dtype, integer):
    rng = np.random.default_rng(19)
    for rows, width, shape in ((1, 1, (1,)), (7, 3, (5,)), (50, 16, (4, 9)), (1000, 33, (64, 70)), (9, 5, (2, 3, 4))):
        table, ids = rng.normal(size=(rows, width)).astype(dtype), rng.integers(0, rows, shape).astype(integer)
        value = kernels.gather_rows(table, ids)
        assert value.dtype == dtype and np.array_equal(value, table[ids])


@pytest.mark.parametrize("integer", ("int32", "int64"))
@dtypes
def test_scatter_add_rows_adds_rows_that_come_twice(dtype, integer):
    rng = np.random.default_rng(20)
    for rows, width, shape in ((1, 1, (1,)), (3, 5, (40,)), (50, 16, (4, 9)), (200, 33, (64, 70))):
        start, ids = rng.normal(size=(rows, width)).astype(dtype), rng.integers(0, rows, shape).astype(integer)
        dy = rng.normal(size=(*shape, width)).astype(dtype)
        expected, size = start.astype(float), np.abs(start).astype(float)
        np.add.at(expected, ids, dy)
        np.add.at(size, ids, np.abs(dy))
        once, again = start.copy(), start.copy()
        kernels.scatter_add_rows(once, ids, dy)
        kernels.scatter_add_rows(again, ids, dy)
        assert np.all(np.abs(once - expected) <= (ids.size + 2) * np.finfo(dtype).eps * size)
        assert once.tobytes() == again.tobytes()


@pytest.mark.parametrize("bad", (-1, 5, 2**31, -(2**31)))
def test_a_row_number_out_of_range_is_refused_and_nothing_is_written(bad):
    table, ids = np.ones((5, 3), np.float32), np.array([[0, 1, 2], [3, bad, 4]])
    with pytest.raises(ValueError):
        kernels.gather_rows(table, ids)
    with pytest.raises(ValueError):
        kernels.scatter_add_rows(table, ids, np.ones((2, 3, 3), np.float32))
    assert (table == 1).all()
