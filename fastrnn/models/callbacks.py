"""The callbacks, by their public names. `monitors.py` has those that watch a value, `callback_list.py` the protocol.

Arguments, defaults and decisions are Keras'.
"""

from __future__ import annotations

import csv
import inspect
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np

from .. import saving
from ..registry import register
from .callback_list import HOOKS, Callback, CallbackList, History, ProgbarLogger
from .monitors import EarlyStopping, ModelCheckpoint, ReduceLROnPlateau, check_frequency, current_rate
from .progress import say

__all__ = [
    "BackupAndRestore",
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ProgbarLogger",
    "ReduceLROnPlateau",
    "TerminateOnNaN",
]


@register("callback")
@dataclass(eq=False, repr=False)
class LearningRateScheduler(Callback):
    """Sets the learning rate at the beginning of every epoch.

    Args:
        schedule: `schedule(epoch, learning_rate)`, or `schedule(epoch)`, gives the new one; epochs count from 0.
        verbose: 1 says what it does.
    """

    schedule: Callable[..., float]
    verbose: int = 0

    def __post_init__(self) -> None:
        try:
            inspect.signature(self.schedule).bind(0, 0.0)
            self._takes_rate = True
        except ValueError:
            self._takes_rate = True
        except TypeError:
            self._takes_rate = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        optimizer = self.model.optimizer
        rate = self.schedule(epoch, current_rate(optimizer)) if self._takes_rate else self.schedule(epoch)
        if isinstance(rate, (bool, str)) or np.ndim(rate) != 0 or not np.isfinite(rate):
            raise ValueError(
                f"LearningRateScheduler expects its schedule to give a number; received {rate!r} for epoch {epoch}"
            )
        optimizer.learning_rate = float(rate)
        if self.verbose:
            say(f"Epoch {epoch + 1}: learning rate set to {float(rate):g}")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs is not None:
            logs["learning_rate"] = current_rate(self.model.optimizer)


@register("callback")
@dataclass(eq=False, repr=False)
class TerminateOnNaN(Callback):
    """Stops `fit` after a batch whose loss is NaN or infinite: quietly, or with a RuntimeError if `raise_error`."""

    raise_error: bool = False

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        loss = (logs or {}).get("loss")
        if loss is None or np.isfinite(loss):
            return
        if self.raise_error:
            raise RuntimeError(f"the loss is {loss} at batch {batch}")
        say(f"Batch {batch}: the loss is {loss}, training stops")
        self.model.stop_training = True


@register("callback")
@dataclass(eq=False, repr=False)
class CSVLogger(Callback):
    """Writes the logs of every epoch as a row of a CSV file: the epoch, then the names in alphabetical order.

    Args:
        filename: where.
        separator: between the columns.
        append: whether rows are added to a file that exists; its columns must be those of this run.
    """

    filename: Any
    separator: str = ","
    append: bool = False

    def __post_init__(self) -> None:
        self.filename = os.fspath(self.filename)
        self._file: TextIO | None = None
        self._names: list[str] | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        self.abort()
        self._names = None
        if self.append and os.path.exists(self.filename):
            with open(self.filename, newline="", encoding="utf-8") as file:
                self._names = next(csv.reader(file, delimiter=self.separator), None)
        self._file = open(self.filename, "a" if self.append else "w", newline="", encoding="utf-8")  # noqa: SIM115

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        assert self._file is not None
        row = {"epoch": epoch, **{name: _cell(value) for name, value in (logs or {}).items()}}
        new = not self._names
        if new:
            own = sorted(row.keys() - {"epoch"})
            validated = any(name.startswith("val_") for name in own)
            self._names = ["epoch", *own, *(() if validated else (f"val_{name}" for name in own))]
        unknown = sorted(row.keys() - set(self._names or ()))
        if unknown:
            columns = ", ".join(self._names or ())
            raise ValueError(f"{self.filename!r} has the columns {columns}; received also {', '.join(unknown)}")
        writer = csv.DictWriter(self._file, self._names or (), restval="NA", delimiter=self.separator)
        if new:
            writer.writeheader()
        writer.writerow(row)
        self._file.flush()

    def on_train_end(self, logs: Any = None) -> None:
        self.abort()

    def abort(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


@register("callback")
class LambdaCallback(Callback):
    """A callback from functions: `LambdaCallback(on_epoch_end=lambda epoch, logs: print(logs["loss"]))`.

    Raises:
        TypeError: for a name that is no hook.
    """

    def __init__(
        self,
        on_epoch_begin: Any = None,
        on_epoch_end: Any = None,
        on_train_begin: Any = None,
        on_train_end: Any = None,
        on_train_batch_begin: Any = None,
        on_train_batch_end: Any = None,
        **hooks: Any,
    ) -> None:
        hooks |= {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
        }
        known = (*HOOKS, "on_batch_begin", "on_batch_end")
        for name, function in hooks.items():
            if name not in known:
                raise TypeError(f"LambdaCallback has no hook {name!r}; known are: {', '.join(known)}")
            if function is not None:
                setattr(self, name, function)


@register("callback")
@dataclass(eq=False, repr=False)
class BackupAndRestore(Callback):
    """Keeps a backup of the whole training state while `fit` runs, and goes on from it if the last run was cut off.

    A run that died is started again by the same program: the same model, compiled the same way, and the same `fit`.
    With `save_freq="epoch"` it then gives the same bits as a run that was not cut off.

    Args:
        backup_dir: a folder for this run alone.
        save_freq: "epoch" or a number of batches (it then goes on at the beginning of that epoch).
        double_checkpoint: whether the backup before the last is kept, too, and used if the last cannot be read.
        delete_checkpoint: whether the backup goes away when `fit` ends.
    """

    backup_dir: Any
    save_freq: Any = "epoch"
    double_checkpoint: bool = False
    delete_checkpoint: bool = True

    def __post_init__(self) -> None:
        self.backup_dir = os.fspath(self.backup_dir)
        if not self.backup_dir:
            raise ValueError("BackupAndRestore expects a folder as backup_dir; received an empty path")
        check_frequency(self)
        self._latest = os.path.join(self.backup_dir, "latest.safetensors")
        self._previous = os.path.join(self.backup_dir, "previous.safetensors")
        self._epoch = self._batches = 0

    def on_train_begin(self, logs: Any = None) -> None:
        self._epoch = self._batches = 0
        for path in filter(os.path.exists, (self._latest, self._previous)):
            try:
                self._epoch = int(saving.restore(self.model, path)["epoch"])
            except saving.SaveError:
                if path == self._previous or not os.path.exists(self._previous):
                    raise
                continue
            self.model._initial_epoch = self._epoch
            return

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.save_freq != "epoch":
            self._batches += 1
            if self._batches >= self.save_freq:
                self._batches = 0
                self._save(self._epoch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.save_freq == "epoch":
            self._save(epoch + 1)

    def _save(self, epoch: int) -> None:
        os.makedirs(self.backup_dir, exist_ok=True)
        if self.double_checkpoint and os.path.exists(self._latest):
            os.replace(self._latest, self._previous)
        saving.save_model(self.model, self._latest, extra={"epoch": epoch})

    def on_train_end(self, logs: Any = None) -> None:
        if self.delete_checkpoint and os.path.isdir(self.backup_dir):
            for path in filter(os.path.exists, (self._latest, self._previous)):
                os.remove(path)
            if not os.listdir(self.backup_dir):
                os.rmdir(self.backup_dir)


def _cell(value: Any) -> Any:
    if isinstance(value, str) or np.ndim(value) == 0 or not isinstance(value, Iterable):
        return value
    return f"[{', '.join(map(str, value))}]"
