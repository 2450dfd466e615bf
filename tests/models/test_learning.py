"""Small tasks that only a network whose gradients, masks and updates are right learns, in seconds."""

from __future__ import annotations

import numpy as np
import pytest

from fastrnn import Input, Model, Sequential, layers, optimizers, utils


@pytest.mark.parametrize("cell", [layers.LSTM, layers.GRU])
def test_it_learns_to_add_two_marked_numbers(cell: type[layers.Layer]) -> None:
    """The adding problem (Hochreiter & Schmidhuber 1997): values and marks; the target is the sum of marked values."""
    utils.set_random_seed(0)
    g, rows, time = np.random.default_rng(0), 1600, 10
    x = np.zeros((rows, time, 2), dtype="float32")
    x[..., 0] = g.uniform(size=(rows, time))
    first, second = g.integers(0, time // 2, rows), g.integers(time // 2, time, rows)
    x[np.arange(rows), first, 1] = x[np.arange(rows), second, 1] = 1
    y = (x[..., 0] * x[..., 1]).sum(axis=1, keepdims=True)
    model = Sequential([Input((None, 2)), cell(16), layers.Dense(1)])
    model.compile(optimizers.Adam(0.02), "mse")
    h = model.fit(x, y, batch_size=32, epochs=10, validation_split=0.125, verbose=0).history
    assert np.var(y) > 0.1 and h["val_loss"][-1] < 0.01


def test_it_learns_to_tag_padded_sequences_by_what_comes_later() -> None:
    """Each step says whether its token comes again: only the direction from the end can know, only the mask can end."""
    utils.set_random_seed(1)
    g = np.random.default_rng(1)
    lengths = g.integers(2, 8, 512)
    sequences = [g.integers(1, 5, n) for n in lengths]
    x = utils.pad_sequences(sequences, padding="post")
    y = np.array([[float(t in row[i + 1 :]) if t else np.nan for i, t in enumerate(row)] for row in x])[..., None]
    model = Sequential(
        [
            layers.Embedding(5, 8, mask_zero=True),
            layers.Bidirectional(layers.GRU(16, return_sequences=True)),
            layers.Dense(1, "sigmoid"),
        ]
    )
    model.compile(optimizers.Adam(0.02), "binary_crossentropy", metrics=["accuracy"])
    h = model.fit(x, y, batch_size=32, epochs=40, validation_split=0.2, verbose=0).history
    assert h["val_accuracy"][-1] > 0.97


def test_a_shared_encoder_learns_to_compare_two_sequences() -> None:
    """Which of two sequences has the larger sum: one encoder for both, through a model inside the model."""
    utils.set_random_seed(2)
    g = np.random.default_rng(2)
    a, b = (g.normal(size=(800, 6, 1)).astype("float32") for _ in range(2))
    encoder = Sequential([Input((None, 1)), layers.SimpleRNN(8), layers.Dense(1)], name="encoder")
    left, right = Input((None, 1), name="left"), Input((None, 1), name="right")
    model = Model([left, right], layers.Activation("sigmoid")(encoder(left) - encoder(right)))
    model.compile(optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    h = model.fit({"left": a, "right": b}, (a.sum(axis=1) > b.sum(axis=1)), epochs=15, verbose=0).history
    assert h["accuracy"][-1] > 0.95
