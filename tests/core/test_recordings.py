"""Recordings of kernels: what is replayed, and what a recording refuses to hold."""

from __future__ import annotations

import copy
import os
import threading

import numpy as np
import pytest

from fastrnn._core import kernels

rng = np.random.default_rng(8)
A, B = rng.normal(size=(5, 7)).astype("float32"), rng.normal(size=(7, 3)).astype("float32")


def test_a_replay_computes_with_what_the_arrays_hold_by_then():
    a, b = A.copy(), B.copy()
    with kernels.Recording([a, b], 1 << 20) as recording:
        y = kernels.softmax(kernels.product(a, b))
        total, _, dy, _ = kernels.loss("squared_error", np.zeros((0, 3), "float32"), y[:0])
        finite = kernels.all_finite(y)
    assert not recording.complete  # the targets came out of nowhere
    with kernels.Recording([a, b], 1 << 20) as recording:
        y = kernels.softmax(kernels.product(a, b))
        total, _, dy, _ = kernels.loss("squared_error", b[:5], y)
        finite = kernels.all_finite(dy)
    assert recording.complete and recording.totals == [total] and recording.finite == finite is True
    a[...] *= 2
    b[...] -= 1
    assert recording.replay()
    expected = kernels.softmax(kernels.product(a, b))
    np.testing.assert_array_equal(y, expected)
    total, _, slope, _ = kernels.loss("squared_error", b[:5], expected)
    np.testing.assert_array_equal(dy, slope)
    assert recording.totals == [total]
    a[0, 0] = np.nan
    assert recording.replay() and not recording.finite


@pytest.mark.parametrize("cell", kernels.cells)
@pytest.mark.parametrize("count", (1, 2))
def test_cells_are_packed_and_run_anew(cell, count):
    kind = kernels.cells[cell]
    width = len(kind.gates) * 4
    x, kernel, recurrent = (rng.normal(size=s).astype("float32") for s in ((3, 6, 2), (2, width), (4, width)))
    dy, gradients = rng.normal(size=(3, 6, 4)).astype("float32"), [np.empty_like(kernel), np.empty_like(recurrent)]

    def work():
        packed = kernels.pack(cell, kernel, recurrent, backward=True)
        calls = [kernels.Forward(packed, x, record=True, go_backwards=i == 1) for i in range(count)]
        kernels.run_forward(*calls, threads=2)
        backs = [
            kernels.Backward(packed, call.tape, dy, dkernel=gradients[0], drecurrent_kernel=gradients[1], accumulate=i)
            for i, call in enumerate(calls)
        ]
        for back in backs:
            kernels.run_backward(back, threads=2)
        return [calls[-1].sequence, *calls[-1].final_state, backs[-1].dx, *backs[-1].dinitial]

    with kernels.Recording([x, kernel, recurrent, dy, *gradients], 1 << 20) as recording:
        results = work()
    assert recording.complete
    for _ in range(2):
        x[...] += 1
        kernel[...] *= 0.5
        recurrent[...] *= 0.5
        assert recording.replay()
        found = [a.copy() for a in (*results, *gradients)]
        for a, b in zip(found, (*work(), *gradients), strict=True):
            np.testing.assert_array_equal(a, b)


def test_rows_of_a_table_are_noted_and_forgotten_in_a_replay():
    table, gradient = rng.normal(size=(9, 2)).astype("float32"), np.zeros((9, 2), "float32")
    ids, rows = np.array([1, 3, 3]), kernels.Rows(9)
    with kernels.Recording([table, gradient, ids], 1 << 20) as recording:
        rows.clear(gradient)
        y = kernels.gather_rows(table, ids)
        rows.add(ids)
        kernels.scatter_add_rows(gradient, ids, y)
        assert rows.all_finite(gradient)
    assert recording.complete
    ids[...] = 8, 0, 8
    assert recording.replay() and rows.ids.tolist() == [8, 0] and recording.finite
    expected = np.zeros_like(gradient)
    np.add.at(expected, ids, table[ids])
    np.testing.assert_array_equal(gradient, expected)
    np.testing.assert_array_equal(y, table[ids])
    table[8] = np.inf
    assert recording.replay() and not recording.finite
    ids[1] = 9
    assert not recording.replay()


