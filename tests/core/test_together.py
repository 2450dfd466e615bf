"""Two cells that run at once give what each gives alone, into arrays of their own or into columns of one."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_cases import BUILDS, CELLS, Case, assert_same_bits, by_kernel, draw, pack

from fastrnn._core import kernels

THREADS = (1, 2, 3, 4, 6)
GRADIENTS = ("dkernel", "drecurrent_kernel", "dbias")


def gradients_of(case: Case) -> dict[str, np.ndarray]:
    return {
        name: np.zeros_like(weight)
        for name, weight in zip(GRADIENTS, case.weights(), strict=True)
        if weight is not None
    }


def together(cases, isa, threads, wide=True):
    """Both cases in one call each way; with `wide` sequences and their gradients are columns of one array."""
    packs = [pack(case, isa) for case in cases]
    batch, time = cases[0].x.shape[:2]
    units = [case.shape[3] for case in cases]
    whole = np.full((batch, time, sum(units)), np.nan, cases[0].x.dtype)
    columns = [whole[..., : units[0]], whole[..., units[0] :]]
    calls = [
        kernels.Forward(packed, case.x, **case.arguments(), record=True, out=out if wide else None)
        for case, packed, out in zip(cases, packs, columns, strict=True)
    ]
    kernels.run_forward(*calls, threads=threads)
    dwhole = np.concatenate([case.dsequence for case in cases], axis=-1)
    dcolumns = [dwhole[..., : units[0]], dwhole[..., units[0] :]]
    into = [gradients_of(case) for case in cases]
    back = [
        kernels.Backward(packed, call.tape, d if wide else case.dsequence, case.dlast, case.dfinal, **own)
        for packed, call, d, case, own in zip(packs, calls, dcolumns, cases, into, strict=True)
    ]
    kernels.run_backward(*back, threads=threads)
    runs = []
    for case, call, b, own in zip(cases, calls, back, into, strict=True):
        run = {"sequence": np.ascontiguousarray(call.sequence), "last": call.last, "dx": b.dx, **own}
        states = range(len(call.final_state))
        run |= {f"final_{i}": call.final_state[i] for i in states} | {f"dinitial_{i}": b.dinitial[i] for i in states}
        runs.append(run)
        assert case.x.shape == b.dx.shape
    return runs


def pairs(rng, cell, batch, time, features, units, other):
    """Two cases of the same batch and time, one of each direction."""
    for mask in ("none", "holes"):
        first = draw(rng, cell, batch, time, features, units, mask=mask)
        second = draw(rng, cell, batch, time, features, other, mask=mask)
        options = {**second.options, "go_backwards": True, "original_time": True}
        yield [
            case.with_(dsequence=rng.normal(size=(batch, time, case.shape[3])).astype(case.x.dtype))
            for case in (first, second.with_(options=options))
        ]


@pytest.mark.parametrize("isa", BUILDS)
@pytest.mark.parametrize("dtype", ("float32", "float64"))
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "shape", ((1, 40, 30, 130, 130), (9, 20, 31, 65, 33), (3, 1, 1, 1, 1), (33, 25, 24, 20, 168)), ids=str
)
def test_two_at_once_give_what_each_gives_alone(shape, cell, dtype, isa):
    """Where one is done long before the other, its threads help with that."""
    rng = np.random.default_rng([21, *shape])
    for pair in pairs(rng, cell, *shape):
        cases = [case.astype(dtype) for case in pair]
        expected = [by_kernel(case, isa) for case in cases]
        for threads in THREADS:
            for run, alone in zip(together(cases, isa, threads, wide=threads != 4), expected, strict=True):
                assert_same_bits(run, alone)


def test_out_and_the_gradient_may_be_columns_but_nothing_stranger():
    case = draw(np.random.default_rng(22), "lstm", 2, 3, 4, 5)
    packed = pack(case, None)
    whole = np.zeros((2, 3, 10), case.x.dtype)
    for out in (whole[..., ::2], whole[:, ::-1, :5], np.zeros((3, 2, 5), case.x.dtype).swapaxes(0, 1)):
        with pytest.raises(ValueError, match="out"):
            kernels.Forward(packed, case.x, out=out)
    with pytest.raises(ValueError, match="out must have shape"):
        kernels.Forward(packed, case.x, out=whole[..., :4])
    with pytest.raises(TypeError, match="out must have dtype"):
        kernels.Forward(
            packed, case.x, out=whole[..., :5].astype("float32" if case.x.dtype == "float64" else "float64")
        )
    whole.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        kernels.Forward(packed, case.x, out=whole[..., :5])


def test_a_call_runs_once_and_two_must_fit():
    rng = np.random.default_rng(23)
    case = draw(rng, "gru", 2, 3, 4, 5).astype("float32")
    packed = pack(case, None)
    call = kernels.Forward(packed, case.x, record=True)
    kernels.run_forward(call)
    with pytest.raises(RuntimeError, match="has run"):
        kernels.run_forward(call)
    with pytest.raises(RuntimeError, match="has run"):
        kernels.run_forward(kernels.Forward(packed, case.x), call)
    double = case.astype("float64")
    with pytest.raises(ValueError, match="one dtype"):
        kernels.run_forward(kernels.Forward(packed, case.x), kernels.Forward(pack(double, None), double.x))
    same = kernels.Forward(packed, case.x)
    with pytest.raises(RuntimeError, match="has run"):
        kernels.run_forward(same, same)
    back = kernels.Backward(packed, call.tape)
    with pytest.raises(ValueError, match="a tape each"):
        kernels.run_backward(back, kernels.Backward(packed, call.tape))
    kernels.run_backward(back)
    with pytest.raises(RuntimeError, match="used by a backward pass"):
        kernels.run_backward(back)
