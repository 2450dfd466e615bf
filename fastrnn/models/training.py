"""The loop: `fit`, `evaluate`, `predict`, and the same for single batches. Arguments and defaults are Keras'."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .. import rng
from .._core import kernels
from ..params import unique
from ..states import Context, StateStore
from .callback_list import CallbackList
from .compiling import Compilable
from .data import ArraySource, Batch, Epochs, Reader, Source, source, split
from .ports import is_array
from .stepping import TrainingStep

Array = np.ndarray


class NonFiniteLossError(ValueError, FloatingPointError):
    """The loss, or a gradient, became infinite or NaN. The weights are those before that step."""


class Trainable(Compilable):
    """What a compiled model does with data."""

    # data

    def _ready_for(self, x: Any) -> Any:
        """Builds a model without inputs from its first data. Returns x, whole even if a batch was taken from it."""
        if self.built or x is None:
            return x
        first = x
        if hasattr(x, "__getitem__") and hasattr(x, "__len__") and not _holds_arrays(x):
            first = x[0]
        elif not _holds_arrays(x):
            batches = iter(x)
            first = next(batches, None)
            if batches is x:
                x = itertools.chain([first], batches)
        if first is not x and isinstance(first, (tuple, list)):
            first = first[0]
        self._build_for(first)
        return x

    def _reader(self, class_weight: Mapping[int, float] | None = None) -> Reader:
        return Reader(*self.ports, class_weight)

    def _order(self) -> np.random.Generator:
        """The generator for the order of the next pass. It depends on the model's seed and how many were asked for."""
        if self._shuffle_seed is None:
            self._shuffle_seed = rng.new_seed()
        self._shuffles += 1
        return rng.generator(self._shuffle_seed, self._shuffles)

    def _check_stateful(self, data: Source, what: str, expected: int | None = None) -> int | None:
        """The batch size of a stateful model's data.

        Raises:
            ValueError: if batches of several sizes would come, or of another size than is expected.
        """
        if not isinstance(data, ArraySource):
            return None
        layer = next((one for one in self.all_layers() if one.stateful), None)
        if layer is None:
            return None
        n, size = data.data.size, data.batch_size
        if n > size and n % size:
            raise ValueError(
                f"layer {layer.name!r} is stateful, so all batches must have one size; {what} has {n} samples, which "
                f"batches of {size} do not divide"
            )
        fixed = expected or next((t.shape[0] for t in self.ports[0].tensors if t.shape[0] is not None), None)
        if fixed is not None and min(n, size) != fixed:
            raise ValueError(
                f"layer {layer.name!r} is stateful and works on batches of {fixed}; "
                f"{what} comes in batches of {min(n, size)}"
            )
        return min(n, size)

    # fit, evaluate, predict

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool | str = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | Sequence[int] = 1,
    ) -> Any:
        """Trains for `epochs` passes over the data.

        Args:
            x: inputs: an array, a list, a dict by name of the input; or batches (x,), (x, y) or (x, y, sample_weight),
                from an iterable or from an object with `__len__` and `__getitem__`.
            y: targets, in the same forms; None where x gives batches.
            batch_size: rows of a step; 32 by default, the last batch may be smaller.
            epochs: number of the last epoch; `initial_epoch` is the first, counted from 0.
            verbose: 0 silent, 1 a bar, 2 one line an epoch, "auto" whichever fits the output.
            callbacks: a callback or a list of them.
            validation_split: this fraction of the samples, the last ones, is kept for validation.
            validation_data: (x, y), (x, y, sample_weight), or batches.
            shuffle: True mixes the samples before each epoch, "batch" only the order of the batches.
            class_weight: weight of the samples of each class.
            sample_weight: (samples,) or (samples, time).
            steps_per_epoch, validation_steps: batches of an epoch, if it is not a pass over all data.
            validation_batch_size: `batch_size` by default.
            validation_freq: validate every so many epochs, or in those listed (counted from 1).

        Returns:
            History, whose `history` holds the loss and metrics of every epoch.

        Raises:
            ValueError: if data do not fit the model, before anything is trained.
            NonFiniteLossError: if the loss or a gradient is not finite; the step is not taken.
        """
        if validation_split and validation_data is None:
            (x, y, sample_weight), validation_data = split((x, y, sample_weight), validation_split)
        x = self._ready_for(x)
        prepared, objective = self._training_step, self.objective
        data = source(self._reader(class_weight), x, y, sample_weight, batch_size, steps_per_epoch, shuffle)
        rows = self._check_stateful(data, "x")
        train = Epochs(data, steps_per_epoch, self._order)
        validation = None
        if validation_data is not None:
            held_out = self._validation(validation_data, validation_batch_size or batch_size, validation_steps)
            self._check_stateful(held_out, "validation_data", rows)
            validation = Epochs(held_out, validation_steps)
        validates = _epochs_of(validation_freq)
        if not isinstance(callbacks, CallbackList):
            callbacks = CallbackList(
                callbacks,
                add_history=True,
                add_progbar=verbose != 0,
                model=self,
                verbose=verbose,
                epochs=epochs,
                steps=train.steps,
            )
        if not prepared.trained:
            warnings.warn(f"model {self.name!r} has no weights that are trained: fit computes its loss", stacklevel=2)
        prepared.claim()
        self.stop_training, self._initial_epoch = False, None
        logs: dict[str, Any] = {}
        try:
            callbacks.on_train_begin()
            for epoch in range(self._initial_epoch or initial_epoch, epochs):
                objective.reset()
                callbacks.on_epoch_begin(epoch)
                prepared, repeated, step = self._training_step, self._repeated_step, 0
                alone = not callbacks.sees_batches
                for batch in train:
                    callbacks.on_train_batch_begin(step)
                    taken, finite = repeated.train(batch)
                    step += taken
                    callbacks.on_train_batch_end(step - 1, objective.logs, taken * batch.size)
                    if not finite and not self.stop_training:
                        raise self._not_finite(f"epoch {epoch + 1}, batch {step - 1}", batch.part(taken - 1))
                    if self.stop_training:
                        break
                    train.together = repeated.together if alone else 1
                if train.exhausted:
                    break
                logs = objective.logs()
                if validation is not None and validates(epoch + 1):
                    found = self._evaluate(prepared, validation, callbacks)
                    logs = dict(sorted({**logs, **{f"val_{name}": value for name, value in found.items()}}.items()))
                callbacks.on_epoch_end(epoch, logs)
                if self.stop_training:
                    break
            if self.optimizer is not None:
                with kernels.uninterrupted():
                    self.optimizer.finalize()
            callbacks.on_train_end(logs)
        except BaseException:
            callbacks.abort()
            raise
        finally:
            self._repeated = None  # and the memory that recordings hold
        return callbacks.history

    def _validation(self, data: Any, batch_size: int | None, steps: int | None) -> Source:
        x, y, weights = data, None, None
        several = isinstance(data, (tuple, list))
        if is_array(data) or (several and not 1 <= len(data) <= 3):
            received = f"{len(data)} entries" if several else f"one array of shape {np.shape(data)}"
            raise ValueError(f"validation_data must be (x, y), (x, y, sample_weight) or batches; received {received}")
        if several:
            x, y, weights = (*data, None, None)[:3]
        return source(self._reader(), x, y, weights, batch_size, steps, False)

    def _not_finite(self, where: str, batch: Batch) -> NonFiniteLossError:
        given = {"x": batch.x, "y": batch.y, "sample_weight": batch.sample_weight}
        holders = [
            f"{argument}[{i}]"
            for argument, arrays in given.items()
            for i, a in enumerate(arrays or ())
            if a is not None and not np.isfinite(a).all()
        ]
        advice = "a smaller learning rate or clipnorm may help"
        if holders:
            advice = f"there is NaN or infinity in its {' and '.join(holders)}"
        rate = self.optimizer.learning_rate
        return NonFiniteLossError(
            f"model {self.name!r}: the loss or a gradient is not finite in {where}, at learning rate {rate:g}; "
            f"the weights are those before this batch; {advice}"
        )

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """The loss and the metrics on data, given as for `fit`.

        Returns:
            The loss; with metrics a list, named by `metrics_names`; with `return_dict` a dict by name.
        """
        x = self._ready_for(x)
        prepared = self._training_step
        data = source(self._reader(), x, y, sample_weight, batch_size, steps, False)
        self._check_stateful(data, "x")
        batches = Epochs(data, steps)
        if not isinstance(callbacks, CallbackList):
            callbacks = CallbackList(
                callbacks, add_progbar=verbose != 0, model=self, verbose=verbose, epochs=1, steps=batches.steps
            )
        try:
            logs = self._evaluate(prepared, batches, callbacks)
        except BaseException:
            callbacks.abort()
            raise
        return self._returned(logs, return_dict)

    def _evaluate(self, prepared: TrainingStep, batches: Iterable[Batch], callbacks: CallbackList) -> dict[str, Any]:
        objective = self.objective
        callbacks.on_test_begin()
        objective.reset()
        step = -1
        for step, batch in enumerate(batches):
            callbacks.on_test_batch_begin(step)
            prepared.test(batch)
            callbacks.on_test_batch_end(step, objective.logs, batch.size)
        if step < 0:
            raise ValueError("nothing to evaluate: the data gave no batches (a generator gives them only once)")
        logs = objective.logs()
        callbacks.on_test_end(logs)
        return logs

    def _returned(self, logs: dict[str, Any], return_dict: bool) -> Any:
        if return_dict:
            return logs
        if len(logs) == 1:
            return logs["loss"]
        return [logs[name] for name in self.objective.ordered(logs)]

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Any:
        """The outputs for `x`, in the form of the model's outputs. Several threads may call it at once."""
        x = self._ready_for(x)
        data = source(Reader(*self.ports), x, None, None, batch_size, steps, False)
        self._check_stateful(data, "x")
        batches = Epochs(data, steps)
        if not isinstance(callbacks, CallbackList):
            callbacks = CallbackList(
                callbacks, add_progbar=verbose != 0, model=self, verbose=verbose, epochs=1, steps=batches.steps
            )
        total = data.data.size if isinstance(data, ArraySource) and steps is None else None
        collected = _Collector(total)
        try:
            callbacks.on_predict_begin()
            for step, batch in enumerate(batches):
                callbacks.on_predict_batch_begin(step)
                outputs = self._infer(batch.x)
                collected.add(outputs, batch)
                callbacks.on_predict_batch_end(step, {"outputs": outputs}, batch.size)
            callbacks.on_predict_end()
        except BaseException:
            callbacks.abort()
            raise
        return self.packed(collected.arrays())

    def _infer(self, arrays: Sequence[Array]) -> list[Array]:
        if self._inference is None:
            self._inference = self.network.plan(Context(store=self._store))
        return self.network.forward(arrays, None, self._inference).outputs

    # single batches

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """One step on one batch; returns its loss and metrics as `evaluate` does.

        Raises:
            NonFiniteLossError: if the loss or a gradient is not finite; the step is not taken.
        """
        self._ready_for(x)
        prepared = self._training_step
        batch = self._reader(class_weight).read(x, y, sample_weight)
        self.objective.reset()
        prepared.claim()
        if not prepared.train(batch, self._repeated_step.differentiate):
            raise self._not_finite("train_on_batch", batch)
        return self._returned(self.objective.logs(), return_dict)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False) -> Any:
        """Loss and metrics on one batch."""
        self._ready_for(x)
        prepared = self._training_step
        batch = self._reader().read(x, y, sample_weight)
        self.objective.reset()
        prepared.test(batch)
        return self._returned(self.objective.logs(), return_dict)

    def predict_on_batch(self, x: Any) -> Any:
        """The outputs for one batch."""
        self._ready_for(x)
        return self.packed(self._infer(self.ports[0].inputs(x)))

    def gradients(
        self, x: Any, y: Any = None, sample_weight: Any = None, training: bool = False
    ) -> tuple[float, list[Array]]:
        """The loss on a batch and its gradient for every weight. The model stays as it is: no weight, state or random
        stream changes, so the same call gives the same numbers again.

        Args:
            x, y, sample_weight: as for `train_on_batch`.
            training: whether dropout drops.

        Returns:
            The loss, penalties of regularizers included, and one array per weight in the order of `weights`, zeros for
            weights that are not trained.
        """
        self._ready_for(x)
        batch = self._reader().read(x, y, sample_weight)
        layers, store = self.all_layers(), StateStore()
        store.set_state(self._store.get_state(layers), layers)
        trained = unique(self.trainable_weights)
        prepared = TrainingStep(self.network, self.weights, trained, self._new_objective(), None, store)
        return prepared.gradients(batch, training)

    # training state

    def get_training_state(self) -> dict[str, Any]:
        """What an exact continuation needs besides weights and optimizer: random streams, states, the data's order."""
        layers = self.all_layers()
        return {
            "shuffle": {"seed": self._shuffle_seed, "calls": self._shuffles},
            "seeds": {layer.path: layer.random_seed for layer in layers if layer.random_seed is not None},
            "layers": self._store.get_state(layers),
        }

    def set_training_state(self, state: Mapping[str, Any]) -> None:
        """Goes on where `get_training_state` was called.

        Raises:
            KeyError: if it belongs to a model of other layers; nothing is changed then.
        """
        layers = {layer.path: layer for layer in self.all_layers()}
        seeds = {layers[path]: None if seed is None else int(seed) for path, seed in state["seeds"].items()}
        seed, calls = state["shuffle"]["seed"], int(state["shuffle"]["calls"])
        self._store.set_state(state["layers"], layers.values())
        self._shuffle_seed, self._shuffles = None if seed is None else int(seed), calls
        for layer, number in seeds.items():
            if layer.random_seed != number:
                layer.random_seed = number


