"""A model and a training loop that only play: what callbacks do shows without any training."""

from __future__ import annotations

import numpy as np

from fastrnn.models import callbacks as C


class Optimizer:
    def __init__(self, learning_rate=0.1):
        self.learning_rate = learning_rate


class Metric:
    def __init__(self, name, direction=None):
        self.name, self.direction = name, direction


class Model:
    """Its weights are the number of epochs it has seen."""

    def __init__(self):
        self.stop_training, self.metrics, self.optimizer = False, [], Optimizer()
        self.seen, self.saved, self.history = 0.0, [], None

    def get_weights(self):
        return [np.array(self.seen)]

    def set_weights(self, values):
        self.seen = float(values[0])

    def save(self, path, overwrite=True):
        self.saved.append(("model", path))

    def save_weights(self, path, overwrite=True):
        self.saved.append(("weights", path))


def fit(callbacks, epochs, *, steps=2, model=None, **params):
    """A training loop without training: `epochs` are the logs of each epoch, or their losses."""
    model = model or Model()
    params = {"verbose": 0, "epochs": len(epochs), "steps": steps, **params}
    every = C.CallbackList(callbacks, add_history=True, add_progbar=True, model=model, **params)
    every.on_train_begin()
    for epoch, logs in enumerate(epochs):
        logs = dict(logs) if isinstance(logs, dict) else {"loss": logs}
        every.on_epoch_begin(epoch)
        for batch in range(steps):
            every.on_train_batch_begin(batch)
            every.on_train_batch_end(batch, lambda logs=logs: dict(logs), 32)
            if model.stop_training:
                break
        model.seen += 1
        every.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    every.on_train_end(logs)
    return model, every.history
