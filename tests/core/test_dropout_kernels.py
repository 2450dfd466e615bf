"""Random numbers by seed, call, draw and place: Philox 4x32-10, and what dropout makes of it."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_cases import BUILDS

from fastrnn._core import kernels

builds = pytest.mark.parametrize("isa", BUILDS)
dtypes = pytest.mark.parametrize("dtype", ("float32", "float64"))
SIZES = (1, 2, 31, 63, 64, 65, 127, 1000)
WORD = 2**32 - 1


def philox(counter, key):
    """Salmon et al. 2011, section 4.3, word by word."""
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [p1 >> 32 ^ c[1] ^ k0, p1 & WORD, p0 >> 32 ^ c[3] ^ k1, p0 & WORD]
        k0, k1 = k0 + 0x9E3779B9 & WORD, k1 + 0xBB67AE85 & WORD
    return c


def numbers(n, seed, call, draw):
    """Place 64 g + 32 h + 2 l + b has word 2 h + b of block 16 g + l."""
    found = np.zeros(-(-n // 64) * 64)
    for block in range(len(found) // 4):
        words = philox((block, draw, call & WORD, call >> 32), (seed & WORD, seed >> 32))
        g, lane = divmod(block, 16)
        for h in range(2):
            for b in range(2):
                found[64 * g + 32 * h + 2 * lane + b] = words[2 * h + b]
    return found[:n]


def test_the_reference_gives_the_published_numbers():
    """Known answers of the authors' library, Random123."""
    assert philox((0, 0, 0, 0), (0, 0)) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox((WORD,) * 4, (WORD, WORD)) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)
    assert philox(*pi) == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


@builds
@dtypes
def test_what_is_kept_follows_from_seed_call_draw_and_place(dtype, isa):
    for seed, call, draw in ((0, 0, 0), (1, 2, 3), (2**64 - 1, 2**64 - 1, WORD), (0x123456789ABCDEF, 2**33 + 5, 7)):
        words = numbers(300, seed, call, draw)
        for rate in (0.0, 0.1, 0.5, 0.999):
            for n in (1, 63, 64, 65, 300):
                m = kernels.dropout_factors((n,), dtype, rate, seed=seed, call=call, draw=draw, isa=isa)
                factor = np.asarray(1 / (1 - rate), dtype)
                np.testing.assert_array_equal(m, np.where(words[:n] >= rate * 2.0**32, factor, 0))


@builds
@dtypes
def test_dropout_multiplies_by_its_factors(dtype, isa):
    at = {"seed": 5, "call": 6, "draw": 7, "isa": isa}
    for n in SIZES:
        x = np.random.default_rng(n).normal(size=(n,)).astype(dtype)
        m = kernels.dropout_factors((n,), dtype, 0.3, **at)
        y, kept = kernels.dropout(x, 0.3, **at)
        np.testing.assert_array_equal(y, x * m)
        np.testing.assert_array_equal(kept, m != 0)
        np.testing.assert_array_equal(kernels.dropout_gradient(x, kept, 0.3, isa=isa), x * m)
    x = np.full((4, 5, 6), np.nan, dtype)
    y, kept = kernels.dropout(x, 0.5, **at)
    assert y.shape == kept.shape == x.shape and np.isnan(y[kept]).all() and (y[~kept] == 0).all()


@builds
@dtypes
def test_threads_change_no_bit(dtype, isa):
    x = np.random.default_rng(0).normal(size=(301, 333)).astype(dtype)
    found = set()
    for threads in (1, 2, 3, 4):
        y, kept = kernels.dropout(x, 0.4, seed=1, call=2, threads=threads, isa=isa)
        m = kernels.dropout_factors(x.shape, dtype, 0.4, seed=1, call=2, threads=threads, isa=isa)
        dx = kernels.dropout_gradient(x, kept, 0.4, threads=threads, isa=isa)
        found.add(b"".join(a.tobytes() for a in (y, kept, m, dx)))
    assert len(found) == 1


def test_streams_do_not_resemble_each_other():
    def kept(**changes):
        at = {"seed": 1, "call": 1, "draw": 0, **changes}
        return kernels.dropout_factors((100_000,), "float32", 0.5, **at) != 0

    one = kept()
    assert abs(one.mean() - 0.5) < 0.01
    assert abs((one[1:] == one[:-1]).mean() - 0.5) < 0.01 and abs((one[64:] == one[:-64]).mean() - 0.5) < 0.01
    for changes in ({"seed": 2}, {"seed": 1 + 2**32}, {"call": 2}, {"call": 1 + 2**32}, {"draw": 1}):
        assert abs((kept(**changes) == one).mean() - 0.5) < 0.01, changes


def test_what_dropout_refuses():
    x, kept, at = np.ones((2, 3)), np.ones((2, 3), bool), {"seed": 1, "call": 1}
    for call in (
        lambda: kernels.dropout(x, 1.0, **at),
        lambda: kernels.dropout(x, -0.1, **at),
        lambda: kernels.dropout(x, float("nan"), **at),
        lambda: kernels.dropout(x, 0.5, seed=-1, call=0),
        lambda: kernels.dropout(x, 0.5, seed=2**64, call=0),
        lambda: kernels.dropout(x, 0.5, seed=0, call=2**64),
        lambda: kernels.dropout(x, 0.5, **at, draw=2**32),
        lambda: kernels.dropout(x, 0.5, **at, threads=0),
        lambda: kernels.dropout(x, 0.5, **at, isa="sse9"),
        lambda: kernels.dropout(x.T, 0.5, **at),
        lambda: kernels.dropout(x.astype(int), 0.5, **at),
        lambda: kernels.dropout([1.0], 0.5, **at),
        lambda: kernels.dropout_gradient(x, kept[:1], 0.5),
        lambda: kernels.dropout_gradient(x, x, 0.5),
        lambda: kernels.dropout_gradient(x, None, 0.5),
        lambda: kernels.dropout_gradient(x.T, kept, 0.5),
        lambda: kernels.dropout_factors((3,), "int64", 0.5, **at),
    ):
        with pytest.raises((ValueError, TypeError)):
            call()
