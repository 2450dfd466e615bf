"""The six models of the group `fit`: Keras' example scripts, with random data of their shapes.

Both sides run this one file: `keras` is the module `fastrnn` or the module `keras`.

| name | model | source |
|---|---|---|
| addition | LSTM(128), RepeatVector(4), LSTM(128), Dense(12) a step | "Sequence to sequence learning for performing number addition" |
| characters | LSTM(128) over 40 of 57 characters, Dense(57) | "Character-level text generation with LSTM" |
| sentiment | Embedding(20000, 128), two bidirectional LSTM(64), Dense(1) | "Bidirectional LSTM on IMDB" |
| weather | LSTM(32) over 120 x 7, Dense(1) | "Timeseries forecasting for weather prediction" |
| translation | LSTM(256) encoder and decoder, Dense(93) | "Character-level recurrent sequence-to-sequence model" |
| words | Embedding(10000, 200), two GRU(200), Dense(10000) a step | language model of Penn Treebank's size |
"""  # noqa: E501

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from cases import WORKLOADS, Work


@dataclass(frozen=True)
class Workload:
    model: Any  # compiled
    x: Any
    y: np.ndarray
    batch_size: int


def _one_hot(rng: np.random.Generator, *shape: int) -> np.ndarray:
    *rows, symbols = shape
    return np.eye(symbols, dtype=np.float32)[rng.integers(symbols, size=rows)]


def build(keras: Any, name: str) -> Workload:
    """The model with its data; weights are drawn by the side that runs it, see `same_weights`."""
    layers, rng = keras.layers, np.random.default_rng(0)
    batch_size, batches = WORKLOADS[name]
    samples = batch_size * batches
    if name == "addition":
        x, y = _one_hot(rng, samples, 7, 12), _one_hot(rng, samples, 4, 12)
        model = keras.Sequential(
            [
                keras.Input((7, 12)),
                layers.LSTM(128),
                layers.RepeatVector(4),
                layers.LSTM(128, return_sequences=True),
                layers.Dense(12, activation="softmax"),
            ]
        )
        model.compile(loss="categorical_crossentropy", optimizer="adam")
    elif name == "characters":
        x, y = _one_hot(rng, samples, 40, 57), _one_hot(rng, samples, 57)
        model = keras.Sequential([keras.Input((40, 57)), layers.LSTM(128), layers.Dense(57, activation="softmax")])
        model.compile(loss="categorical_crossentropy", optimizer=keras.optimizers.RMSprop(learning_rate=0.01))
    elif name == "sentiment":
        x = rng.integers(20000, size=(samples, 200)).astype(np.int32)
        y = rng.integers(2, size=(samples, 1)).astype(np.float32)
        model = keras.Sequential(
            [
                keras.Input((None,), dtype="int32"),
                layers.Embedding(20000, 128),
                layers.Bidirectional(layers.LSTM(64, return_sequences=True)),
                layers.Bidirectional(layers.LSTM(64)),
                layers.Dense(1, activation="sigmoid"),
            ]
        )
        model.compile(loss="binary_crossentropy", optimizer="adam")
    elif name == "weather":
        x = rng.standard_normal((samples, 120, 7), dtype=np.float32)
        y = rng.standard_normal((samples, 1), dtype=np.float32)
        model = keras.Sequential([keras.Input((120, 7)), layers.LSTM(32), layers.Dense(1)])
        model.compile(loss="mse", optimizer=keras.optimizers.Adam(learning_rate=0.001))
    elif name == "translation":
        x = [_one_hot(rng, samples, 16, 71), _one_hot(rng, samples, 59, 93)]
        y = _one_hot(rng, samples, 59, 93)
        source, target = keras.Input((None, 71)), keras.Input((None, 93))
        _, h, c = layers.LSTM(256, return_state=True)(source)
        sequence, _, _ = layers.LSTM(256, return_sequences=True, return_state=True)(target, initial_state=[h, c])
        model = keras.Model([source, target], layers.Dense(93, activation="softmax")(sequence))
        model.compile(loss="categorical_crossentropy", optimizer="rmsprop")
    else:
        assert name == "words", name
        x = rng.integers(10000, size=(samples, 35)).astype(np.int32)
        y = rng.integers(10000, size=(samples, 35)).astype(np.int32)
        model = keras.Sequential(
            [
                keras.Input((None,), dtype="int32"),
                layers.Embedding(10000, 200),
                layers.GRU(200, return_sequences=True),
                layers.GRU(200, return_sequences=True),
                layers.Dense(10000, activation="softmax"),
            ]
        )
        model.compile(loss="sparse_categorical_crossentropy", optimizer="adam")
    return Workload(model, x, y, batch_size)


def same_weights(model: Any) -> None:
    """Sets the model's weights to numbers that follow from their shapes alone, of the size that initializers give."""
    rng = np.random.default_rng(2)
    weights = [rng.standard_normal(w.shape, dtype=np.float32) for w in model.get_weights()]
    model.set_weights([w * np.float32(0.1 if w.ndim < 2 else w.shape[0] ** -0.5) for w in weights])


def first_losses(workload: Workload, steps: int = 3) -> np.ndarray:
    """The losses of the first training steps, each on the next batch: from the same weights, and after updates."""
    model, size = workload.model, workload.batch_size
    same_weights(model)
    losses = []
    for step in range(steps):
        rows = slice(step * size, (step + 1) * size)
        x = [a[rows] for a in workload.x] if isinstance(workload.x, list) else workload.x[rows]
        losses.append(float(np.ravel(model.train_on_batch(x, workload.y[rows]))[0]))
    return np.array(losses)


def epoch_times(keras: Any, workload: Workload) -> list[float]:
    """Seconds of each epoch but the first of one call of `fit`, told by a callback."""
    import time

    class Clock(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            self.seconds: list[float] = []

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.start = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.seconds.append(time.perf_counter() - self.start)

    clock = Clock()
    workload.model.fit(workload.x, workload.y, batch_size=workload.batch_size, epochs=2, verbose=0, callbacks=[clock])
    return clock.seconds[1:]


def work(keras: Any, name: str) -> Work:
    workload = build(keras, name)
    return Work(
        run=lambda: epoch_times(keras, workload),
        results=lambda: [first_losses(workload)],
        times=lambda seconds: epoch_times(keras, workload),
    )