def test_impossible_labels_end_a_replay():
    labels, z = np.array([0, 2]), rng.normal(size=(2, 3)).astype("float32")
    with kernels.Recording([labels, z], 1 << 20) as recording:
        kernels.loss("sparse_logits", labels, z)
    assert recording.complete and recording.replay()
    labels[1] = 3
    assert not recording.replay()


def test_numpy_between_two_kernels_makes_a_recording_incomplete():
    with kernels.Recording([A, B], 1 << 20) as recording:
        kernels.softmax(kernels.product(A, B) * 2)
    assert not recording.complete
    with pytest.raises(RuntimeError, match="not complete"):
        recording.replay()
    with kernels.Recording([A, B], 1 << 20) as recording:
        y = kernels.product(A, B)
        kernels.softmax(kernels.in_numpy(np.add, y, y, out=np.empty_like(y)))
    assert recording.complete


def test_weights_packed_before_make_a_recording_incomplete():
    packed = kernels.pack("rnn", B, np.eye(3, dtype="float32"))
    x = A[None].copy()
    with kernels.Recording([x, B], 1 << 20) as recording:
        kernels.forward(packed, x)
    assert not recording.complete


def test_results_that_take_more_memory_than_allowed_make_it_incomplete():
    for most, complete in ((60, True), (59, False)):
        with kernels.Recording([A, B], most) as recording:
            kernels.product(A, B)
        assert recording.complete is complete


def test_an_error_makes_it_incomplete():
    recording = kernels.Recording([A, B], 1 << 20)
    with pytest.raises(ValueError), recording:
        kernels.product(A, A)
    assert not recording.complete


def test_one_recording_at_a_time_of_one_thread():
    a = A.copy()

    def other():
        for _ in range(100):
            kernels.product(a, B)

    with kernels.Recording([A, B], 1 << 20) as recording:
        with kernels.Recording([A, B], 1 << 20) as inner:
            kernels.product(A, B)
        worker = threading.Thread(target=other)
        worker.start()
        worker.join()
    assert recording.complete and not inner.complete
    with recording as again:
        kernels.product(A, B)
    assert not again.complete


def test_it_does_not_copy():
    with pytest.raises(TypeError, match="bound to memory"):
        copy.copy(kernels.Recording([], 0))
    with pytest.raises(TypeError):
        kernels.Recording([[1.0]], 0)


def test_dropout_goes_on_to_the_next_call_in_a_replay():
    x, counter = rng.normal(size=(4, 50)).astype("float32"), kernels.Counter(6)
    with kernels.Recording([x], 1 << 20) as recording:
        counter.count()
        y, kept = kernels.dropout(x, 0.5, seed=3, call=counter)
        factors = kernels.dropout_factors((4, 50), "float32", 0.25, seed=3, call=counter, draw=1)
        dx = kernels.dropout_gradient(y, kept, 0.5)
    assert recording.complete
    for call in (7, 8, 9):
        expected, its_kept = kernels.dropout(x, 0.5, seed=3, call=call)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(kept, its_kept)
        np.testing.assert_array_equal(dx, kernels.dropout_gradient(expected, its_kept, 0.5))
        np.testing.assert_array_equal(
            factors, kernels.dropout_factors((4, 50), "float32", 0.25, seed=3, call=call, draw=1)
        )
        assert counter.value == call and copy.deepcopy(counter).value == call
        assert recording.replay()


