"""One training step: forward, loss, backward, update. Prepared once, run often."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .._core import kernels
from ..params import Parameter, Segment, segments, unique
from ..states import Context, StateStore
from .data import Batch
from .network import Network, Plan, Run
from .objective import Objective

Array = np.ndarray


class Gradients(NamedTuple):
    """What a step knows before its update: batch, outputs and masks as metrics may see them, the loss, the loss of each
    output, whether all of it and all gradients, which lie in the parameters, are finite."""

    batch: Batch
    run: Run
    total: float
    parts: list[float]
    finite: bool


class TrainingStep:
    """Steps of one model under one `compile`. What is trained is settled when this is made.

    Args:
        network: of the model.
        weights: of the model, in order.
        trained: those the optimizer changes.
        objective: losses and metrics.
        optimizer: may be None if only `test` is used.
        store: of the model.
    """

    def __init__(
        self,
        network: Network,
        weights: list[Parameter],
        trained: list[Parameter],
        objective: Objective,
        optimizer: Any,
        store: StateStore,
    ) -> None:
        self.network, self.objective, self.optimizer, self.store = network, objective, optimizer, store
        self.weights, self.trained = unique(weights), trained
        self.penalized = [p for p in trained if p.regularizer is not None]
        self.testing = network.plan(Context(store=store))
        self._plan_training()
        self._blocks: list[Any] = []
        self._segments: list[Segment] = []
        self.claim()

    def _plan_training(self) -> None:
        """Anew once it is known which outputs the loss may take before their last activation."""
        context = Context(training=True, record=True, input_gradient=False, store=self.store)
        self.training = self.network.plan(context, self.objective.early)

    def claim(self) -> None:
        """Makes these weights those of the optimizer, which another model may have used in between."""
        if self.optimizer is not None and self.trained:
            self.optimizer.build(self.trained)

    def train(
        self,
        batch: Batch,
        differentiate: Callable[[Batch], Gradients] | None = None,
    ) -> bool:
        """One step, after `claim`. Weights change only if loss and gradients are finite; says whether they are.

        Args:
            batch: checked arrays.
            differentiate: in place of this step's own.
        """
        batch, run, total, parts, finite = (differentiate or self.differentiate)(batch)
        if finite and self.trained:
            with kernels.uninterrupted():
                self.optimizer.apply()
        self.objective.record(batch, run, total, parts)
        return finite

    def differentiate(self, batch: Batch) -> Gradients:
        """Leaves the gradients of the loss on a batch in the parameters."""
        run, total, parts = self._differentiate(batch, self.training)
        finite = math.isfinite(total) and all(s.gradients_are_finite() for s in self._segments)
        return Gradients(batch, run, total, parts, finite)

    def test(self, batch: Batch) -> None:
        """Takes the losses and metrics of a batch into the running means."""
        run = self.network.forward(batch.x, None, self.testing)
        self._resolve(batch, run)
        total, parts = self.objective.value(batch, run)
        total += run.penalty + sum(p.regularizer.value_and_gradient(p.values)[0] for p in self.penalized)
        self.objective.record(batch, run, total, parts)

    def _resolve(self, batch: Batch, run: Run) -> None:
        if not self.objective.resolved:
            self.objective.resolve(batch.y or [None] * len(run.outputs), run.outputs, self.network)
            self._plan_training()

    def gradients(self, batch: Batch, training: bool) -> tuple[float, list[Array]]:
        """The loss and one gradient per weight, zeros where it is not trained. Nothing else of the model changes."""
        plan = self.network.plan(Context(training=training, record=True, input_gradient=False, store=self.store))
        _, total, _ = self._differentiate(batch, plan)
        trained = {id(p) for p in self.trained}
        return total, [p.copy_gradient() if id(p) in trained else np.zeros(p.shape, p.dtype) for p in self.weights]

    def _differentiate(self, batch: Batch, plan: Plan) -> tuple[Any, float, list[float]]:
        """Leaves the gradients of the loss, penalties included, in the parameters."""
        try:
            self._clear()
            return self._add_gradients(batch, plan)
        finally:
            for segment in self._segments:
                segment.settle_gradients()

    def _add_gradients(self, batch: Batch, plan: Plan) -> tuple[Any, float, list[float]]:
        run = self.network.forward(batch.x, None, plan)
        self._resolve(batch, run)
        total, slopes, parts = self.objective.differentiate(batch, run)
        total += run.penalty
        if math.isfinite(total):
            self.network.backward(run, slopes)
        for p in self.penalized:
            value, slope = p.regularizer.value_and_gradient(p.values)
            total += value
            p.gradient[...] += slope
        return run, total, parts

    def _clear(self) -> None:
        """Sets all gradients to zero, wherever they lie by now."""
        blocks = [p.block for p in self.weights]
        if blocks != self._blocks:
            self._blocks, self._segments = blocks, segments(self.weights)
        for segment in self._segments:
            segment.clear_gradients()
