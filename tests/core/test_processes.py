"""Kernels among processes and signals: a forked child computes, Ctrl-C is answered. Each test has its own Python."""

from __future__ import annotations

import os
import textwrap

import pytest
from fresh_python import run, start

SETUP = """
import os, signal, sys, threading, time
import numpy as np
from fastrnn._core import kernels

def compute(cell="lstm", threads=2, units=48, batch=16):
    rng = np.random.default_rng(0)
    gates = len(kernels.cells[cell].gates)
    weights = rng.normal(size=(20, gates * units)) / 9, rng.normal(size=(units, gates * units)) / 9
    packed = kernels.pack(cell, *weights, backward=True)
    sequence, _, last, tape = kernels.forward(packed, rng.normal(size=(batch, 30, 20)), record=True, threads=threads)
    into = [np.zeros_like(w) for w in weights]
    dx, _ = kernels.backward(packed, tape, sequence, dkernel=into[0], drecurrent_kernel=into[1], threads=threads)
    out = kernels.product(rng.normal(size=(300, 200)), rng.normal(size=(200, 100)), threads=threads)
    return b"".join(a.tobytes() for a in (sequence, last, dx, *into, out))

def compute_both(threads):
    rng = np.random.default_rng(1)
    calls = []
    for backwards in (False, True):
        weights = rng.normal(size=(20, 256)) / 9, rng.normal(size=(64, 256)) / 9
        packed = kernels.pack("lstm", *weights, backward=True)
        calls.append(kernels.Forward(packed, rng.normal(size=(24, 30, 20)), go_backwards=backwards, record=True))
    kernels.run_forward(*calls, threads=threads)
    backs = [kernels.Backward(call.packed, call.tape, call.sequence) for call in calls]
    kernels.run_backward(*backs, threads=threads)
    return b"".join(a.tobytes() for call, back in zip(calls, backs) for a in (call.sequence, back.dx))
"""


def run_after_setup(script: str, timeout: float = 60) -> str:
    return run(SETUP + textwrap.dedent(script), timeout)


@pytest.mark.parametrize("limit", ("1", "2", "3"))
def test_fewer_threads_than_were_asked_for_compute_the_same_bits(limit):
    """Of a batch that is shared out by rows, of one row whose units are shared out, and of two cells at once."""
    script = """
        signal.alarm(60)
        for batch, units in ((16, 48), (1, 300), (3, 256)):
            assert compute(threads=4, batch=batch, units=units) == compute(threads=1, batch=batch, units=units)
        assert compute_both(threads=4) == compute_both(threads=1)
    """
    done = start(SETUP + textwrap.dedent(script), OMP_THREAD_LIMIT=limit)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("load", (0, 2))
def test_a_forked_child_computes_the_same_bits(load):
    """Also a child of a child, and when other threads of the parent are in the middle of a kernel."""
    out = run_after_setup(f"""
        expected, one_row = compute(), compute(batch=1, units=300)
        stop = threading.Event()

        def work():
            while not stop.is_set():
                compute()

        workers = [threading.Thread(target=work) for _ in range({load})]
        for worker in workers:
            worker.start()

        def child(depth):
            signal.alarm(20)
            same = all(compute(threads=n) == expected for n in (2, 1, 3))
            same = same and compute(threads=2, batch=1, units=300) == one_row
            if depth:
                pid = os.fork()
                if pid == 0:
                    child(depth - 1)
                same = same and os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            os._exit(0 if same else 1)

        codes = []
        for i in range(15):
            pid = os.fork()
            if pid == 0:
                child(depth=i % 2)
            assert compute() == expected
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            if codes[-1]:
                break
        stop.set()
        for worker in workers:
            worker.join()
        print(codes)
    """)
    assert out == f"{[0] * 15}\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_children_of_a_process_pool_compute():
    out = run_after_setup("""
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        expected = compute()
        with ProcessPoolExecutor(3, mp_context=get_context("fork")) as pool:
            print(all(bits == expected for bits in pool.map(compute, ["lstm"] * 9)))
    """)
    assert out == "True\n"


INTERRUPT = """
expected = compute()
units, time_steps = 1536, 300
zeros = lambda *shape: np.zeros(shape, np.float32)
packed = kernels.pack("lstm", zeros(1, 4 * units), zeros(units, 4 * units), backward=True)
into = {"dkernel": zeros(1, 4 * units), "drecurrent_kernel": zeros(units, 4 * units)}
sent = None

def forward(record=False):
    x, mask = zeros(ROWS, time_steps, 1), np.ones((ROWS, time_steps), bool)
    mask[:-1, 1:] = False
    return lambda: kernels.forward(packed, x, None, mask, return_sequences=False, record=record, threads=THREADS)

def backward():
    *_, last, tape = forward(record=True)()
    return lambda: kernels.backward(packed, tape, None, last, threads=THREADS, **into)

def send():
    global sent
    sent = time.perf_counter()
    os.kill(os.getpid(), signal.SIGINT)

def interrupted(long_call):
    '''Seconds from a Ctrl-C in the midst of `long_call` to its KeyboardInterrupt; None if it was over before.'''
    over = False
    timer = threading.Timer(0.4, send)
    timer.start()
    try:
        long_call()
        over = True
        timer.join()
        time.sleep(0.1)
    except KeyboardInterrupt:
        now = time.perf_counter()
        return None if over else now - sent
    raise SystemExit("the signal was lost")

short_call = CALL()
start = time.perf_counter()
short_call()
time_steps = int(time_steps * 4 / (time.perf_counter() - start))  # a call of four seconds
while (seconds := interrupted(CALL())) is None:
    time_steps *= 2
    assert time_steps < 100_000

assert compute() == expected
print(seconds)
"""


@pytest.mark.parametrize("call", ("forward", "backward"))
@pytest.mark.parametrize(("threads", "rows"), ((1, 1), (2, 1), (2, 2)), ids=("1x1", "2x1", "2x2"))
def test_ctrl_c_is_answered_in_the_midst_of_a_sequence(threads, rows, call):
    """Also if a thread has no row of the batch, or rows that end long before the others (threads x rows)."""
    script = INTERRUPT.replace("THREADS", str(threads)).replace("ROWS", str(rows)).replace("CALL", call)
    assert float(run_after_setup(script, timeout=120)) < 1