def test_memory_is_cleared_in_a_replay_too():
    sums, table, dy = np.ones(3, "float32"), np.ones((4, 3), "float32"), np.ones((2, 3), "float32")
    ids = np.array([3, 3])
    with kernels.Recording([sums, table, dy, ids], 1 << 20) as recording:
        kernels.clear(sums)
        kernels.clear(table)
        kernels.product(dy, dy, transpose_a=True, sums=sums)
        kernels.scatter_add_rows(table, ids, dy)
    for _ in range(2):
        assert sums.tolist() == [2, 2, 2] and table.tolist() == [[0] * 3] * 3 + [[2] * 3] and recording.replay()
    with pytest.raises(ValueError, match="read-only"):
        kernels.clear(np.broadcast_to(np.float32(1), (1,)))


def test_a_replay_that_is_refused_draws_nothing():
    counter, labels, z = kernels.Counter(), np.array([0, 2]), rng.normal(size=(2, 3)).astype("float32")
    with kernels.Recording([labels, z], 1 << 20) as recording:
        counter.count()
        y, _ = kernels.dropout(z, 0.5, seed=1, call=counter)
        kernels.loss("sparse_logits", labels, y)
    assert recording.holds(y) and not recording.holds(np.zeros(3))
    labels[0] = -1
    assert not recording.replay() and counter.value == 1
    labels[0] = 1
    assert recording.replay() and counter.value == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_forked_while_another_thread_records_makes_recordings_of_its_own():
    recording, may_end = threading.Event(), threading.Event()

    def hold():
        with kernels.Recording([], 0):
            recording.set()
            may_end.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    recording.wait(30)
    child = os.fork()
    if child == 0:
        with kernels.Recording([A, B], 1 << 20) as own:
            kernels.product(A, B)
        os._exit(0 if own.complete else 1)
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        may_end.set()
        holder.join()


def test_several_steps_in_one_call():
    x, w, g = np.zeros((4, 3)), np.ones(6), np.zeros(6)
    w, g = w.reshape(3, 2), g.reshape(3, 2)
    table, target = np.random.default_rng(1).normal(size=(20, 3)), np.zeros((4, 2))
    with kernels.Recording([x, w, g, target], 1 << 20) as recording:
        y = kernels.product(x, w)
        _, _, dy, _ = kernels.loss("squared_error", target, y, divisor=4.0)
        kernels.clear(g)
        kernels.product(x, dy, transpose_a=True, out=g, accumulate=True)
        kernels.all_finite(g)
        total = kernels.in_numpy(np.add.reduce, y, axis=None, dtype=np.float64, out=np.empty(()))
    update = kernels.Update("sgd", w.reshape(-1), g.reshape(-1))
    taking, ids = kernels.Taking([table], [x]), np.arange(12)
    expected, sums = np.ones((3, 2)), []
    for rows in ids.reshape(3, 4):
        y = table[rows] @ expected
        sums.append(y.sum())
        expected = expected - 0.1 * table[rows].T @ y / 4  # the mean over two columns
    found = recording.train(taking, ids, [update], [[(1.0, 0.1)]] * 3, [total])
    assert recording.updates == 3 and recording.bytes > 0
    np.testing.assert_allclose([s for _, _, (s,) in found], sums, rtol=1e-12)
    np.testing.assert_allclose(w, expected, rtol=1e-12)
    before = w.copy()
    table[9] = np.nan
    assert len(recording.train(taking, ids, [update], [[(1.0, 0.0)]] * 3, [total])) == 3 and recording.updates == 2
    np.testing.assert_array_equal(w, before)
    bad: tuple = (
        (None, ids, [update], [[(1.0, 0.1)]] * 3, []),
        (taking, ids[:5], [update], [[(1.0, 0.1)]] * 3, []),
        (taking, ids.astype("int32"), [update], [[(1.0, 0.1)]] * 3, []),
        (taking, ids, [None], [[(1.0, 0.1)]] * 3, []),
        (taking, ids, [update, update], [[(1.0, 0.1)]] * 3, []),
        (taking, ids, [update], [[(1.0,)]] * 3, []),
        (taking, ids + 20, [update], [[(1.0, 0.1)]] * 3, []),
    )
    for arguments in bad:
        with pytest.raises((TypeError, ValueError)):
            recording.train(*arguments)
