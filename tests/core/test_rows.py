"""Rows of tables by their numbers."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from kernel_cases import BUILDS

from fastrnn._core import kernels

builds = pytest.mark.parametrize("isa", BUILDS)
dtypes = pytest.mark.parametrize("dtype", ("float32", "float64"))
SHAPES = ((1, 1, 1), (3, 5, 40), (50, 16, 36), (200, 33, 300), (70, 130, 500))


@builds
@dtypes
def test_rows_are_read_and_added_to_in_order_by_any_number_of_threads(dtype, isa):
    rng = np.random.default_rng(6)
    for rows, width, n in SHAPES:
        table, ids = rng.normal(size=(rows, width)).astype(dtype), rng.integers(0, rows, n)
        dy = rng.normal(size=(n, width)).astype(dtype)
        expected = table.copy()
        for i, row in zip(ids, dy, strict=True):
            expected[i] += row
        for threads in (1, 2, 3, 4):
            np.testing.assert_array_equal(kernels.gather_rows(table, ids, threads=threads, isa=isa), table[ids])
            added = table.copy()
            kernels.scatter_add_rows(added, ids, dy, threads=threads, isa=isa)
            np.testing.assert_array_equal(added, expected)


def test_rows_are_noted_once_in_the_order_they_came():
    rows = kernels.Rows(7)
    assert len(rows) == 0 and rows.ids.tolist() == [] and rows.rows == 7
    rows.add(np.array([[3, 1], [3, 6]]))
    rows.add(np.array([0, 1], "int32"))
    assert rows.ids.tolist() == [3, 1, 6, 0] and len(rows) == 4
    for twin in (copy.deepcopy(rows), pickle.loads(pickle.dumps(rows))):
        assert len(twin) == 0 and twin.rows == 7
    table = np.ones((7, 2), "float32")
    rows.clear(table)
    assert table[:, 0].tolist() == [0, 0, 1, 0, 1, 1, 0] and len(rows) == 0
    rows.add(np.arange(7))
    assert rows.ids.tolist() == list(range(7))
    rows.clear()
    assert len(rows) == 0 and table.any()


@dtypes
def test_rows_look_for_nan_and_infinities_in_themselves_alone(dtype):
    rows, table = kernels.Rows(5), np.zeros((5, 37), dtype)
    rows.add(np.array([4, 2]))
    table[[0, 1, 3]] = np.nan
    assert rows.all_finite(table)
    for wrong in (np.nan, np.inf):
        for place in ((4, 0), (2, 36)):
            spoiled = table.copy()
            spoiled[place] = wrong
            assert not rows.all_finite(spoiled)


@dtypes
def test_rows_of_several_tables_are_taken_again_and_again(dtype):
    rng = np.random.default_rng(8)
    tables = [rng.normal(size=(30, *shape)).astype(dtype) for shape in ((), (5,), (2, 3, 4), (5000,))]
    out = [np.zeros((6, *table.shape[1:]), dtype) for table in tables]
    for table in (np.arange(30, dtype="int32"), np.arange(60, dtype="uint8").reshape(30, 2), np.arange(30) % 2 == 0):
        tables.append(table)
        out.append(np.zeros((6, *table.shape[1:]), "int64" if table.dtype.kind in "iu" else table.dtype))
    tables += [tables[1][:, ::2], tables[2].astype(">f4")]
    out += [np.zeros((6, 3), dtype), np.zeros((6, 2, 3, 4), dtype)]
    taking = kernels.Taking(tables, out)
    for threads in (1, 2, 3):
        ids = rng.permutation(30)[:6]
        taking.run(ids, threads=threads)
        for table, taken in zip(tables, out, strict=True):
            np.testing.assert_array_equal(taken, table[ids])
    for wrong in (ids[:5], ids.astype("int32"), ids.astype(float), np.arange(12)[::2], [0] * 6, None):
        with pytest.raises((ValueError, TypeError)):
            taking.run(wrong)
    for out_of_range in (-1, 30):
        for one in (taking, kernels.Taking(tables[4:5], out[4:5])):
            with pytest.raises(ValueError, match=r"ids must lie in \[0, 30\)"):
                one.run(np.array([0, 1, 2, 3, 4, out_of_range]))
    with pytest.raises(TypeError, match="does not pickle"):
        copy.deepcopy(taking)
    frozen = out[1].copy()
    frozen.flags.writeable = False
    for tables_, out_ in (
        (tables[:1], out[1:2]),
        (tables[:2], out[:1]),
        (tables[4:6], out[4:5]),
        (tables[4:5], out[5:6]),
        ([tables[1]], [frozen]),
        ([tables[1]], [None]),
        ([tables[1], tables[2]], [out[1], out[2][:5]]),
        ([np.zeros((0, 5), dtype)], [out[1]]),
        ([np.zeros((), dtype)], [out[1]]),
    ):
        with pytest.raises((ValueError, TypeError)):
            kernels.Taking(tables_, out_)


def test_what_rows_refuse():
    rows, table = kernels.Rows(4), np.zeros((4, 3))
    frozen = table.copy()
    frozen.flags.writeable = False
    for call in (
        lambda: rows.add(np.array([0, 4])),
        lambda: rows.add(np.array([-1])),
        lambda: rows.add(np.array([0.0])),
        lambda: rows.clear(np.zeros((5, 3))),
        lambda: rows.clear(np.zeros(4)),
        lambda: rows.clear(np.zeros((3, 4)).T),
        lambda: rows.clear(frozen),
        lambda: rows.all_finite(np.zeros((5, 3))),
        lambda: rows.all_finite(np.zeros((4, 3), int)),
        lambda: rows.all_finite(None),
        lambda: kernels.Rows(-1),
        lambda: kernels.scatter_add_rows(table, np.array([0]), None),
    ):
        with pytest.raises((ValueError, TypeError)):
            call()
    assert len(rows) == 0
