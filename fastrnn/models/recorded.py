"""Training steps that come again and again in the same shapes: recorded once, then done again by the kernels alone.

What a step costs beside its kernels is Python: finding the layers' weights, making the arrays of results, checking
them. It is the same every time, so the second step of a form of batches is recorded (`kernels.Recording`) and those
after it are replayed: the same calls in the same order over the same memory, hence the same bits. Recorded are models
whose layers, activations and losses are this library's own and touch numbers through the kernels alone (`replays`). A
recording that misses something is never used; the steps then go their usual way, and so does the batch that a replay
refuses.

Between two steps users do what they like: change the loss or a layer, train another model, look at gradients. What a
recorded step depends on besides memory has a version (`_version`); when one changes, all is recorded anew.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import config, threads
from .._core import kernels
from ..layers.layer import BeforeActivation
from ..losses.loss import Loss
from ..params import layout_version, trainable_version
from ..registry import is_own, replays, settings_version, watched
from .data import Batch, Filling
from .network import Run
from .objective import OutputLoss
from .stepping import Gradients, TrainingStep

Array = np.ndarray
MOST_BYTES = 1 << 25  # of results that a recording holds on to; all of a model's together hold twice as many
MOST_FORMS = 64


class Recorded(NamedTuple):
    """A recorded step: its own inputs and targets, what puts those of a batch there, and what the step gives."""

    batch: Batch
    filling: Filling
    run: Run
    recording: Any


SEEN, REFUSED = "seen", "refused"  # forms of which one step went by; and those that were recorded in vain


class Repeated:
    """Differentiates batches, those of a form that it knows by a replay.

    Args:
        step: whose `differentiate` this takes the place of.
    """

    def __init__(self, step: TrainingStep) -> None:
        self.step = step
        self.known: dict[Any, Recorded | str] = {}  # by form of batches, the oldest first
        self.version: Any = None
        self.settings: Any = None
        self.forgets = self.refused = False
        self.busy = threading.Lock()

    def differentiate(self, batch: Batch) -> Gradients:
        """Leaves the gradients of the loss on a batch in the parameters."""
        if not self.busy.acquire(blocking=False):  # another thread is at it, in the same memory
            return self.step.differentiate(batch)
        try:
            return self._differentiate(batch)
        finally:
            self.busy.release()

    def _differentiate(self, batch: Batch) -> Gradients:
        version = _version()
        if version != self.version:
            self._look_again(version)
        form = batch.form
        if self.refused or form is None:
            return self.step.differentiate(batch)
        recorded = self.known.get(form)
        if isinstance(recorded, Recorded):
            return self._replay(form, recorded, batch)
        if recorded is SEEN:
            return self._record(form, batch)
        found = self.step.differentiate(batch)
        if recorded is None:
            if not any(self._recorded()):
                self._look_again(_version())  # a first step makes the losses
            self._remember(form, SEEN)
        return found

    def _look_again(self, version: tuple[Any, ...]) -> None:
        """Forgets all if something has changed that a step of this model depends on."""
        step = self.step
        parts = [*(s.layer for s in step.network.steps), *(part.loss for part in step.objective.losses)]
        settings = [version[:2]]
        settings += [(p.block, p.offset, p.rows, p.trainable) for p in step.weights]
        settings += [(id(part), part.changes) for part in watched(parts)]
        self.version = version
        if settings != self.settings:
            self.settings = settings
            self.known.clear()
            self.refused = bool(step.penalized) or not all(map(_layer_replays, step.network.steps))

    def _remember(self, form: Any, what: Recorded | str) -> None:
        """Forgets others that came before, if they are too many or hold too much."""
        self.known[form] = what
        while len(self.known) > MOST_FORMS or sum(r.recording.bytes for r in self._recorded()) > 2 * MOST_BYTES:
            del self.known[next(iter(self.known))]

    def _recorded(self) -> Iterator[Recorded]:
        return (r for r in self.known.values() if isinstance(r, Recorded))

    def _record(self, form: Any, batch: Batch) -> Gradients:
        step = self.step
        self.refused = not all(map(_loss_replays, step.objective.losses))
        if self.refused:
            return step.differentiate(batch)
        x, y = _own(batch.x), _own(batch.y)
        arrays = [a for block in dict.fromkeys(p.block for p in step.weights) for a in (block.values, block.gradients)]
        self.forgets = step.objective.forgets
        own = Batch(x, [*y], None, batch.size)
        with kernels.Recording([*x, *y, *arrays], MOST_BYTES) as recording:
            found = step.differentiate(own)
        replays = all(recording.holds(_array(y)) for y in found.run.outputs) and recording.totals == found.parts
        if replays and all(m is None for m in found.run.masks):
            run = found.run._replace(tape=[])
            self._remember(form, Recorded(own, Filling(batch, [*x, *y]), run, recording))
        else:
            self.known[form] = REFUSED
        return found if self.forgets else found._replace(batch=batch, run=_copied(found.run))

    def _replay(self, form: Any, recorded: Recorded, batch: Batch) -> Gradients:
        try:
            recorded.filling.fill(batch)
            accepted = recorded.recording.replay()
        except BaseException:
            del self.known[form]  # it ended in the middle
            raise
        return self._found(recorded, batch) if accepted else self.step.differentiate(batch)  # says what is wrong

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


def _version() -> tuple[Any, ...]:
    """Numbers that stay the same as long as nothing changes that a recorded step depends on besides memory."""
    return threads.get_num_threads(), config.epsilon(), trainable_version(), layout_version(), settings_version()


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
