"""How the group `fit` measures a workload, the same for both sides: `keras` is the module `fastrnn` or `keras`."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from cases import Work
from workloads import WORKLOADS


def same_weights(model: Any) -> None:
    """Sets the model's weights to numbers that follow from their shapes alone, of the size that initializers give."""
    rng = np.random.default_rng(2)
    weights = [rng.standard_normal(w.shape, dtype=np.float32) for w in model.get_weights()]
    model.set_weights([w * np.float32(0.1 if w.ndim < 2 else w.shape[0] ** -0.5) for w in weights])


def first_losses(model: Any, x: Any, y: np.ndarray, size: int, steps: int = 3) -> np.ndarray:
    """The losses of the first training steps, each on the next batch: from the same weights, and after updates."""
    same_weights(model)
    losses = []
    for step in range(steps):
        rows = slice(step * size, (step + 1) * size)
        part = [a[rows] for a in x] if isinstance(x, list) else x[rows]
        losses.append(float(np.ravel(model.train_on_batch(part, y[rows]))[0]))
    return np.array(losses)


def epoch_times(keras: Any, model: Any, x: Any, y: np.ndarray, size: int) -> list[float]:
    """Seconds of each epoch but the first of one call of `fit`, told by a callback."""

    class Clock(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            self.seconds: list[float] = []

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.start = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.seconds.append(time.perf_counter() - self.start)

    clock = Clock()
    model.fit(x, y, batch_size=size, epochs=2, verbose=0, callbacks=[clock])
    return clock.seconds[1:]


def work(keras: Any, name: str) -> Work:
    workload = WORKLOADS[name]
    model, (x, y), size = workload.compiled(keras.layers, keras.models), workload.data(), workload.batch_size
    return Work(
        run=lambda: epoch_times(keras, model, x, y, size),
        results=lambda: [first_losses(model, x, y, size)],
        times=lambda seconds: epoch_times(keras, model, x, y, size),
    )
