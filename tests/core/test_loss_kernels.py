"""Softmax, losses with their gradients and the place of the maximum, row by row, against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_cases import BUILDS

from fastrnn._core import kernels

EPSILON = 1e-7
builds = pytest.mark.parametrize("isa", BUILDS)
dtypes = pytest.mark.parametrize("dtype", ("float32", "float64"))
every_loss = pytest.mark.parametrize("name", kernels.losses)
SIZES = ((1, 1), (1, 2), (3, 1), (2, 3), (5, 7), (4, 8), (3, 9), (6, 15), (2, 16), (2, 17), (3, 57), (2, 200))
ROUNDING = {"float32": 5e-6, "float64": 1e-13}


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def smoothed(y, s, n):
    return y * (1 - s) + s / n


def expected(name, y, p, smoothing=0.0, delta=1.0):
    """Values (P,) and slopes (P, C) by the formulas, of predictions off the clip."""
    family, _, form = name.partition("_")
    each, n = np.arange(len(p)), p.shape[1]
    if family in ("squared", "absolute", "huber", "log"):
        d = p - y
        c = np.clip(d, -delta, delta)
        value, slope = {
            "squared": (d**2, 2 * d),
            "absolute": (np.abs(d), np.sign(d)),
            "huber": (c * (d - c / 2), c),
            "log": (np.log(np.cosh(d)), np.tanh(d)),
        }[family]
        return value.mean(axis=1), slope / n
    if family == "binary":
        y = smoothed(y, smoothing, 2)
        q = 1 / (1 + np.exp(-p)) if form == "logits" else p
        slope = (q - y) / (q * (1 - q)) if form == "probabilities" else q - y
        return -(y * np.log(q) + (1 - y) * np.log(1 - q)).mean(axis=1), slope / n
    y = np.eye(n)[y] if family == "sparse" else smoothed(y, smoothing, n)
    total = p.sum(axis=1, keepdims=True) if form == "probabilities" else 1
    q = softmax(p) if form == "logits" else p / total
    mass = y.sum(axis=1, keepdims=True)
    slope = (mass - y / q) / total if form == "probabilities" else q * mass - y
    assert each.size == len(q)
    return -(y * np.log(q)).sum(axis=1), slope


def draw(name, rows, classes, dtype, seed=0):
    rng = np.random.default_rng([seed, rows, classes])
    if name.startswith(("squared", "absolute", "huber", "log")):
        return rng.normal(size=(rows, classes)).astype(dtype), (3 * rng.normal(size=(rows, classes))).astype(dtype)
    p = 3 * rng.normal(size=(rows, classes))
    if name.endswith("probabilities") or name == "binary_fused":
        p = rng.uniform(0.05, 0.9, (rows, classes))
    elif name.endswith("fused"):
        p = softmax(p / 3)  # off the clip
    y = rng.integers(0, classes, rows) if name.startswith("sparse") else rng.random((rows, classes)).astype(dtype)
    return y, p.astype(dtype)


def exact(y, p):
    return y if y.dtype == np.int64 else y.astype(float), p.astype(float)


@builds
@dtypes
@every_loss
def test_value_and_gradient_equal_the_formula(name, dtype, isa):
    for rows, classes in SIZES:
        if classes == 1 and "probabilities" not in name and name.startswith(("categorical", "sparse")):
            continue  # one class has probability 1, which lies in the clip
        y, p = draw(name, rows, classes, dtype)
        smoothing = 0.0 if name.startswith("sparse") else 0.2
        if classes == 1 and name in ("categorical_probabilities", "sparse_probabilities"):
            continue
        options = {"smoothing": smoothing, "epsilon": EPSILON, "delta": 0.7}
        values, slope = expected(name, *exact(y, p), smoothing, 0.7)
        total, ours, dy, wrong = kernels.loss(name, y, p, **options, isa=isa)
        assert wrong == -1 and ours.dtype == dy.dtype == dtype
        bound = ROUNDING[dtype]
        np.testing.assert_allclose(ours, values, rtol=bound, atol=bound)
        np.testing.assert_allclose(dy, slope, rtol=20 * bound, atol=bound)
        assert total == pytest.approx(values.sum(), rel=10 * bound)
        weights = np.random.default_rng(1).uniform(0.5, 2, rows)
        total, again, dy, _ = kernels.loss(name, y, p, weights=weights, divisor=3.0, **options, isa=isa)
        np.testing.assert_array_equal(again, ours)
        np.testing.assert_allclose(dy, slope * weights[:, None] / 3, rtol=20 * bound, atol=bound)
        assert total == pytest.approx((values * weights).sum() / 3, rel=10 * bound)
        value_only = kernels.loss(name, y, p, weights=weights, divisor=3.0, **options, gradient=False, isa=isa)
        assert value_only[0] == total and value_only[2] is None


@every_loss
def test_gradient_is_the_slope_of_the_total(name):
    if name.endswith("fused"):
        pytest.skip("its gradient is that of what went into the activation: see the losses")
    for classes in (2, 5, 11):
        y, p = draw(name, 4, classes, "float64")
        weights = np.array([0.5, 2.0, 1.0, 3.0])

        def total(q, y=y, weights=weights):
            return kernels.loss(name, y, q, weights=weights, divisor=2, epsilon=EPSILON, gradient=False)[0]

        dy = kernels.loss(name, y, p, weights=weights, divisor=2, epsilon=EPSILON)[2]
        for place in np.ndindex(p.shape):
            up, down = p.copy(), p.copy()
            up[place] += 1e-6
            down[place] -= 1e-6
            assert dy[place] == pytest.approx((total(up) - total(down)) / 2e-6, rel=1e-6, abs=1e-7), place


@builds
@dtypes
@every_loss
def test_rows_that_are_not_kept_are_not_looked_at(name, dtype, isa):
    for rows, classes in ((9, 3), (9, 17)):
        y, p = draw(name, rows, classes, dtype)
        kept = np.array([True, False, True, True, False, True, False, False, True])
        weights = np.random.default_rng(2).uniform(0.5, 2, rows)
        poisoned_y, poisoned_p, poisoned_w = y.copy(), p.copy(), weights.copy()
        poisoned_p[~kept] = np.nan
        poisoned_y[~kept] = -7 if y.dtype == np.int64 else np.nan
        poisoned_w[~kept] = np.nan
        options = {"divisor": 2.0, "epsilon": EPSILON, "isa": isa}
        total, values, dy, wrong = kernels.loss(name, poisoned_y, poisoned_p, kept=kept, weights=poisoned_w, **options)
        alone = kernels.loss(name, y[kept], p[kept], weights=weights[kept], **options)
        assert wrong == -1 and total == alone[0]
        np.testing.assert_array_equal(values[kept], alone[1])
        np.testing.assert_array_equal(dy[kept], alone[2])
        assert not values[~kept].any() and not dy[~kept].any()


@builds
@dtypes
@every_loss
def test_nan_in_a_row_that_counts_is_seen(name, dtype, isa):
    for place in (0, 3, 11):
        y, p = draw(name, 3, 12, dtype)
        if name.startswith("sparse"):
            y[1] = place
        p[1, place] = np.nan
        total, values, dy, _ = kernels.loss(name, y, p, epsilon=EPSILON, isa=isa)
        assert np.isnan(total) and np.isnan(values[1])
        assert np.isnan(dy[1, place]) or name == "binary_probabilities"
        assert np.isfinite(values[[0, 2]]).all() and np.isfinite(dy[[0, 2]]).all()


@builds
@dtypes
@every_loss
def test_threads_change_no_bit(name, dtype, isa):
    y, p = draw(name, 4001, 13, dtype)
    kept = np.random.default_rng(3).random(4001) < 0.8
    found = set()
    for threads in (1, 2, 3, 4):
        total, values, dy, _ = kernels.loss(name, y, p, kept=kept, epsilon=EPSILON, threads=threads, isa=isa)
        found.add((total, values.tobytes(), dy.tobytes()))
    assert len(found) == 1


@builds
@every_loss
def test_impossible_targets_are_found(name, isa):
    if name.startswith(("squared", "absolute", "huber", "log")):
        return
    for rows, bad in ((3, [1]), (500, [499]), (5000, [4000, 17, 4999])):
        y, p = draw(name, rows, 20, "float64")
        for wrong in (-1, 20) if name.startswith("sparse") else (-0.01, 1.01, np.nan):
            spoiled = y.copy()
            if name.startswith("sparse"):
                spoiled[bad] = wrong
            else:
                spoiled[bad, -1] = wrong
            for threads in (1, 4):
                assert kernels.loss(name, spoiled, p, epsilon=EPSILON, threads=threads, isa=isa)[3] == min(bad)
    rounded = y * (1 + 5e-7) if y.dtype != np.int64 else y
    assert kernels.loss(name, rounded, p, epsilon=EPSILON, isa=isa)[3] == -1


@builds
@dtypes
def test_clip_holds_values_and_stops_gradients(dtype, isa):
    p = np.array([[0.0, 1.0, 0.0]], dtype)
    limit = -np.log(EPSILON)
    total, _, dy, _ = kernels.loss("sparse_fused", np.array([0]), p, epsilon=EPSILON, isa=isa)
    assert total == pytest.approx(limit, rel=1e-6) and dy.tolist() == [[-1, 1, 0]]
    total, _, dy, _ = kernels.loss("sparse_probabilities", np.array([0]), p, epsilon=EPSILON, isa=isa)
    assert total == pytest.approx(limit, rel=1e-6) and not dy.any()
    y = np.array([[1, 0, 0]], dtype)
    total, _, dy, _ = kernels.loss("categorical_fused", y, p, epsilon=EPSILON, isa=isa)
    assert total == pytest.approx(limit, rel=1e-6) and dy.tolist() == [[-1, 1, 0]]
    for name in ("categorical_probabilities", "binary_probabilities"):
        assert not kernels.loss(name, y, p, epsilon=EPSILON, isa=isa)[2].any()


@builds
@dtypes
def test_large_logits_stay_finite(dtype, isa):
    z = np.array([[1e4, -1e4, 0, 3], [-1e4, 1e4, 5, -5]], dtype)
    for name, y in (
        ("sparse_logits", np.array([1, 0])),
        ("categorical_logits", np.eye(4, dtype=dtype)[[1, 0]]),
        ("binary_logits", np.array([[0, 1, 1, 0]] * 2, dtype)),
    ):
        total, _, dz, _ = kernels.loss(name, y, z, isa=isa)
        assert np.isfinite(total) and total >= 5e3 and np.isfinite(dz).all()


@builds
@dtypes
def test_softmax_of_rows(dtype, isa):
    for rows, n in (*SIZES, (40, 1000)):
        x = (3 * np.random.default_rng(4).normal(size=(rows, n))).astype(dtype)
        y = kernels.softmax(x, isa=isa)
        np.testing.assert_allclose(y, softmax(x.astype(float)), rtol=ROUNDING[dtype], atol=1e-30)
        assert {kernels.softmax(x, threads=t, isa=isa).tobytes() for t in (1, 2, 3, 4)} == {y.tobytes()}
        over = x.copy()
        assert kernels.softmax(over, out=over, isa=isa) is over and over.tobytes() == y.tobytes()
    far = np.array([[-1e30, 0, 1e4, -np.inf], [1e4, 1e4, np.nan, 0], [5, 5, 5, 5]], dtype)
    y = kernels.softmax(far, isa=isa)
    assert y[0].tolist() == [0, 0, 1, 0] and np.isnan(y[1]).all() and y[2].tolist() == [0.25] * 4
    assert kernels.softmax(np.zeros((0, 3), dtype), isa=isa).shape == (0, 3)
    np.testing.assert_allclose(
        kernels.softmax(np.log(np.array([1, 3, 4], dtype)), isa=isa), [0.125, 0.375, 0.5], rtol=1e-6
    )


@builds
@dtypes
@pytest.mark.parametrize("name", ("categorical_fused", "sparse_fused"))
def test_a_loss_that_takes_the_softmax_itself_has_the_same_bits(name, dtype, isa):
    rng = np.random.default_rng(6)
    for rows, n in (*SIZES, (300, 250)):
        y, _ = draw(name, rows, n, dtype)
        z = (3 * rng.normal(size=(rows, n))).astype(dtype)
        kept, weights = rng.random(rows) < 0.7, rng.uniform(0.5, 2, rows)
        z[~kept] = np.nan
        for options in ({"kept": kept}, {"kept": kept, "weights": weights, "divisor": 3.0}):
            p = kernels.softmax(z, isa=isa)
            total, values, dy, _ = kernels.loss(name, y, p, epsilon=EPSILON, isa=isa, **options)
            for threads in (1, 3):
                over = z.copy()
                found = kernels.loss(name, y, over, softmax=True, epsilon=EPSILON, threads=threads, isa=isa, **options)
                assert found[2] is over and found[0] == total and found[3] == -1
                np.testing.assert_array_equal(found[1], values)
                np.testing.assert_array_equal(over, dy)


@builds
@dtypes
def test_argmax_is_that_of_numpy(dtype, isa):
    rng = np.random.default_rng(5)
    for rows, n in (*SIZES, (300, 250)):
        for a in (rng.normal(size=(rows, n)), rng.integers(0, 3, (rows, n)), np.full((rows, n), -np.inf)):
            a = a.astype(dtype)
            for place in (None, 0, n // 2, n - 1):
                if place is not None:
                    a[0, place] = np.nan
                for threads in (1, 3):
                    np.testing.assert_array_equal(kernels.argmax_rows(a, threads=threads, isa=isa), a.argmax(axis=-1))
                    other = rng.permutation(a)
                    same = kernels.same_argmax(a, other, threads=threads, isa=isa)
                    np.testing.assert_array_equal(same, a.argmax(axis=-1) == other.argmax(axis=-1))
    a = rng.normal(size=(4, 5, 6)).astype(dtype)
    assert kernels.same_argmax(a, a, isa=isa).all() and kernels.same_argmax(a, a, isa=isa).shape == (4, 5)
    np.testing.assert_array_equal(kernels.argmax_rows(a, isa=isa), a.argmax(axis=-1))
    assert kernels.argmax_rows(a[0, 0], isa=isa) == a[0, 0].argmax()


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def test_what_a_loss_refuses():
    y, p = np.zeros((4, 3)), np.full((4, 3), 0.5)
    for arguments, options in (
        (("squared", y, p), {}),
        (("squared_error", y, p[0]), {}),
        (("squared_error", y[:3], p), {}),
        (("squared_error", y.astype("float32"), p), {}),
        (("squared_error", y, np.asfortranarray(p)), {}),
        (("squared_error", y, p.astype(int)), {}),
        (("squared_error", y, p.tolist()), {}),
        (("squared_error", None, p), {}),
        (("squared_error", y, None), {}),
        (("sparse_fused", None, p), {}),
        (("sparse_fused", np.zeros(4), p), {}),
        (("sparse_fused", np.zeros(4, "int32"), p), {}),
        (("sparse_fused", np.zeros((4, 1), int), p), {}),
        (("squared_error", y, p), {"kept": np.ones(3, bool)}),
        (("squared_error", y, p), {"kept": np.ones(4)}),
        (("squared_error", y, p), {"weights": np.ones(4, "float32")}),
        (("squared_error", y, p), {"weights": np.ones((4, 1))}),
        (("squared_error", y, p), {"threads": 0}),
        (("squared_error", y, p), {"softmax": True}),
        (("categorical_logits", y, p), {"softmax": True}),
        (("categorical_fused", y, p), {"softmax": True, "gradient": False}),
        (("categorical_fused", y[:, :0], p[:, :0]), {"softmax": True}),
        (("categorical_fused", y, read_only(p)), {"softmax": True}),
        (("squared_error", y, p), {"isa": "sse9"}),
    ):
        with pytest.raises((ValueError, TypeError)):
            kernels.loss(*arguments, **options)
    frozen = read_only(np.zeros((2, 2)))
    for call in (
        lambda: kernels.softmax(1.0),
        lambda: kernels.softmax(np.zeros(3, int)),
        lambda: kernels.softmax(np.zeros((4, 3)).T),
        lambda: kernels.softmax(np.zeros((2, 2)), out=frozen),
        lambda: kernels.softmax(np.zeros((2, 2)), out=np.zeros((2, 3))),
        lambda: kernels.argmax_rows(np.zeros((2, 0))),
        lambda: kernels.same_argmax(np.zeros((2, 0)), np.zeros((2, 0))),
        lambda: kernels.same_argmax(np.zeros((2, 3)), np.zeros((2, 4))),
        lambda: kernels.same_argmax(np.zeros((2, 3)), np.zeros((2, 3), "float32")),
        lambda: kernels.same_argmax(np.zeros((2, 3)), None),
        lambda: kernels.argmax_rows(np.zeros((2, 3), int)),
    ):
        with pytest.raises((ValueError, TypeError)):
            call()
