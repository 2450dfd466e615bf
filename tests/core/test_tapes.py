"""What passes between `forward` and `backward`, and what neither of them touches."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from kernel_cases import (
    BUILDS,
    CELLS,
    assert_close,
    assert_same_bits,
    by_kernel,
    by_reference,
    draw,
    error,
    pack,
    run_backward,
    run_forward,
)

from fastrnn._core import kernels

pytestmark = [pytest.mark.parametrize("isa", BUILDS), pytest.mark.parametrize("cell", CELLS)]


def some_case(cell, number=0, **keywords):
    return draw(np.random.default_rng([10, CELLS.index(cell), number]), cell, 5, 7, 6, 18, mask="holes", **keywords)


def test_forwards_may_run_before_their_backwards(cell, isa):
    cases = [some_case(cell, number, dropout=d) for number, d in enumerate(("none", "both", "shared"))]
    alone = [by_kernel(case, isa) for case in cases]
    packs = [pack(case, isa) for case in cases]
    forwards = [run_forward(case, packed) for case, packed in zip(cases, packs, strict=True)]
    for i in (1, 0, 2):
        outputs, tape = forwards[i]
        assert_same_bits({**outputs, **run_backward(cases[i], packs[i], tape)}, alone[i])


def test_one_pack_serves_many_runs(cell, isa):
    case, packed = some_case(cell), pack(some_case(cell), isa)
    first, tape = run_forward(case, packed)
    again, other_tape = run_forward(case, packed)
    assert_same_bits(again, first)
    assert_same_bits(run_backward(case, packed, other_tape), run_backward(case, packed, tape))


def test_a_tape_is_used_up_by_one_backward(cell, isa):
    case, packed = some_case(cell), pack(some_case(cell), isa)
    _, tape = run_forward(case, packed)
    run_backward(case, packed, tape)
    with pytest.raises(RuntimeError):
        run_backward(case, packed, tape)


def test_backward_adds_to_the_gradients_there_are(cell, isa):
    case, packed = some_case(cell), pack(some_case(cell), isa)
    expected = by_kernel(case, isa)
    start = np.random.default_rng(0)
    there = {f"d{n}": start.normal(size=getattr(case, n).shape) for n in ("kernel", "recurrent_kernel", "bias")}
    into = {name: value.copy() for name, value in there.items()}
    kernels.backward(packed, run_forward(case, packed)[1], case.dsequence, case.dlast, case.dfinal, **into)
    for name, value in into.items():
        assert error(value, there[name] + expected[name]) < 1e-14, name


def test_without_input_gradient_the_others_are_the_same(cell, isa):
    case, packed = some_case(cell), pack(some_case(cell), isa)
    run = run_backward(case, packed, run_forward(case, packed)[1], input_gradient=False)
    assert "dx" not in run
    expected = run_backward(case, packed, run_forward(case, packed)[1])
    del expected["dx"]
    assert_same_bits(run, expected)


@pytest.mark.parametrize("dtype", ("float32", "float64"))
def test_without_record_and_sequences_the_outputs_are_the_same(cell, isa, dtype):
    case = some_case(cell, dropout="both").astype(dtype)
    expected, _ = run_forward(case, pack(case, isa))
    inference = kernels.pack(case.cell, *case.weights(), isa=isa)
    for record in (False, True):
        for sequences in (False, True):
            outputs, tape = run_forward(case, inference, record=record, return_sequences=sequences)
            assert (tape is not None) == record and ("sequence" in outputs) == sequences
            assert_close(outputs, {name: expected[name] for name in outputs}, dtype)


def test_a_tape_without_sequences_takes_the_gradient_of_the_last_output(cell, isa):
    case = some_case(cell, gradients="lf")
    packed, expected = pack(case, isa), by_reference(case)
    outputs, tape = run_forward(case, packed, return_sequences=False)
    del expected["sequence"]
    assert_close({**outputs, **run_backward(case, packed, tape)}, expected, "float64")


def test_arguments_are_only_read(cell, isa):
    case = some_case(cell, dropout="both")
    arrays = [
        a for v in vars(case).values() for a in (v if isinstance(v, tuple) else (v,)) if isinstance(a, np.ndarray)
    ]
    before = [a.copy() for a in arrays]
    for a in arrays:
        a.flags.writeable = False
    by_kernel(case, isa, threads=2)
    for a, b in zip(arrays, before, strict=True):
        assert np.array_equal(a, b)


def test_packed_weights_are_a_copy(cell, isa):
    case, packed = some_case(cell), pack(some_case(cell), isa)
    expected, _ = run_forward(case, packed)
    changed = case.with_(**{n: getattr(case, n).copy() for n in ("kernel", "recurrent_kernel", "bias")})
    packed = pack(changed, isa)
    for weight in changed.weights():
        weight[:] = np.nan
    assert_same_bits(run_forward(case, packed)[0], expected)


def test_a_tape_outlives_what_it_was_made_from(cell, isa):
    expected = by_kernel(some_case(cell), isa)
    packed = pack(some_case(cell), isa)
    outputs, tape = run_forward(some_case(cell), packed)
    gc.collect()
    assert_same_bits({**outputs, **run_backward(some_case(cell), packed, tape)}, expected)


@pytest.mark.parametrize("dtype", ("float32", "float64"))
def test_nothing_outside_the_arrays_is_read_or_written(cell, isa, dtype):
    rng = np.random.default_rng(CELLS.index(cell))
    for shape in ((3, 4, 5, 7), (1, 1, 1, 1), (2, 3, 17, 33), (7, 2, 16, 16)):
        plain = draw(rng, cell, *shape, mask="holes", dropout="both").astype(dtype)
        expected = by_kernel(plain, isa)
        case = plain.with_(**{name: fenced_all(value) for name, value in vars(plain).items()})
        packed = pack(case, isa)
        outputs, tape = run_forward(case, packed)
        into = {f"d{n}": fenced(np.zeros_like(getattr(case, n))) for n in ("kernel", "recurrent_kernel", "bias")}
        dx, dinitial = kernels.backward(packed, tape, case.dsequence, case.dlast, case.dfinal, **into)
        run = {**outputs, **into, "dx": dx, **{f"dinitial_{i}": s for i, s in enumerate(dinitial)}}
        assert_same_bits(run, expected)
        for array in into.values():
            edge = array.base.reshape(-1)
            assert np.isnan(edge[:FENCE]).all() and np.isnan(edge[FENCE + array.size :]).all()


FENCE = 19


def fenced(a):
    """A copy of `a` between NaNs, at an address that no vector instruction likes."""
    field = np.full(a.size + 2 * FENCE, np.nan, a.dtype)
    field[FENCE : FENCE + a.size] = a.reshape(-1)
    return field[FENCE : FENCE + a.size].reshape(a.shape)


def fenced_all(value):
    if isinstance(value, tuple):
        return tuple(fenced_all(v) for v in value)
    return fenced(value) if isinstance(value, np.ndarray) and value.dtype != bool else value
