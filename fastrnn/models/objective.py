"""What `compile` says, made into work: a loss and metrics per output, their weights, and their running means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import losses, masks, metrics
from ..layers.layer import BeforeActivation
from ..registry import is_own
from .data import Batch
from .network import Network, Run

Array = np.ndarray
BY_SHAPE = ("accuracy", "acc", "crossentropy", "ce")


class RunningMean:
    """The mean of the losses of batches, each weighted by its number of samples."""

    direction = "down"

    def __init__(self, name: str) -> None:
        self.name = name
        self.reset_state()

    def reset_state(self) -> None:
        self.total, self.samples = 0.0, 0

    def update_state(self, value: float, samples: int) -> None:
        self.total += value * samples
        self.samples += samples

    def result(self) -> float:
        return self.total / self.samples if self.samples else 0.0

    def __repr__(self) -> str:
        return f"RunningMean({self.name!r})"


class OutputLoss:
    """The loss of one output, the weight it has in the sum, and what it fuses with (see `losses`)."""

    __slots__ = ("activation", "index", "loss", "mean", "name", "weight")

    def __init__(self, index: int, name: str, loss: Any, weight: float | None, activation: str | None) -> None:
        self.index, self.name, self.loss, self.weight, self.activation = index, name, loss, weight, activation
        self.mean = RunningMean(f"{name}_loss")


class Objective:
    """Losses and metrics of a model's outputs.

    Strings such as "accuracy", that mean something else for other shapes, are resolved with the first batch.

    Args:
        loss, loss_weights, metrics, weighted_metrics: as given to `compile`.
        names: of the outputs.

    Raises:
        ValueError: for unknown names of losses, metrics or outputs, or numbers that do not fit the outputs.
    """

    def __init__(
        self, loss: Any, loss_weights: Any, metrics_: Any, weighted_metrics: Any, names: Sequence[str]
    ) -> None:
        self.names = list(names)
        self.loss_of = self._per_output(loss, "loss", spread=True)
        self.weight_of = self._loss_weights(loss_weights)
        self.metrics_of = [
            (weighted, self._metrics_per_output(given, argument))
            for weighted, given, argument in (
                (False, metrics_, "metrics"),
                (True, weighted_metrics, "weighted_metrics"),
            )
        ]
        self.mean = RunningMean("loss")
        self.losses: list[OutputLoss] = []
        self.watched: list[tuple[int, bool, Any]] = []
        self.resolved = False

    def _per_output(self, given: Any, argument: str, spread: bool) -> list[Any]:
        """What `given`, a dict, a list or one thing, says of each output; None where nothing is said."""
        names = self.names
        if isinstance(given, Mapping) and given.keys() != {"kind", "class_name", "config"}:
            unknown = [name for name in given if name not in names]
            if unknown:
                raise ValueError(
                    f"{argument} names the output {unknown[0]!r}; the outputs are {', '.join(map(repr, names))}"
                )
            return [given.get(name) for name in names]
        if isinstance(given, (list, tuple)):
            if len(given) != len(names):
                outputs = ", ".join(map(repr, names))
                raise ValueError(
                    f"{argument} must have one entry for each of the outputs {outputs}; received {len(given)}"
                )
            return list(given)
        return [given if spread else None] * len(names) if len(names) > 1 else [given]

    def _loss_weights(self, given: Any) -> list[float | None]:
        if given is not None and len(self.names) > 1 and not isinstance(given, (list, tuple, Mapping)):
            raise ValueError(f"loss_weights must be a list or a dict, one number per output; received {given!r}")
        found = self._per_output(given, "loss_weights", spread=False)
        for value in found:
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float, np.number))):
                raise ValueError(f"loss_weights must be numbers; received {value!r}")
        return [None if value is None else float(value) for value in found]

    def _metrics_per_output(self, given: Any, argument: str) -> list[list[Any]]:
        if given is None:
            return [[] for _ in self.names]
        if not isinstance(given, (list, tuple, Mapping)):
            raise ValueError(f"{argument} must be a list or a dict; received {given!r}")
        if len(self.names) == 1 and not isinstance(given, Mapping):
            flat = [m for entry in given for m in (entry if isinstance(entry, (list, tuple)) else [entry])]
            return [flat]
        found = self._per_output(given, argument, spread=False)
        return [
            [] if entry is None else list(entry) if isinstance(entry, (list, tuple)) else [entry] for entry in found
        ]

    def resolve(self, ys: Sequence[Array | None], outputs: Sequence[Array], network: Network) -> None:
        """Makes losses and metrics for targets and predictions of these shapes."""
        self.losses, self.watched = [], []
        for i, name in enumerate(self.names):
            if self.loss_of[i] is None:
                continue
            y = self._target(ys, i, "loss")
            loss = losses.get(self.loss_of[i], y.shape, outputs[i].shape)
            fused = loss.fuses if network.final_activation(i) == loss.fuses else None
            self.losses.append(OutputLoss(i, name, loss, self.weight_of[i], fused))
        for weighted, per_output in self.metrics_of:
            for i, wanted in enumerate(per_output):
                for metric in wanted:
                    y = self._target(ys, i, "metric")
                    self.watched.append((i, weighted, metrics.get(metric, y.shape, outputs[i].shape)))
        self.resolved = True

    @property
    def early(self) -> set[int]:
        """The outputs whose last softmax the loss can take itself, because nobody else looks at them."""
        seen = {i for i, _, _ in self.watched}
        taken = {part.index for part in self.losses if part.activation == "softmax" and is_own(part.loss)}
        return taken - seen

    def _target(self, ys: Sequence[Array | None], i: int, what: str) -> Array:
        y = ys[i]
        if y is None:
            raise ValueError(f"output {self.names[i]!r} has a {what} but no targets: y is None")
        return y

    # losses of a batch

    def differentiate(self, batch: Batch, run: Run) -> tuple[float, list[Any], list[float]]:
        """The weighted sum of the losses, its gradient for each output (None for none), and each loss by itself."""
        slopes: list[Any] = [None] * len(self.names)
        total, parts = 0.0, []
        ys, weights = batch.y or [None] * len(self.names), batch.sample_weight
        for part in self.losses:
            i = part.index
            y, w = self._target(ys, i, "loss"), None if weights is None else weights[i]
            predicted, fused = run.outputs[i], {}
            if isinstance(predicted, BeforeActivation):
                predicted, fused = predicted.values, {"activation": part.activation, "applied": False}
            elif part.activation is not None:
                fused = {"activation": part.activation}
            try:
                value, dy = part.loss.value_and_gradient(y, predicted, w, run.masks[i], **fused)
            except ValueError as error:
                raise self._named(error, part.name) from error
            parts.append(value)
            if part.weight is not None:
                value *= part.weight
                dy = dy * dy.dtype.type(part.weight)
            total += value
            slopes[i] = dy if part.activation is None else BeforeActivation(dy)
        return total, slopes, parts

    def value(self, batch: Batch, run: Run) -> tuple[float, list[float]]:
        """The weighted sum of the losses, and each by itself."""
        total, parts = 0.0, []
        ys, weights = batch.y or [None] * len(self.names), batch.sample_weight
        for part in self.losses:
            i = part.index
            y, w = self._target(ys, i, "loss"), None if weights is None else weights[i]
            try:
                value = part.loss(y, run.outputs[i], w, run.masks[i])
            except ValueError as error:
                raise self._named(error, part.name) from error
            parts.append(value)
            total += value if part.weight is None else value * part.weight
        return total, parts

    def _named(self, error: ValueError, name: str) -> ValueError:
        return ValueError(f"{error} (loss of output {name!r})")

    # running means

    @property
    def forgets(self) -> bool:
        """Whether no metric keeps arrays that it was given."""
        return all(is_own(metric) and metric.forgets for _, _, metric in self.watched)

    def record(self, batch: Batch, run: Run, total: float, parts: list[float]) -> None:
        """Takes a batch into the running means."""
        self.mean.update_state(total, batch.size)
        if len(parts) > 1:
            for part, value in zip(self.losses, parts, strict=True):
                part.mean.update_state(value, batch.size)
        for i, weighted, metric in self.watched:
            assert batch.y is not None
            w = batch.sample_weight[i] if weighted and batch.sample_weight is not None else None
            mask = run.masks[i]
            weights = None if mask is None and w is None else masks.as_weights(mask, w)
            metric.update_state(batch.y[i], run.outputs[i], weights)

    def record_steps(self, size: int, steps: list[tuple[float, list[float], list[float]]], counts: list[int]) -> None:
        """The same for steps of `size` samples each, of which the sum of the losses, each loss, and for each metric, a
        `RowMetric`, the sum of its values is known. `counts`: of the values of a step, for each metric."""
        for total, parts, sums in steps:
            self.mean.update_state(total, size)
            if len(parts) > 1:
                for part, value in zip(self.losses, parts, strict=True):
                    part.mean.update_state(value, size)
            for (_, _, metric), value, count in zip(self.watched, sums, counts, strict=True):
                metric.take(value, count, size)

    def reset(self) -> None:
        for metric in self.metrics:
            metric.reset_state()

    @property
    def metrics(self) -> list[Any]:
        """Everything with a running mean: the loss, the metrics, the losses of several outputs."""
        several = [part.mean for part in self.losses] if len(self.losses) > 1 else []
        return [self.mean, *(metric for _, _, metric in self.watched), *several]

    def logs(self) -> dict[str, Any]:
        """The running means by name, sorted."""
        found: dict[str, Any] = {"loss": self.mean.result()}
        for i, _, metric in self.watched:
            prefix = f"{self.names[i]}_" if len(self.names) > 1 else ""
            name, again = f"{prefix}{metric.name}", 0
            while name in found:
                name = f"{prefix}weighted_{metric.name}" + (f"_{again}" if again else "")
                again += 1
            found[name] = metric.result()
        if len(self.losses) > 1:
            found.update((part.mean.name, part.mean.result()) for part in self.losses)
        return dict(sorted(found.items()))

    def ordered(self, logs: Mapping[str, Any]) -> list[str]:
        """The names in `logs` in the order in which `evaluate` returns values: the loss, the losses of several outputs
        or the metrics as they were given, the rest sorted."""
        first = dict.fromkeys(metric.name for metric in self.metrics)
        return list(dict.fromkeys([*(name for name in first if name in logs), *sorted(logs)]))


def check_names(loss: Any, *metrics_: Any) -> None:
    """Raises ValueError for names of losses or metrics that do not exist, before any data is there."""
    for found in _leaves(loss):
        if not (isinstance(found, str) and found.lower() in BY_SHAPE[2:]):
            losses.get(found)
    for found in (leaf for given in metrics_ for leaf in _leaves(given)):
        if isinstance(found, str) and found.lower() not in BY_SHAPE:
            metrics.get(found)


def _leaves(given: Any) -> list[Any]:
    if isinstance(given, Mapping) and given.keys() != {"kind", "class_name", "config"}:
        given = list(given.values())
    if isinstance(given, (list, tuple)):
        return [leaf for entry in given for leaf in _leaves(entry)]
    return [] if given is None else [given]
