"""The callbacks that watch one entry of the logs: early stopping, checkpoints, a learning rate that follows."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import saving
from ..registry import register
from .callback_list import Callback
from .progress import say

RISING = {"acc", "auc", "precision", "recall", "r2_score", "f1_score", "fbeta_score", "cosine_similarity"}
FALLING = {
    "loss",
    "mse",
    "mae",
    "mape",
    "msle",
    "rmse",
    "error",
    "crossentropy",
    "divergence",
    "poisson",
    "huber",
    "hinge",
    "cosh",
    "perplexity",
}


class Monitor(Callback):
    """What the callbacks share that watch one entry of `logs`: which way is better, and whether a value is."""

    monitor: str
    mode: str
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        if self.mode not in ("auto", "min", "max"):
            raise ValueError(f'{type(self).__name__} expects mode "auto", "min" or "max"; received {self.mode!r}')
        self.best: float | None = None

    def value(self, logs: Mapping[str, Any]) -> float | None:
        """The watched value; None, with a warning, if it is not there."""
        current = logs.get(self.monitor)
        if current is None:
            known = ", ".join(logs) or "none"
            warnings.warn(
                f"{type(self).__name__} watches {self.monitor!r}, which is not among the logs: {known}", stacklevel=4
            )
            return None
        if np.ndim(current) != 0:
            raise ValueError(
                f"{type(self).__name__} watches {self.monitor!r}, which must be a number; received {current!r}"
            )
        return float(current)

    def improves(self, current: float, reference: float | None) -> bool:
        """Whether `current` is better than `reference` by more than `min_delta`. NaN never is."""
        if math.isnan(current):
            return False
        if reference is None:
            return True
        delta = abs(self.min_delta)
        return current - delta > reference if self.rising() else current + delta < reference

    def rising(self) -> bool:
        """Whether larger is better: said by `mode`, else by the metric itself, else by its name.

        Raises:
            ValueError: if nothing says it.
        """
        if self.mode != "auto":
            return self.mode == "max"
        name = self.monitor.removeprefix("val_")
        for metric in getattr(self.model, "metrics", None) or ():
            if name == metric.name or name.endswith(f"_{metric.name}"):
                direction = getattr(metric, "direction", None)
                if direction in ("up", "down"):
                    return direction == "up"
        words = name.split("_")
        if "accuracy" in name or any(name == known or name.endswith(f"_{known}") for known in RISING):
            return True
        if FALLING.intersection(words):
            return False
        raise ValueError(
            f"{type(self).__name__} cannot tell whether {self.monitor!r} should rise or fall: "
            'pass mode="max" or mode="min"'
        )


@register("callback")
@dataclass(eq=False, repr=False)
class EarlyStopping(Monitor):
    """Stops `fit` when the watched value has not improved for `patience` epochs.

    Args:
        monitor: an entry of the logs.
        min_delta: a change of less than this is no improvement.
        patience: epochs without improvement before it stops.
        verbose: 1 says what it does.
        mode: "min", "max", or "auto", from the metric.
        baseline: patience counts from the last epoch that was better than this, too.
        restore_best_weights: whether the model ends with the weights of its best epoch (also if `fit` ran to its end).
        start_from_epoch: epochs before this one are not looked at.
    """

    monitor: str = "val_loss"
    min_delta: float = 0
    patience: int = 0
    verbose: int = 0
    mode: str = "auto"
    baseline: float | None = None
    restore_best_weights: bool = False
    start_from_epoch: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._reset()

    def _reset(self) -> None:
        self.wait = self.stopped_epoch = self.best_epoch = 0
        self.best = None
        self.best_weights: list[np.ndarray] | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        self._reset()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        current = self.value(logs or {})
        if current is None or epoch < self.start_from_epoch:
            return
        better = self.improves(current, self.best)
        if better:
            self.best, self.best_epoch = current, epoch
        if self.restore_best_weights and (better or self.best_weights is None):
            self.best_weights, self.best_epoch = self.model.get_weights(), epoch
        self.wait += 1
        if better:
            if self.baseline is None or self.improves(current, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Any = None) -> None:
        if self.verbose and self.stopped_epoch > 0:
            say(f"Epoch {self.stopped_epoch + 1}: stopped early, no better {self.monitor} for {self.wait} epochs")
        if self.restore_best_weights and self.best_weights is not None:
            if self.verbose:
                say(f"Restored the weights of epoch {self.best_epoch + 1}")
            self.model.set_weights(self.best_weights)


@register("callback")
@dataclass(eq=False, repr=False)
class ModelCheckpoint(Monitor):
    """Saves the model, or its weights, every epoch or every so many batches.

    Args:
        filepath: where, ending in ".safetensors"; `{epoch}`, `{batch}` and the names of the logs are filled in, with
            formats if wanted: "{epoch:02d}-{val_loss:.3f}.safetensors". Folders are made.
        monitor: an entry of the logs, for `save_best_only`.
        verbose: 1 says what it does.
        save_best_only: whether it only saves when the watched value is the best so far.
        save_weights_only: `model.save_weights` in place of `model.save`.
        mode: "min", "max", or "auto", from the metric.
        save_freq: "epoch" or a number of batches.
        initial_value_threshold: the value to beat at first.
    """

    filepath: Any
    monitor: str = "val_loss"
    verbose: int = 0
    save_best_only: bool = False
    save_weights_only: bool = False
    mode: str = "auto"
    save_freq: Any = "epoch"
    initial_value_threshold: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.filepath = str(saving.checked_path(self.filepath))
        check_frequency(self)
        self.best = self.initial_value_threshold
        self._epoch = self._batches = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.save_freq != "epoch":
            self._batches += 1
            if self._batches >= self.save_freq:
                self._batches = 0
                self._save({"batch": batch + 1, **(logs or {})})

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.save_freq == "epoch":
            self._save(dict(logs or {}))

    def _save(self, logs: dict[str, Any]) -> None:
        try:
            path = self.filepath.format(**{"epoch": self._epoch + 1, **logs})
        except (KeyError, IndexError) as error:
            raise ValueError(
                f"ModelCheckpoint cannot fill {error} into {self.filepath!r}; known are: {', '.join(['epoch', *logs])}"
            ) from None
        if self.save_best_only and not self._is_best(logs):
            return
        folder = os.path.dirname(path)
        if folder:
            os.makedirs(folder, exist_ok=True)
        save = self.model.save_weights if self.save_weights_only else self.model.save
        save(path, overwrite=True)
        if self.verbose:
            say(f"Epoch {self._epoch + 1}: saved {path}")

    def _is_best(self, logs: Mapping[str, Any]) -> bool:
        current = self.value(logs)
        if current is None:
            return True
        best = self.best
        if not self.improves(current, best):
            if self.verbose:
                say(f"Epoch {self._epoch + 1}: {self.monitor} {current:.5f} is no better than {best}")
            return False
        self.best = current
        if self.verbose:
            before = "" if best is None else f"from {best:.5f} "
            say(f"Epoch {self._epoch + 1}: {self.monitor} improved {before}to {current:.5f}")
        return True


@register("callback")
@dataclass(eq=False, repr=False)
class ReduceLROnPlateau(Monitor):
    """Multiplies the learning rate by `factor` when the watched value has not improved for `patience` epochs.

    Args:
        monitor: an entry of the logs.
        factor: below 1.
        patience: epochs without improvement before it acts.
        verbose: 1 says what it does.
        mode: "min", "max", or "auto", from the metric.
        min_delta: a change of less than this is no improvement.
        cooldown: epochs to wait after a reduction before it counts again.
        min_lr: no learning rate below this.
    """

    monitor: str = "val_loss"
    factor: float = 0.1
    patience: int = 10
    verbose: int = 0
    mode: str = "auto"
    min_delta: float = 1e-4
    cooldown: int = 0
    min_lr: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.factor < 1:
            raise ValueError(f"ReduceLROnPlateau expects a factor in [0, 1); received {self.factor}")
        self._reset()

    def _reset(self) -> None:
        self.best = None
        self.wait = self.cooldown_counter = 0

    def on_train_begin(self, logs: Any = None) -> None:
        self._reset()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs = {} if logs is None else logs
        optimizer = self.model.optimizer
        logs["learning_rate"] = current_rate(optimizer)
        current = self.value(logs)
        if current is None:
            return
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.wait = 0
        if self.improves(current, self.best):
            self.best = current
            self.wait = 0
        elif self.cooldown_counter <= 0:
            self.wait += 1
            old = current_rate(optimizer)
            if self.wait >= self.patience and old > self.min_lr:
                optimizer.learning_rate = max(old * self.factor, self.min_lr)
                self.cooldown_counter = self.cooldown
                self.wait = 0
                if self.verbose:
                    say(f"Epoch {epoch + 1}: learning rate reduced to {current_rate(optimizer):g}")


def check_frequency(callback: Any) -> None:
    """Raises ValueError unless the callback's `save_freq` is "epoch" or a positive integer."""
    frequency, who = callback.save_freq, type(callback).__name__
    if frequency != "epoch" and (isinstance(frequency, bool) or not isinstance(frequency, int) or frequency < 1):
        raise ValueError(f'{who} expects save_freq "epoch" or a positive number of batches; received {frequency!r}')


def current_rate(optimizer: Any) -> float:
    return float(optimizer.learning_rate)
