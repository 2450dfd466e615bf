"""Whole models under stress: the same bits for any number of threads, forks under load, Ctrl-C at random times."""

from __future__ import annotations

import hashlib
import os
import signal

import numpy as np
import pytest
from fresh_python import run

import fastrnn
from fastrnn import Sequential, layers

SETUP = """
import hashlib, os, random, signal, sys, threading, time
import numpy as np
import fastrnn
from fastrnn import Sequential, layers

def build():
    model = Sequential([
        layers.Input((12,), dtype="int32"),
        layers.Embedding(30, 16, mask_zero=True),
        layers.Bidirectional(layers.LSTM(24, return_sequences=True)),
        layers.GRU(24, dropout=0.2),
        layers.Dense(5, activation="softmax"),
    ])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model

def digest(model):
    return hashlib.sha256(b"".join(w.tobytes() for w in model.get_weights())).hexdigest()

fastrnn.utils.set_random_seed(3)
rng = np.random.default_rng(0)
x, y = rng.integers(0, 30, (256, 12)), rng.integers(0, 5, 256)
model = build()
expected = model.predict(x, verbose=0)
"""


def test_weights_after_50_steps_are_one_hash_for_any_number_of_threads():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 50, (100 * 16, 20)), rng.integers(0, 5, 100 * 16)
    hashes, before = set(), fastrnn.get_num_threads()
    try:
        for threads in (1, 2, 3, 4):
            fastrnn.set_num_threads(threads)
            fastrnn.utils.set_random_seed(1)
            model = Sequential(
                [
                    layers.Input((20,), dtype="int32"),
                    layers.Embedding(50, 32, mask_zero=True),
                    layers.Bidirectional(layers.LSTM(64, return_sequences=True, recurrent_dropout=0.1)),
                    layers.GRU(80, return_sequences=True, dropout=0.2),
                    layers.SimpleRNN(48),
                    layers.Dense(5, activation="softmax"),
                ]
            )
            model.compile("adam", "sparse_categorical_crossentropy")
            model.fit(x, y, batch_size=32, epochs=1, verbose=0)
            assert model.optimizer.iterations == 50
            hashes.add(hashlib.sha256(b"".join(w.tobytes() for w in model.get_weights())).hexdigest())
    finally:
        fastrnn.set_num_threads(before)
    assert len(hashes) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_200_forks_under_load_neither_hang_nor_differ():
    """A second thread trains all the while; every child predicts, trains a step and predicts what it should."""
    out = run(
        SETUP
        + """
other, stop = build(), threading.Event()

def train():
    while not stop.is_set():
        other.train_on_batch(x[:64], y[:64])

worker = threading.Thread(target=train)
worker.start()
codes = []
for _ in range(200):
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        same = np.array_equal(model.predict(x, verbose=0), expected)
        model.train_on_batch(x[:32], y[:32])
        os._exit(0 if same and np.isfinite(model.predict(x[:1], verbose=0)).all() else 1)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
stop.set()
worker.join()
print(set(codes), np.array_equal(model.predict(x, verbose=0), expected))
""",
        timeout=300,
    )
    assert out == "{0} True\n"


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
def test_200_interruptions_at_random_times_leave_a_whole_model():
    """After each Ctrl-C, and again when training went on, the weights are those of some number of whole steps."""
    out = run(
        SETUP
        + """
def weights_after_each_step(steps):
    fastrnn.utils.set_random_seed(5)
    twin = build()
    found = [digest(twin)]
    for _ in range(steps):
        twin.train_on_batch(x[:64], y[:64])
        found.append(digest(twin))
    return found

signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
known = weights_after_each_step(60)
random.seed(0)
interrupted = 0
while interrupted < 200:
    fastrnn.utils.set_random_seed(5)
    model = build()
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0005, 0.03))
        for _ in range(60):
            model.train_on_batch(x[:64], y[:64])
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        interrupted += 1
    steps = known.index(digest(model))
    assert model.optimizer.iterations == steps, (model.optimizer.iterations, steps)
    assert np.isfinite(model.train_on_batch(x[:64], y[:64]))
print(interrupted)
""",
        timeout=300,
    )
    assert out == "200\n"