class _Collector:
    """Outputs of batches put together; in place if the number of samples is known before, and as they are if one batch
    holds all samples and the arrays are nobody else's."""

    def __init__(self, total: int | None) -> None:
        self.total, self.filled = total, 0
        self.buffers: list[Array] = []
        self.parts: list[list[Array]] = []

    def add(self, outputs: list[Array], batch: Batch) -> None:
        if self.total is None:
            self.parts.append([np.array(y) for y in outputs])
        elif batch.size == self.total:
            shared = [*batch.x]
            for y in outputs:
                own = y.base is None and all(y is not other for other in shared)
                self.buffers.append(y if own else y.copy())
                shared.append(y)
        else:
            if not self.buffers:
                self.buffers = [np.empty((self.total, *y.shape[1:]), y.dtype) for y in outputs]
            for buffer, y in zip(self.buffers, outputs, strict=True):
                buffer[self.filled : self.filled + batch.size] = y
            self.filled += batch.size

    def arrays(self) -> list[Array]:
        if self.total is not None:
            return self.buffers
        if not self.parts:
            raise ValueError("x gave no batches")
        columns = list(zip(*self.parts, strict=True))
        for column in columns:
            shapes = sorted({y.shape[1:] for y in column})
            if len(shapes) > 1:
                raise ValueError(f"the batches give outputs of different shapes, {shapes}: predict each by itself")
        return [np.concatenate(column) for column in columns]


def _holds_arrays(x: Any) -> bool:
    return is_array(x) or isinstance(x, (list, tuple, Mapping, np.ndarray))


def _epochs_of(validation_freq: int | Sequence[int]) -> Any:
    if isinstance(validation_freq, (int, np.integer)) and validation_freq > 0:
        return lambda epoch: epoch % validation_freq == 0
    if isinstance(validation_freq, (list, tuple, set, range)):
        return lambda epoch: epoch in validation_freq
    raise ValueError(f"validation_freq must be a positive integer or a list of epochs; received {validation_freq!r}")
