"""The callback protocol, the list that the loop calls, and the two callbacks that every run has: `History` and the bar.

Names, arguments, defaults and the order of calls are Keras'. A hook that nobody overrides is never called, so a list
without batch hooks costs nothing per batch. The other callbacks are in `callbacks.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..registry import Configurable, is_own, register
from . import progress

MODES = ("train", "test", "predict")
BATCH_HOOKS = tuple(f"on_{mode}_batch_{when}" for mode in MODES for when in ("begin", "end"))
HOOKS = (
    *(f"on_{mode}_{when}" for mode in MODES for when in ("begin", "end")),
    "on_epoch_begin",
    "on_epoch_end",
    *BATCH_HOOKS,
)
ALIASES = {"on_train_batch_begin": "on_batch_begin", "on_train_batch_end": "on_batch_end"}


@register("callback")
class Callback(Configurable):
    """Base class: override the hooks you need.

    Attributes:
        model: the model that is being trained, evaluated or used.
        params: `verbose`, `epochs` and `steps` (None if unknown) of the running call.

    `logs` holds the loss and metrics so far (batch hooks) or of the epoch, validation under `val_...`. Epoch hooks may
    add to it: later callbacks and `History` see what they add.
    """

    params: Mapping[str, Any] | None = None
    _model: Any = None

    @property
    def model(self) -> Any:
        return self._model

    def set_model(self, model: Any) -> None:
        self._model = model

    def set_params(self, params: Mapping[str, Any]) -> None:
        self.params = params

    def on_train_begin(self, logs: Any = None) -> None: ...

    def on_train_end(self, logs: Any = None) -> None: ...

    def on_test_begin(self, logs: Any = None) -> None: ...

    def on_test_end(self, logs: Any = None) -> None: ...

    def on_predict_begin(self, logs: Any = None) -> None: ...

    def on_predict_end(self, logs: Any = None) -> None: ...

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None: ...

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None: ...

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.on_batch_end(batch, logs)

    def on_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Another name for `on_train_batch_begin`."""

    def on_batch_end(self, batch: int, logs: Any = None) -> None:
        """Another name for `on_train_batch_end`."""

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None: ...

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None: ...

    def on_predict_batch_begin(self, batch: int, logs: Any = None) -> None: ...

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None: ...

    def abort(self) -> None:
        """Called when an exception leaves the loop: close what is open. No other hook follows."""


def overrides(callback: Callback, hook: str) -> bool:
    """Whether `callback` does anything on `hook`, itself or by the older name of it."""
    names = (hook, ALIASES[hook]) if hook in ALIASES else (hook,)
    return any(getattr(getattr(callback, name), "__func__", None) is not getattr(Callback, name) for name in names)


