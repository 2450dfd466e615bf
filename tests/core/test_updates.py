"""Passes over flat arrays: the steps of the optimizers and their companions, the finite check, norms."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
from kernel_cases import BUILDS
from optimizer_steps import STEPS

from fastrnn._core import kernels

builds = pytest.mark.parametrize("isa", BUILDS)
dtypes = pytest.mark.parametrize("dtype", ("float32", "float64"))
every_step = pytest.mark.parametrize("name", STEPS)
SIZES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 1000, 1025)
ROUNDING = {"float32": 2e-6, "float64": 1e-14}


def draw(name, size, dtype, seed=0):
    """w, g and slots as some steps leave them: squares are positive, and larger than the square of a mean."""
    rng = np.random.default_rng([seed, size])
    w, g = rng.normal(size=(2, size))
    slots = [rng.uniform(1.0, 2.0, size) for _ in range(kernels.steps[name][0])]
    if "centered" in name:
        slots[-1] = rng.uniform(-0.5, 0.5, size)
    elif name in ("adam", "amsgrad", "adamax", "nadam", "lion", "momentum", "nesterov"):
        slots[0] = rng.normal(size=size)
    if size > 2:
        g[[0, 2]] = 0
    return w.astype(dtype), g.astype(dtype), [s.astype(dtype) for s in slots]


def test_every_step_of_an_optimizer_has_a_formula():
    others = {"clip", "scale", "accumulate", "take_mean", "average"}
    assert kernels.steps.keys() == STEPS.keys() | others
    for name, (_, coefficients) in STEPS.items():
        assert kernels.steps[name][1] == 1 + len(coefficients)


@builds
@dtypes
@every_step
def test_a_step_equals_its_formula(name, dtype, isa):
    formula, coefficients = STEPS[name]
    for size in SIZES:
        for keep in (1.0, 0.75):
            w, g, slots = draw(name, size, dtype)
            exact = [a.astype(float) for a in (w, g)], [s.astype(float) for s in slots]
            before = g.copy()
            kernels.update(name, w, g, slots, (keep, *coefficients), isa=isa)
            new_w, new_slots = formula(*exact[0], exact[1], keep, *coefficients)
            np.testing.assert_array_equal(g, before)
            for value, expected in zip((w, *slots), (new_w, *new_slots), strict=True):
                np.testing.assert_allclose(value, expected, rtol=ROUNDING[dtype], atol=ROUNDING[dtype])


@builds
@dtypes
@every_step
def test_threads_and_places_change_no_bit_of_a_step(name, dtype, isa):
    coefficients = (0.75, *STEPS[name][1])
    size = 70_001
    whole = draw(name, size, dtype)
    kernels.update(name, whole[0], whole[1], whole[2], coefficients, isa=isa)
    for threads in (2, 3, 4):
        again = draw(name, size, dtype)
        kernels.update(name, again[0], again[1], again[2], coefficients, threads=threads, isa=isa)
        assert [a.tobytes() for a in (again[0], *again[2])] == [a.tobytes() for a in (whole[0], *whole[2])]
    pieces = draw(name, size, dtype)
    cuts = [0, 1, 6, 7, 1030, 1041, 40_000, size]
    for start, stop in itertools.pairwise(cuts):
        part = [a[start:stop] for a in (pieces[0], pieces[1], *pieces[2])]
        kernels.update(name, part[0], part[1], part[2:], coefficients, isa=isa)
    assert [a.tobytes() for a in (pieces[0], *pieces[2])] == [a.tobytes() for a in (whole[0], *whole[2])]


@builds
@dtypes
@every_step
def test_by_rows_only_those_with_a_gradient_take_part(name, dtype, isa):
    coefficients = (0.75, *STEPS[name][1])
    for rows, width in ((1, 1), (5, 3), (9, 16), (40, 33), (3000, 20)):
        w, g, slots = draw(name, rows * width, dtype)
        seen = np.random.default_rng(1).random(rows) < 0.4
        seen[0] = True
        g.reshape(rows, width)[~seen] = 0
        g.reshape(rows, width)[seen, -1] = 1
        dense = [a.copy() for a in (w, *slots)]
        before = [a.copy() for a in (w, *slots)]
        kernels.update(name, dense[0], g, dense[1:], coefficients, isa=isa)
        candidates = kernels.Rows(rows)
        candidates.add(np.flatnonzero(seen)[::-1])
        candidates.add(np.arange(min(3, rows)))
        for known in (None, candidates):
            for threads in (1, 3):
                ours = [a.copy() for a in before]
                kernels.update(
                    name, ours[0], g, ours[1:], coefficients, width=width, rows=known, threads=threads, isa=isa
                )
                for value, moved, old in zip(ours, dense, before, strict=True):
                    expected = np.where(np.repeat(seen, width), moved, old)
                    np.testing.assert_array_equal(value, expected)


@builds
@dtypes
def test_passes_besides_the_steps(dtype, isa):
    for size in SIZES:
        w, g, (s,) = draw("adagrad", size, dtype)
        kernels.update("accumulate", None, g, (s.copy(),), (), isa=isa)
        total, mean = s.copy(), g.copy()
        kernels.update("accumulate", None, g, (total,), (), isa=isa)
        np.testing.assert_array_equal(total, s + g)
        kernels.update("take_mean", None, mean, (total,), (3,), isa=isa)
        np.testing.assert_array_equal(mean, (s + g) / np.asarray(3, dtype))
        assert not total.any()
        average = s.copy()
        kernels.update("average", w, None, (average,), (0.9,), isa=isa)
        np.testing.assert_allclose(average, 0.9 * s + 0.1 * w, rtol=ROUNDING[dtype], atol=ROUNDING[dtype])
        clipped, scaled = g.copy(), g.copy()
        clipped[-1] = np.nan
        kernels.update("clip", None, clipped, (), (0.5,), isa=isa)
        np.testing.assert_array_equal(clipped[:-1], np.clip(g, -0.5, 0.5)[:-1])
        assert np.isnan(clipped[-1])
        kernels.update("scale", None, scaled, (), (0.25,), isa=isa)
        np.testing.assert_array_equal(scaled, g * np.asarray(0.25, dtype))


@builds
@dtypes
def test_one_infinity_or_nan_anywhere_is_found(dtype, isa):
    for size in (1, 2, 7, 16, 33, 64, 127, 128, 129):
        a = np.random.default_rng(2).uniform(-1, 1, size).astype(dtype) * np.finfo(dtype).max
        assert kernels.all_finite(a, isa=isa)
        for place in range(size):
            for wrong in (np.nan, np.inf, -np.inf):
                spoiled = a.copy()
                spoiled[place] = wrong
                assert not kernels.all_finite(spoiled, isa=isa), (size, place, wrong)
    large = np.full(300_001, np.finfo(dtype).max, dtype)
    for place in (0, 2047, 2048, 150_000, 300_000):
        for threads in (1, 2, 3, 4):
            assert kernels.all_finite(large, threads=threads, isa=isa)
            large[place] = np.nan
            assert not kernels.all_finite(large, threads=threads, isa=isa)
            large[place] = 0
    assert kernels.all_finite(np.empty(0, dtype), isa=isa)


@builds
@dtypes
def test_norm_is_summed_in_double_in_a_fixed_order(dtype, isa):
    for size in (0, 1, 3, 8, 9, 2047, 2048, 2049, 200_003):
        a = np.random.default_rng(3).normal(size=size).astype(dtype)
        value = kernels.squared_norm(a, isa=isa)
        assert value == pytest.approx(math.fsum(float(x) ** 2 for x in a), rel=1e-13)
        assert {kernels.squared_norm(a, threads=t, isa=isa) for t in (1, 2, 3, 4)} == {value}
    assert kernels.squared_norm(np.full(4, 1e30, "float32"), isa=isa) == pytest.approx(4e60)
    assert math.isnan(kernels.squared_norm(np.array([1, np.nan]), isa=isa))


@dtypes
def test_an_update_is_bound_to_its_memory(dtype):
    w, g, slots = draw("adam", 300, dtype)
    ours = [a.copy() for a in (w, *slots)]
    rows = kernels.Rows(30)
    bound = kernels.Update("adam", ours[0], g, ours[1:], width=10, rows=rows)
    for step in range(1, 4):
        rows.add(np.array([step, 20 + step]))
        coefficients = (1.0, 0.01 * step, 0.9, 0.999, 1e-7)
        bound.run(coefficients, threads=step)
        kernels.update("adam", w, g, slots, coefficients, width=10, rows=rows)
        for a, b in zip(ours, (w, *slots), strict=True):
            np.testing.assert_array_equal(a, b)
        g[...] = -g
    with pytest.raises(ValueError, match=r"adam takes 5 coefficient\(s\); received 2"):
        bound.run((1.0, 2.0))
    with pytest.raises(TypeError, match="does not pickle"):
        copy.deepcopy(bound)


def test_what_an_update_refuses():
    w, g, m = np.zeros((3, 6))
    frozen = np.zeros(6)
    frozen.flags.writeable = False
    for arguments, options in (
        (("adan", w, g, (), (1, 1)), {}),
        (("sgd", w, g, (m,), (1, 1)), {}),
        (("sgd", w, g, (), (1,)), {}),
        (("momentum", w, g, (), (1, 1, 1)), {}),
        (("momentum", w, g, (m[:5],), (1, 1, 1)), {}),
        (("momentum", w, g, (m.astype("float32"),), (1, 1, 1)), {}),
        (("momentum", w, g, (None,), (1, 1, 1)), {}),
        (("sgd", frozen, g, (), (1, 1)), {}),
        (("sgd", None, g, (), (1, 1)), {}),
        (("sgd", w, None, (), (1, 1)), {}),
        (("sgd", w, g[:5], (), (1, 1)), {}),
        (("sgd", np.zeros(12)[::2], g, (), (1, 1)), {}),
        (("sgd", w, g, (), (1, "fast")), {}),
        (("clip", None, frozen, (), (1,)), {}),
        (("sgd", w, g, (), (1, 1)), {"width": 4}),
        (("sgd", w, g, (), (1, 1)), {"width": -1}),
        (("sgd", w, g, (), (1, 1)), {"rows": kernels.Rows(6)}),
        (("sgd", w, g, (), (1, 1)), {"width": 2, "rows": kernels.Rows(4)}),
        (("average", w, None, (m,), (0.9,)), {"width": 2}),
        (("sgd", w, g, (), (1, 1)), {"threads": 0}),
        (("sgd", w, g, (), (1, 1)), {"isa": "sse9"}),
    ):
        with pytest.raises((ValueError, TypeError)):
            kernels.update(*arguments, **options)
    for check in (kernels.all_finite, kernels.squared_norm):
        for wrong in (np.zeros(3, int), np.zeros(6)[::2], [1.0], np.zeros(3, ">f4")):
            with pytest.raises((ValueError, TypeError)):
                check(wrong)
