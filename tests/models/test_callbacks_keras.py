"""The callbacks that watch a value decide as Keras' do, on random runs."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from fastrnn.models import callbacks


def play(library, make, values):
    """Rates, saves, epochs run and final weights of a run whose watched value takes `values`."""
    model = SimpleNamespace(stop_training=False, metrics=[], optimizer=SimpleNamespace(learning_rate=0.1), weights=[])
    saved, rates = [], []
    model.get_weights = lambda: list(model.weights)
    model.set_weights = lambda weights: setattr(model, "weights", list(weights))
    model.save = lambda path, overwrite=True: saved.append(path.split(".")[0])
    callback = make(library)
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, value in enumerate(values):
        callback.on_epoch_begin(epoch)
        model.weights = [np.array(epoch)]
        callback.on_epoch_end(epoch, {"val_loss": value})
        rates.append(model.optimizer.learning_rate)
        if model.stop_training:
            break
    callback.on_train_end()
    return rates, saved, [int(w) for w in model.weights]


def draw_early_stopping(rng):
    arguments = {
        "min_delta": rng.choice([0.0, 0.25, -0.25]),
        "patience": int(rng.integers(4)),
        "mode": str(rng.choice(["auto", "min", "max"])),
        "baseline": rng.choice([None, 1.0]),
        "restore_best_weights": bool(rng.integers(2)),
        "start_from_epoch": int(rng.integers(3)),
    }
    return lambda c: c.EarlyStopping(**arguments)


def draw_plateau(rng):
    arguments = {
        "factor": 0.5,
        "patience": int(rng.integers(1, 4)),
        "mode": str(rng.choice(["auto", "min", "max"])),
        "min_delta": rng.choice([1e-4, 0.25]),
        "cooldown": int(rng.integers(3)),
        "min_lr": rng.choice([0.0, 0.03]),
    }
    return lambda c: c.ReduceLROnPlateau(**arguments)


def draw_checkpoint(rng):
    arguments = {
        "save_best_only": bool(rng.integers(2)),
        "mode": str(rng.choice(["auto", "min", "max"])),
        "initial_value_threshold": rng.choice([None, 1.0]),
    }
    return lambda c: c.ModelCheckpoint(f"{{epoch}}.{'safetensors' if c is callbacks else 'keras'}", **arguments)


@pytest.mark.parametrize("draw", [draw_early_stopping, draw_plateau, draw_checkpoint])
def test_decisions_are_those_of_keras(draw, keras):
    rng = np.random.default_rng(7)
    for _ in range(300):
        make = draw(rng)
        values = rng.integers(0, 9, size=12) / 4
        assert play(callbacks, make, values) == play(keras.callbacks, make, values)
