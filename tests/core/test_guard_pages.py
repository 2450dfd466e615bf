"""Kernels touch nothing behind the arrays they are given: each one here ends where a page begins that may not be
touched. One step too far, and the fresh Python that a test runs in dies."""

from __future__ import annotations

import sys

import pytest
from fresh_python import run
from kernel_cases import BUILDS, CELLS

SETUP = """
import ctypes, mmap
import numpy as np
from fastrnn._core import kernels
from kernel_cases import by_kernel, assert_same_bits, draw, pack, run_forward

libc = ctypes.CDLL(None, use_errno=True)

def guarded(a):
    pages = -(-a.nbytes // mmap.PAGESIZE)
    memory = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
    end = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + pages * mmap.PAGESIZE
    assert libc.mprotect(ctypes.c_void_p(end), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    copy = np.frombuffer(memory, a.dtype, a.size, pages * mmap.PAGESIZE - a.nbytes).reshape(a.shape)
    copy[...] = a
    return copy

def guarded_all(value):
    if isinstance(value, tuple):
        return tuple(map(guarded_all, value))
    return guarded(value) if isinstance(value, np.ndarray) else value

rng = np.random.default_rng(23)
"""

SEQUENCES = """
for shape in ((1, 1, 1, 1), (2, 3, 3, 5), (3, 2, 7, 15), (2, 2, 17, 33), (7, 2, 16, 64), (5, 3, 65, 70)):
    for mask, dropout in (("none", "none"), ("holes", "both"), ("right", "shared")):
        case = draw(rng, CELL, *shape, mask=mask, dropout=dropout).astype(DTYPE)
        expected = by_kernel(case, ISA)
        case = case.with_(**{name: guarded_all(value) for name, value in vars(case).items()})
        packed = pack(case, ISA)
        outputs, tape = run_forward(case, packed)
        into = {f"d{n}": guarded(np.zeros_like(getattr(case, n))) for n in ("kernel", "recurrent_kernel", "bias")}
        dx, dinitial = kernels.backward(packed, tape, case.dsequence, case.dlast, case.dfinal, **into)
        assert_same_bits(
            {**outputs, **into, "dx": dx, **{f"dinitial_{i}": s for i, s in enumerate(dinitial)}}, expected
        )
"""

PLAIN = """
for m in (1, 3, 6, 7, 13):
    for n in (1, 5, 16, 17, 33, 70):
        for k in (1, 2, 17, 65):
            a, b = rng.normal(size=(m, k)).astype(DTYPE), rng.normal(size=(k, n)).astype(DTYPE)
            out, bias = np.zeros((m, n), DTYPE), np.ones(n, DTYPE)
            for accumulate in (False, True):
                kw = {"accumulate": accumulate, "isa": ISA}
                kernels.product(guarded(a), guarded(b), out=guarded(out), **kw)
                sums = guarded(np.zeros(n, DTYPE))
                kernels.product(guarded(a.T.copy()), guarded(b), transpose_a=True, out=guarded(out), sums=sums, **kw)
                kernels.product(guarded(a), guarded(b.T.copy()), transpose_b=True, out=guarded(out), **kw)
            kernels.product(guarded(a), guarded(b), bias=guarded(bias), out=guarded(out), isa=ISA)
        ids = guarded(np.arange(m))
        kernels.gather_rows(guarded(np.ones((m, n), DTYPE)), ids)
        kernels.scatter_add_rows(guarded(np.zeros((m, n), DTYPE)), ids, guarded(np.ones((m, n), DTYPE)))
for name in kernels.activations:
    for n in range(1, 70):
        kernels.activate(name, guarded(np.ones(n, DTYPE)), isa=ISA)
"""

STREAMS = """
from types import SimpleNamespace

def operation(kind, columns, **options):
    plain = {"activation": "tanh", "recurrent_activation": "tanh", "skipped": "zero", "mask_zero": 1, "mask_value": 0}
    return SimpleNamespace(kind=kind, columns=columns, name=kind, **plain, **options)

for batch, features, units in ((1, 1, 1), (1, 7, 15), (1, 17, 33), (2, 3, 5), (3, 16, 64), (5, 65, 70)):
    for cell in CELLS:
        case = draw(rng, cell, batch, 3, features, units).astype(DTYPE)
        packed = kernels.pack(cell, *map(guarded, case.weights()), isa=ISA)
        kernel, bias = guarded(rng.normal(size=(units, 9)).astype(DTYPE)), guarded(np.ones(9, DTYPE))
        dense, table = kernels.pack_dense(kernel, bias, isa=ISA), guarded(np.ones((4, features), DTYPE))
        states = kernels.cells[cell].states
        rest = [
            operation("mask", features),
            operation("cell", units, weights=lambda: packed, states=states),
            operation("dense", 9, weights=lambda: dense),
            operation("activate", 9),
            operation("softmax", 9),
        ]
        stream = kernels.Stream(DTYPE, batch, features, rest, isa=ISA)
        for t in range(3):
            stream.step(guarded(case.x[:, t]), out=guarded(np.zeros((batch, 9), DTYPE)))
        embedding = operation("embed", features, weights=lambda: table)
        words = kernels.Stream(DTYPE, batch, None, [embedding, *rest], isa=ISA)
        for id in range(4):
            words.step(guarded(np.full(batch, id)), out=guarded(np.zeros((batch, 9), DTYPE)))
"""


def run_with(script: str, **names: str) -> None:
    for name, value in names.items():
        script = script.replace(name, repr(value))
    run(SETUP + script)


pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="protects pages by Linux's mprotect"),
    pytest.mark.parametrize("isa", BUILDS),
    pytest.mark.parametrize("dtype", ("float32", "float64")),
]


@pytest.mark.parametrize("cell", CELLS)
def test_sequences(cell, dtype, isa):
    run_with(SEQUENCES, CELL=cell, DTYPE=dtype, ISA=isa)


def test_streams(dtype, isa):
    run_with("from kernel_cases import CELLS\n" + STREAMS, DTYPE=dtype, ISA=isa)


def test_products_rows_and_activations(dtype, isa):
    run_with(PLAIN, DTYPE=dtype, ISA=isa)