class CallbackList(Callback):
    """The callbacks of one call, as one.

    The batch hooks take `logs` as a mapping or as a function that makes it, called only if somebody looks, and `size`,
    the number of samples in the batch, for the progress bar.

    Args:
        callbacks: a callback, nested lists of them, or None.
        add_history: whether a `History` is added if there is none.
        add_progbar: whether a `ProgbarLogger` is added if there is none.
        model: the model they get to see.
        params: what they find in `Callback.params`.

    Raises:
        TypeError: if something in the list is no callback.
    """

    def __init__(
        self,
        callbacks: Any = None,
        add_history: bool = False,
        add_progbar: bool = False,
        model: Any = None,
        **params: Any,
    ) -> None:
        self.callbacks = list(_flatten(callbacks))
        if add_history and self._find(History) is None:
            self.callbacks.append(History())
        if add_progbar and self._find(ProgbarLogger) is None:
            self.callbacks.append(ProgbarLogger())
        self._sort_hooks()
        self.set_model(model)
        self.set_params(params)

    def _find(self, cls: type) -> Any:
        return next((c for c in self.callbacks if isinstance(c, cls)), None)

    def _sort_hooks(self) -> None:
        self.progress: ProgbarLogger | None = self._find(ProgbarLogger)
        self._hooks: dict[str, list[Any]] = {hook: [] for hook in HOOKS}
        for callback in self.callbacks:
            for hook in HOOKS:
                if overrides(callback, hook):
                    self._hooks[hook].append(getattr(callback, hook))

    @property
    def sees_batches(self) -> bool:
        """Whether anybody but the progress bar is called between the batches of training."""
        called = self._hooks["on_train_batch_begin"] or self._hooks["on_train_batch_end"]
        return bool(called) or not all(map(is_own, [self, self.progress or self]))

    @property
    def history(self) -> Any:
        """The `History` in the list, None if there is none."""
        return self._find(History)

    def append(self, callback: Callback) -> None:
        self.callbacks.extend(_flatten(callback))
        self._sort_hooks()
        self.set_model(self.model)
        self.set_params(self.params or {})

    def set_model(self, model: Any) -> None:
        if model is None:
            return
        super().set_model(model)
        if self.history is not None:
            model.history = self.history
        for callback in self.callbacks:
            callback.set_model(model)

    def set_params(self, params: Mapping[str, Any]) -> None:
        super().set_params(params)
        for callback in self.callbacks if params else ():
            callback.set_params(params)

    def _call(self, hook: str, logs: Any) -> None:
        for call in self._hooks[hook]:
            call(logs)

    def _call_at(self, hook: str, index: int, logs: Any) -> None:
        for call in self._hooks[hook]:
            call(index, logs)

    def _call_batch(self, hook: str, batch: int, logs: Any) -> None:
        calls = self._hooks[hook]
        if calls:
            seen = _made(logs)
            for call in calls:
                call(batch, seen)

    def on_train_begin(self, logs: Any = None) -> None:
        self._call("on_train_begin", logs)

    def on_train_end(self, logs: Any = None) -> None:
        self._call("on_train_end", logs)

    def on_test_begin(self, logs: Any = None) -> None:
        self._call("on_test_begin", logs)

    def on_test_end(self, logs: Any = None) -> None:
        self._call("on_test_end", logs)

    def on_predict_begin(self, logs: Any = None) -> None:
        self._call("on_predict_begin", logs)

    def on_predict_end(self, logs: Any = None) -> None:
        self._call("on_predict_end", logs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._call_at("on_epoch_begin", epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._call_at("on_epoch_end", epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._call_batch("on_train_batch_begin", batch, logs)

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._call_batch("on_test_batch_begin", batch, logs)

    def on_predict_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._call_batch("on_predict_batch_begin", batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None, size: int | None = None) -> None:
        if self.progress is not None:
            self.progress.train_step(batch, logs, size)
        self._call_batch("on_train_batch_end", batch, logs)

    def on_test_batch_end(self, batch: int, logs: Any = None, size: int | None = None) -> None:
        if self.progress is not None:
            self.progress.test_step(batch, logs, size)
        self._call_batch("on_test_batch_end", batch, logs)

    def on_predict_batch_end(self, batch: int, logs: Any = None, size: int | None = None) -> None:
        if self.progress is not None:
            self.progress.predict_step(batch, None, size)
        self._call_batch("on_predict_batch_end", batch, logs)

    on_batch_begin = on_train_batch_begin
    on_batch_end = on_train_batch_end

    def abort(self) -> None:
        for callback in self.callbacks:
            callback.abort()


def _flatten(callbacks: Any) -> Iterable[Callback]:
    if callbacks is None:
        return
    if isinstance(callbacks, (list, tuple)):
        for one in callbacks:
            yield from _flatten(one)
    elif isinstance(callbacks, Callback):
        yield callbacks
    else:
        hint = ": make an object of it" if isinstance(callbacks, type) else ""
        raise TypeError(f"callbacks must be objects of fastrnn.callbacks.Callback{hint}; received {callbacks!r}")


def _made(logs: Any) -> dict[str, Any]:
    made = logs() if callable(logs) else logs
    return {} if made is None else made


@register("callback")
class History(Callback):
    """Records `logs` of every epoch: `history.history["loss"]` is a list; `history.epoch` the numbers of the epochs.

    `fit` adds one by itself and returns it.
    """

    def __init__(self) -> None:
        self.history: dict[str, list[Any]] = {}
        self.epoch: list[int] = []

    def get_config(self) -> dict[str, Any]:
        return {}

    def on_train_begin(self, logs: Any = None) -> None:
        self.epoch = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)
        self.model.history = self


@register("callback")
class ProgbarLogger(Callback):
    """The progress bar (see `fastrnn.models.progress`). `fit`, `evaluate` and `predict` add one by themselves."""

    def __init__(self) -> None:
        self._bar: progress.ProgressBar | None = None
        self._in_fit = False
        self._verbose = 1
        self._epochs = 1
        self._steps: int | None = None

    def get_config(self) -> dict[str, Any]:
        return {}

    def set_params(self, params: Mapping[str, Any]) -> None:
        super().set_params(params)
        self._verbose = progress.resolve(params.get("verbose", "auto"))
        self._epochs = params.get("epochs") or 1
        self._steps = params.get("steps")

    def _begin(self, title: str = "") -> None:
        self._bar = progress.ProgressBar(self._steps, title, verbose=self._verbose)

    def _finish(self, logs: Any) -> None:
        if self._bar is not None:
            self._bar.finish(logs)
            self._steps = self._bar.step if self._steps is None else self._steps
            self._bar = None

    def on_train_begin(self, logs: Any = None) -> None:
        self._in_fit = True

    def on_train_end(self, logs: Any = None) -> None:
        self._in_fit = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._begin(f"Epoch {epoch + 1}/{self._epochs}" if self._epochs > 1 else "")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._finish(logs)

    def on_test_begin(self, logs: Any = None) -> None:
        if not self._in_fit:
            self._begin()

    def on_test_end(self, logs: Any = None) -> None:
        if not self._in_fit:
            self._finish(logs)

    def on_predict_begin(self, logs: Any = None) -> None:
        self._begin()

    def on_predict_end(self, logs: Any = None) -> None:
        self._finish(None)

    def train_step(self, batch: int, logs: Any, size: int | None) -> None:
        if self._bar is not None:
            self._bar.update(batch + 1, logs, size)

    predict_step = train_step

    def test_step(self, batch: int, logs: Any, size: int | None) -> None:
        if not self._in_fit:
            self.train_step(batch, logs, size)

    def abort(self) -> None:
        if self._bar is not None:
            self._bar.abort()
        self._bar, self._in_fit = None, False
