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
from ..params import layout_version, trainable_version
from .data import Batch
from .network import Run
from .stepping import Gradients, TrainingStep

Array = np.ndarray
MOST_BYTES = 1 << 25  # of results that a recording holds on to
OURS = __name__.partition(".")[0]


class Recorded(NamedTuple):
    """A recorded step: where its inputs and targets belong, and what it gives."""

    given: list[Array]
    run: Run
    recording: Any


class Repeated:
    """Differentiates one batch after another of the same arrays as long as nothing but the rows changes: in an epoch
    that no code of the user's can reach into.

    Args:
        step: whose `differentiate` this takes the place of.
    """

    def __init__(self, step: TrainingStep) -> None:
        self.step = step
        self.known: dict[Any, Recorded | None] = {}
        self.refused = bool(step.penalized) or not all(map(_layer_replays, step.network.steps))

    def differentiate(self, batch: Batch) -> Gradients:
        """Leaves the gradients of the loss on a batch in the parameters."""
        y = batch.y
        if self.refused or batch.sample_weight is not None or y is None:
            return self.step.differentiate(batch)
        key = batch.size, threads.get_num_threads(), config.epsilon(), trainable_version(), layout_version()
        recorded = self.known.get(key)
        if recorded is None:
            if key in self.known:
                return self._record(key, batch)
            self.known[key] = None
            return self.step.differentiate(batch)
        for own, a in zip(recorded.given, (*batch.x, *y), strict=True):
            np.copyto(own, a)  # type: ignore[arg-type]
        if not recorded.recording.replay():
            return self.step.differentiate(batch)  # says what is wrong with the batch
        return self._found(recorded)

    def _record(self, key: Any, batch: Batch) -> Gradients:
        step = self.step
        if any(a is None for a in batch.y or ()):
            self.refused = True
            return step.differentiate(batch)
        x, y = _own(batch.x), _own(batch.y)
        arrays = [a for block in dict.fromkeys(p.block for p in step.weights) for a in (block.values, block.gradients)]
        self.refused = not all(part.weight is None and _ours(part.loss) for part in step.objective.losses)
        with kernels.Recording([*x, *y, *arrays], MOST_BYTES) as recording:
            found = step.differentiate(Batch(x, [*y], None, batch.size))
        self.refused |= not recording.complete or any(m is not None for m in found.run.masks)
        if not self.refused:
            self.known[key] = Recorded([*x, *y], found.run._replace(tape=[]), recording)
        return found._replace(run=self._shown(found.run))

    def _found(self, recorded: Recorded) -> Gradients:
        """What a replay gave."""
        parts = recorded.recording.totals
        total = 0.0
        for value in parts:
            total += value
        return Gradients(self._shown(recorded.run), total, parts, math.isfinite(total) and recorded.recording.finite)

    def _shown(self, run: Run) -> Run:
        """What metrics get to see: copies of the outputs, which they may keep."""
        return run._replace(outputs=[y.copy() for y in run.outputs]) if self.step.objective.watched else run


def _layer_replays(step: Any) -> bool:
    return step.layer.replays and _ours(step.layer) and step.layer.activity_regularizer is None and not step.mask


def _ours(thing: Any) -> bool:
    return type(thing).__module__.partition(".")[0] == OURS


def _own(arrays: Sequence[Any] | None) -> list[Array]:
    """Copies; integers as the kernels take them."""
    return [np.array(a, np.int64 if a.dtype.kind in "iu" else a.dtype, order="C") for a in arrays or ()]
