"""The door refuses what C must never see: ValueError or TypeError, whichever argument is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_cases import CELLS, assert_same_bits, by_kernel, draw, pack, run_backward, run_forward

from fastrnn._core import kernels

B, T, D, H = 3, 4, 5, 6
refused = pytest.raises((ValueError, TypeError))
cells = pytest.mark.parametrize("cell", CELLS)


def some_case(cell):
    return draw(np.random.default_rng([22, CELLS.index(cell)]), cell, B, T, D, H, mask="holes", dropout="both")


def spoil(a):
    """Versions of `a` that are each wrong in one way."""
    wider = np.concatenate([a, a], axis=-1)
    return {
        "dtype": a.astype(np.float32),
        "half": a.astype(np.float16),
        "integers": a.astype(np.int64),
        "bytes swapped": a.astype(a.dtype.newbyteorder()),
        "complex": a.astype(complex),
        "objects": a.astype(object),
        "strided": wider[..., ::2],
        "column order": np.asfortranarray(a) if a.ndim > 1 and min(a.shape[-2:]) > 1 else wider[..., ::2],
        "too wide": wider,
        "too long": np.concatenate([a, a]),
        "a row less": a[:-1],
        "another axis": a[None],
        "an axis less": a.reshape(-1) if a.ndim > 1 else a.reshape(-1, 1),
        "a list": a.tolist(),
        "a number": 1.0,
    }


WRONG = tuple(spoil(np.ones((2, 2))))


@pytest.mark.parametrize("wrong", WRONG)
@cells
def test_pack_checks_every_weight(cell, wrong):
    case = some_case(cell)
    weights = {"kernel": case.kernel, "recurrent_kernel": case.recurrent_kernel, "bias": case.bias}
    for name, value in weights.items():
        if name == "kernel" and wrong in ("too long", "a row less"):
            continue  # another number of features
        with refused:
            kernels.pack(cell, **{**weights, name: spoil(value)[wrong]})


@cells
def test_pack_checks_sizes_and_names(cell):
    case = some_case(cell)
    gates = len(kernels.cells[cell].gates)
    with refused:
        kernels.pack(cell, np.ones((D, 0)), np.ones((0, 0)))
    with refused:
        kernels.pack(cell, np.ones((0, gates * H)), case.recurrent_kernel)
    with refused:
        kernels.pack(cell, None, case.recurrent_kernel)
    with refused:
        kernels.pack("lstn", case.kernel, case.recurrent_kernel)
    with refused:
        kernels.pack(cell, case.kernel, case.recurrent_kernel, isa="sse9")


@pytest.mark.parametrize("wrong", WRONG)
@cells
def test_forward_checks_every_array(cell, wrong):
    case = some_case(cell)
    packed = pack(case)
    without = case.with_(initial_state=None, mask=None, input_dropout=None, recurrent_dropout=None)
    if wrong not in ("too long", "a row less"):  # another batch
        with refused:
            run_forward(without.with_(x=spoil(case.x)[wrong]), packed)
    for i, state in enumerate(case.initial_state):
        states = list(case.initial_state)
        states[i] = spoil(state)[wrong]
        with refused:
            run_forward(case.with_(initial_state=tuple(states)), packed)
    if wrong != "bytes swapped":  # bool has one byte
        with refused:
            run_forward(case.with_(mask=spoil(case.mask)[wrong]), packed)
    for name in ("input_dropout", "recurrent_dropout"):
        if wrong == "a row less" and len(getattr(case, name)[:-1]) == 1 and name == "input_dropout":
            continue  # one for all gates
        with refused:
            run_forward(case.with_(**{name: spoil(getattr(case, name))[wrong]}), packed)


@cells
def test_forward_checks_counts_and_names(cell):
    case, packed = some_case(cell), pack(some_case(cell))
    plain = case.with_(mask=None, input_dropout=None, recurrent_dropout=None, initial_state=None)
    for changes in (
        {"x": np.ones((0, T, D))},
        {"x": np.ones((B, 0, D))},
        {"initial_state": ()},
        {"initial_state": (np.ones((B, H)),) * (kernels.cells[cell].states + 1)},
        {"mask": np.ones((B, T, 1), bool)},
        {"mask": np.ones((T, B), bool)},
        {"input_dropout": np.ones((B, D))},
        {"input_dropout": np.ones((5, B, D))},
        {"options": {"activation": "gelu"}},
        {"options": {"recurrent_activation": "softmax"}},
        {"options": {"activation": None}},
    ):
        with refused:
            run_forward(plain.with_(**changes), packed)
    for threads in (0, -1, "two"):
        with refused:
            run_forward(case, packed, threads=threads)
    for not_packed in (None, case.kernel, object()):
        with refused:
            run_forward(case, not_packed)


@pytest.mark.parametrize("wrong", WRONG)
@cells
def test_backward_checks_every_array_and_leaves_gradients_alone(cell, wrong):
    case, packed = some_case(cell), pack(some_case(cell))
    for name in ("dsequence", "dlast"):
        with refused:
            attempt(case.with_(**{name: spoil(getattr(case, name))[wrong]}), packed)
    with refused:
        attempt(case.with_(dfinal=(*case.dfinal[:-1], spoil(case.dfinal[-1])[wrong])), packed)
    for name in ("kernel", "recurrent_kernel", "bias"):
        with refused:
            attempt(case, packed, **{f"d{name}": spoil(np.zeros_like(getattr(case, name)))[wrong]})


def attempt(case, packed, **into):
    zeros = {f"d{n}": np.zeros_like(getattr(case, n)) for n in ("kernel", "recurrent_kernel", "bias")}
    _, tape = run_forward(case, packed)
    try:
        kernels.backward(packed, tape, case.dsequence, case.dlast, case.dfinal, **{**zeros, **into})
    finally:
        assert not any(z.any() for z in zeros.values())


@cells
def test_backward_checks_counts(cell):
    case, packed = some_case(cell), pack(some_case(cell))
    read_only = np.zeros_like(case.kernel)
    read_only.flags.writeable = False
    with refused:
        attempt(case, packed, dkernel=read_only)
    with refused:
        attempt(case, packed, dkernel=None)
    with refused:
        attempt(case.with_(dfinal=()), packed)
    with refused:
        attempt(case.with_(dfinal=case.dfinal * 2), packed)


@cells
def test_backward_wants_a_tape_of_these_weights(cell):
    case, packed = some_case(cell), pack(some_case(cell))
    for not_a_tape in (None, object(), packed):
        with refused:
            run_backward(case, packed, not_a_tape)
    rng = np.random.default_rng(0)
    other_cell = CELLS[CELLS.index(cell) - 1]
    others = [
        draw(rng, cell, B, T, D + 1, H),
        draw(rng, cell, B, T, D, H + 1),
        draw(rng, other_cell, B, T, D, H),
        draw(rng, cell, B, T, D, H).astype(np.float32),
    ]
    for other in others:
        _, tape = run_forward(other, pack(other))
        with refused:
            run_backward(case, packed, tape)
    inference = kernels.pack(cell, *case.weights())
    with refused:
        run_backward(case, inference, run_forward(case, inference)[1])


def test_a_refused_call_breaks_nothing():
    case = some_case("lstm")
    expected, packed = by_kernel(case), pack(case)
    outputs, tape = run_forward(case, packed)
    with refused:
        run_backward(case.with_(dlast=np.ones((B, H + 1))), packed, tape)
    assert_same_bits({**outputs, **run_backward(case, packed, tape)}, expected)


@pytest.mark.parametrize("wrong", WRONG)
def test_product_checks_its_arrays(wrong):
    a, b = np.ones((4, 3)), np.ones((3, 5))
    if wrong not in ("too long", "a row less"):
        with refused:
            kernels.product(spoil(a)[wrong], b)
    if wrong != "too wide":
        with refused:
            kernels.product(a, spoil(b)[wrong])
    with refused:
        kernels.product(a, b, bias=spoil(np.ones(5))[wrong])
    with refused:
        kernels.product(a, b, out=spoil(np.ones((4, 5)))[wrong])


def test_product_checks_shapes_and_names():
    a, b = np.ones((4, 3)), np.ones((3, 5))
    for keywords in (
        {"transpose_a": True},
        {"transpose_a": True, "transpose_b": True},
        {"transpose_b": True},
        {"isa": "sse9"},
        {"threads": 0},
        {"accumulate": True},
        {"out": read_only((4, 5))},
    ):
        with refused:
            kernels.product(a, b, **keywords)


def read_only(shape):
    a = np.ones(shape)
    a.flags.writeable = False
    return a


@pytest.mark.parametrize("wrong", WRONG)
def test_rows_and_sums_check_their_arrays(wrong):
    table, ids, dy = np.ones((4, 3)), np.array([0, 1]), np.ones((2, 3))
    if wrong in ("half", "integers", "complex", "objects", "a list", "a number"):
        with refused:
            kernels.gather_rows(spoil(table)[wrong], ids)
    if wrong not in ("too long", "a row less"):
        with refused:
            kernels.scatter_add_rows(spoil(table)[wrong], ids, dy)
    with refused:
        kernels.scatter_add_rows(table, ids, spoil(dy)[wrong])
    with refused:
        kernels.product(table, table, transpose_a=True, sums=spoil(np.ones(3))[wrong])
    for not_ids in (ids.astype(float), ids.astype(bool), None, ids.astype(object)):
        with refused:
            kernels.gather_rows(table, not_ids)
    for frozen in (
        lambda: kernels.scatter_add_rows(read_only((4, 3)), ids, dy),
        lambda: kernels.product(table, table, transpose_a=True, sums=read_only(3)),
        lambda: kernels.product(table, table.T.copy(), sums=np.ones(4)),
    ):
        with refused:
            frozen()


def test_activate_checks_its_arguments():
    for wrong in ("half", "integers", "bytes swapped", "complex", "objects", "a list", "a number"):
        with refused:
            kernels.activate("tanh", spoil(np.ones((2, 3)))[wrong])
    with refused:
        kernels.activate("gelu", np.ones(3))
    with refused:
        kernels.activate("tanh", np.ones(3), isa="sse9")
