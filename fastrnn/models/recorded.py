"""Training steps that come again and again in the same shapes: recorded once, then done again by the kernels alone.

What a step costs beside its kernels is Python: finding the layers' weights, making the arrays of results, checking
them. It is the same every time, so the second step of a shape is recorded (`kernels.Recording`) and those after it are
replayed: the same calls in the same order over the same memory, hence the same bits. Recorded are models whose layers,
activations and losses are this library's own and touch numbers through the kernels alone (`replays`). A recording that
misses something is never used; the steps then go their usual way, and so does the batch that a replay refuses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import config, threads
from .._core import kernels
from ..layers.layer import BeforeActivation
from ..losses.loss import Loss
from ..params import layout_version, trainable_version
from ..registry import is_own, replays
from .data import Batch, Filling
from .network import Run
from .objective import OutputLoss
from .stepping import Gradients, TrainingStep

Array = np.ndarray
MOST_BYTES = 1 << 25  # of results that a recording holds on to


class Recorded(NamedTuple):
    """A recorded step: its own inputs and targets, what puts those of a batch there, and what the step gives."""

    batch: Batch
    filling: Filling
    run: Run
    recording: Any


class Repeated:
    """Differentiates one batch after another of the same arrays as long as nothing but the rows changes: for as long as
    no callback of the user's is called.

    Args:
        step: whose `differentiate` this takes the place of.
    """

    def __init__(self, step: TrainingStep) -> None:
        self.step = step
        self.known: dict[int, Recorded | None] = {}  # by the number of rows; None where one step was seen
        self.version: Any = None
        self.forgets = False
        self.refused = bool(step.penalized) or not all(map(_layer_replays, step.network.steps))

    def differentiate(self, batch: Batch) -> Gradients:
        """Leaves the gradients of the loss on a batch in the parameters."""
        if self.refused:
            return self.step.differentiate(batch)
        version = threads.get_num_threads(), config.epsilon(), trainable_version(), layout_version()
        if version != self.version:
            self.version = version
            self.known.clear()
        recorded = self.known.get(batch.size)
        if recorded is None:
            if batch.size in self.known:
                return self._record(batch)
            self.known[batch.size] = None
            return self.step.differentiate(batch)
        recorded.filling.fill(batch)
        if not recorded.recording.replay():
            return self.step.differentiate(batch)  # says what is wrong with the batch
        return self._found(recorded, batch)

    def _record(self, batch: Batch) -> Gradients:
        step = self.step
        if batch.sample_weight is not None or batch.y is None or any(a is None for a in batch.y):
            self.refused = True
            return step.differentiate(batch)
        x, y = _own(batch.x), _own(batch.y)
        arrays = [a for block in dict.fromkeys(p.block for p in step.weights) for a in (block.values, block.gradients)]
        self.refused = not all(map(_loss_replays, step.objective.losses))
        self.forgets = step.objective.forgets
        own = Batch(x, [*y], None, batch.size)
        with kernels.Recording([*x, *y, *arrays], MOST_BYTES) as recording:
            found = step.differentiate(own)
        self.refused |= any(m is not None for m in found.run.masks) or recording.totals != found.parts
        self.refused |= not all(recording.holds(_array(y)) for y in found.run.outputs)
        if not self.refused:
            self.known[batch.size] = Recorded(own, Filling(batch, [*x, *y]), found.run._replace(tape=[]), recording)
        return found if self.forgets else found._replace(batch=batch, run=_copied(found.run))

    def _found(self, recorded: Recorded, batch: Batch) -> Gradients:
        """What a replay gave for a batch."""
        parts = recorded.recording.totals
        total = 0.0
        for value in parts:
            total += value
        finite = math.isfinite(total) and recorded.recording.finite
        if self.forgets:
            return Gradients(recorded.batch, recorded.run, total, parts, finite)
        return Gradients(batch, _copied(recorded.run), total, parts, finite)


def _layer_replays(step: Any) -> bool:
    return replays(step.layer) and step.layer.activity_regularizer is None and not step.mask


def _copied(run: Run) -> Run:
    """With outputs that metrics may keep."""
    return run._replace(outputs=[y if isinstance(y, BeforeActivation) else y.copy() for y in run.outputs])


def _array(y: Array | BeforeActivation) -> Array:
    return y.values if isinstance(y, BeforeActivation) else y


def _loss_replays(part: OutputLoss) -> bool:
    return part.weight is None and isinstance(part.loss, Loss) and is_own(part.loss)


def _own(arrays: Sequence[Any] | None) -> list[Array]:
    """Copies; integers as the kernels take them."""
    whole = [a.dtype.kind in "iu" and np.can_cast(a.dtype, np.int64) for a in arrays or ()]
    return [np.array(a, np.int64 if w else a.dtype, order="C") for a, w in zip(arrays or (), whole, strict=True)]
