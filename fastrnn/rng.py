"""Random numbers: counter-based, so that they depend on a seed and a count of calls, never on threads or on timing.

`set_random_seed` fixes everything that draws afterwards: initial weights, dropout, shuffling.
"""

from __future__ import annotations

import os
import threading
from typing import Any, NamedTuple

import numpy as np

from . import threads
from ._core import kernels

_lock = threading.Lock()
_seed = int.from_bytes(os.urandom(8), "little")
_drawn = 0


def set_random_seed(seed: int) -> None:
    """Makes every later draw repeatable, also those of Python's `random` and of NumPy's global generator."""
    import random

    if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
        raise ValueError(f"seed must be an integer in [0, 2**32); received {seed!r}")
    global _seed, _drawn
    with _lock:
        _seed, _drawn = int(seed), 0
    random.seed(int(seed))
    np.random.seed(int(seed))


def new_seed() -> int:
    """A fresh seed from the global stream, for an object that was given none."""
    global _drawn
    with _lock:
        _drawn += 1
        key = (_seed, _drawn)
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def generator(seed: int, call: int = 0) -> np.random.Generator:
    """The generator of call number `call` of the stream `seed`.

    Source: Philox, in Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
    """
    return np.random.Generator(np.random.Philox(key=seed, counter=(0, 0, 0, call)))


class Stream(NamedTuple):
    """Call number `call` of the random stream `seed`: what is dropped depends on both, on the number of the draw and on
    the place in the array, and on nothing else."""

    seed: int
    call: kernels.Counter

    def dropout(self, x: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
        """x / (1 - rate) with probability 1 - rate, else 0; and what `kernels.dropout_gradient` takes."""
        count = threads.get_num_threads()
        return kernels.dropout(x, rate, seed=self.seed % 2**64, call=self.call, threads=count)

    def factors(self, shape: tuple[int, ...], dtype: Any, rate: float, draw: int = 0) -> np.ndarray:
        """1 / (1 - rate) with probability 1 - rate, else 0; every `draw` of a call has numbers of its own."""
        seed, count = self.seed % 2**64, threads.get_num_threads()
        return kernels.dropout_factors(shape, dtype, rate, seed=seed, call=self.call, draw=draw, threads=count)


def get_state() -> dict[str, Any]:
    """What a checkpoint must hold so that later draws come out the same."""
    return {"seed": _seed, "drawn": _drawn}


def set_state(state: dict[str, Any]) -> None:
    global _seed, _drawn
    with _lock:
        _seed, _drawn = int(state["seed"]), int(state["drawn"])


if hasattr(os, "register_at_fork"):  # a child forked while another thread held the lock must not wait for it

    def _fresh_lock() -> None:
        global _lock
        _lock = threading.Lock()

    os.register_at_fork(after_in_child=_fresh_lock)
