"""Building a layer: once, whole or not at all, by one thread at a time."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any

from .. import rng

_lock = threading.RLock()


def _unlock() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


def once(build: Callable[..., None]) -> Callable[..., None]:
    """`build(layer, shape)` as users may call it: again without effect, and after an error as if it never was."""

    @functools.wraps(build)
    def wrapper(self: Any, shape: Any) -> None:
        if self.built:
            return
        with _lock:
            if self.built:
                return
            before = list(self._weights)
            try:
                build(self, shape)
            except BaseException:
                self._weights, self.built = before, False
                raise
            self.build_shape = shape
            if self.random_seed is None and hasattr(self, "seed"):
                self.random_seed = rng.new_seed() if self.seed is None else int(self.seed)
            self.label()
            self.built = True

    return wrapper
