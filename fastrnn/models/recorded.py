"""Training steps that come again and again in the same shapes: recorded once, then done again by the kernels alone.

What a step costs beside its kernels is Python: finding the layers' weights, making the arrays of results, checking
them. It is the same every time, so the second step of a form of batches is recorded (`kernels.Recording`) and those
after it are replayed: the same calls in the same order over the same memory, hence the same bits. Recorded are models
whose layers, activations and losses are this library's own and touch numbers through the kernels alone (`replays`). A
recording that misses something is never used; the steps then go their usual way, and so does the batch that a replay
refuses.

Between two steps users do what they like: change the loss or a layer, train another model, look at gradients. What a
recorded step depends on besides memory has a version (`_version`); when one changes, all is recorded anew. Methods of
this library's classes that are replaced in the class, for all objects, are not noticed.

Where no code of the user's is called between two batches of `fit`, a *run* of several steps is one call: rows are
taken, the step is replayed, the optimizer's passes are made, and so on (`Recording.train`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import config, threads
from .._core import kernels
from ..layers.layer import BeforeActivation
from ..losses.loss import Loss
from ..params import layout_version, trainable_version
from ..registry import changes, is_own, replays, settings_version, watched
from .data import Batch, BatchRun, Filling, TakenBatch
from .network import Run
from .objective import OutputLoss
from .stepping import Gradients, TrainingStep

Array = np.ndarray
MOST_BYTES = 1 << 25  # of results that a recording holds on to; all of a model's together hold twice as many
MOST_FORMS, MOST_MARKS = 64, 4096
PATIENCE = 4096  # steps in which a recording that was not used makes no room for others
RUN_SECONDS, MOST_STEPS = 0.02, 256  # of a run: about the time that Ctrl-C and the progress bar may wait


class Recorded(NamedTuple):
    """A recorded step: its own inputs and targets, what puts those of a batch there, and what the step gives.

    Attributes:
        bytes: that it holds.
        sums: where it leaves the sum of the values of each metric; None where a metric is not up to the kernels.
        counts: of these values.
    """

    batch: Batch
    filling: Filling
    run: Run
    recording: kernels.Recording
    bytes: int
    sums: list[Array] | None
    counts: list[int]


SEEN, REFUSED = "seen", "refused"  # forms of which one step went by; and those that were recorded in vain


class Repeated:
    """Trains on batches, those of a form that it knows by a replay.

    A recording is taken out of `known` while it is in use and put back when all went well. So another thread that
    trains the same model meanwhile goes its own way, and nothing that was interrupted is used again.

    Args:
        step: whose `train` and `differentiate` this takes the place of.
    """

    def __init__(self, step: TrainingStep) -> None:
        self.step = step
        self.known: dict[Any, tuple[Recorded, int]] = {}  # by form of batches, with the step of the last use, in order
        self.marks: dict[Any, str] = {}  # of other forms
        self.steps = 0
        self.version: Any = None
        self.settings: Any = None
        self.refused = False
        self.last: tuple[Any, float] = (None, 0.0)  # batch, and seconds that a step of it took

    def train(self, batch: Batch | BatchRun) -> tuple[int, bool]:
        """One step, or those of a run until one is not finite. Says how many were taken, and whether the last was."""
        start = time.perf_counter()
        if isinstance(batch, BatchRun):
            taken, finite = self._train_run(batch)
        else:
            taken, finite = 1, self.step.train(batch, self.differentiate)
        self.last = batch, (time.perf_counter() - start) / taken
        return taken, finite

    @property
    def together(self) -> int:
        """How many steps like the last one are worth to be taken in one call, as a `BatchRun`."""
        batch, seconds = self.last
        if not isinstance(batch, (TakenBatch, BatchRun)) or not self._is_foreseen(batch.form):
            return 1
        return max(1, min(MOST_STEPS, int(RUN_SECONDS / seconds)))

    def differentiate(self, batch: Batch) -> Gradients:
        """Leaves the gradients of the loss on a batch in the parameters."""
        self._look_again()
        self.steps += 1
        form, settings = batch.form, self.settings
        if self.refused or form is None:
            return self.step.differentiate(batch)
        recorded, _ = self.known.pop(form, (None, 0))
        if recorded is not None:
            return self._replay(form, recorded, batch, settings)
        mark = self.marks.get(form)
        if mark == SEEN and self._has_room(0):
            return self._record(form, batch, settings)
        resolved = self.step.objective.resolved
        found = self.step.differentiate(batch)
        if not resolved:
            self.version = None  # a first step makes the losses
            self._look_again()
        if mark is None:
            self._mark(form, SEEN)
        return found

    def _look_again(self) -> None:
        """Forgets all if something has changed that a step of this model depends on."""
        version, step = _version(), self.step
        if version == self.version:
            return
        parts = watched([*(s.layer for s in step.network.steps), *(part.loss for part in step.objective.losses)])
        settings = [version[:2]]
        settings += [(p.block, p.offset, p.rows, p.trainable) for p in step.weights]
        settings += [(id(part), changes(part)) for part in parts]
        if settings != self.settings:
            self.settings = None
            self.known.clear()
            self.marks.clear()
            self.refused = (
                bool(step.penalized)
                or not all(map(_layer_replays, step.network.steps))
                or any(isinstance(v, np.ndarray) for part in parts for k, v in vars(part).items() if k[0] != "_")
            )
            self.settings = settings
        self.version = version

    def _mark(self, form: Any, mark: str) -> None:
        self.marks[form] = mark
        if len(self.marks) > MOST_MARKS:
            self.marks.pop(next(iter(list(self.marks))), None)

    def _keep(self, form: Any, recorded: Recorded, settings: Any) -> None:
        if self.settings is settings:
            self.known[form] = recorded, self.steps

    def _has_room(self, size: int) -> bool:
        """Whether another recording of so many bytes may be kept. Those that were not used for long make room."""
        while True:
            held = list(self.known.items())
            if len(held) < MOST_FORMS and sum(r.bytes for _, (r, _) in held) + size <= 2 * MOST_BYTES:
                return True
            if not held or self.steps - held[0][1][1] <= PATIENCE:
                return False
            self.known.pop(held[0][0], None)

    def _record(self, form: Any, batch: Batch, settings: Any) -> Gradients:
        step = self.step
        self.refused = not all(map(_loss_replays, step.objective.losses))
        x, y = _own(batch.x), _own(batch.y)
        size = sum(a.nbytes for a in (*x, *y))
        if self.refused or size > MOST_BYTES:
            self._mark(form, REFUSED)
            return step.differentiate(batch)
        arrays = [a for block in dict.fromkeys(p.block for p in step.weights) for a in (block.values, block.gradients)]
        own = Batch(x, [*y], None, batch.size)
        with kernels.Recording([*x, *y, *arrays], MOST_BYTES) as recording:
            begun = recording.complete
            found = step.differentiate(own)
            sums, counts = self._sums(recording, own, found.run)
        whole = all(recording.holds(_array(y)) for y in found.run.outputs) and recording.totals == found.parts
        size += recording.bytes
        if not begun or not found.finite:
            pass  # another thread was recording; or not all was done
        elif whole and all(m is None for m in found.run.masks) and self._has_room(size):
            run = found.run._replace(tape=[])
            self._keep(form, Recorded(own, Filling(batch, [*x, *y]), run, recording, size, sums, counts), settings)
        else:
            self._mark(form, REFUSED)
        return found if step.objective.forgets else found._replace(batch=batch, run=_copied(found.run))

    def _sums(self, recording: kernels.Recording, batch: Batch, run: Run) -> tuple[list[Array] | None, list[int]]:
        sums: list[Array] = []
        counts = []
        for i, _, metric in self.step.objective.watched:
            try:
                values = metric.values(batch.y[i], run.outputs[i]) if replays(metric) else None  # type: ignore[index]
            except Exception:  # which it raises again when it is given the batch
                values = None
            if values is None or not recording.holds(values):
                return None, []
            sums.append(kernels.in_numpy(np.add.reduce, values, axis=None, dtype=np.float64, out=np.empty(())))
            counts.append(values.size)
        return sums, counts

    def _replay(self, form: Any, recorded: Recorded, batch: Batch, settings: Any) -> Gradients:
        for p in self.step.weights:
            p.written()
        recorded.filling.fill(batch)
        accepted = recorded.recording.replay()
        parts = recorded.recording.totals
        total = 0.0
        for value in parts:
            total += value
        finite = math.isfinite(total) and recorded.recording.finite
        run = recorded.run
        if self.step.objective.forgets:
            batch = recorded.batch if accepted else batch
        else:
            run = _copied(run)
        self._keep(form, recorded, settings)
        return Gradients(batch, run, total, parts, finite) if accepted else self.step.differentiate(batch)

    # runs of steps

    def _train_run(self, run: BatchRun) -> tuple[int, bool]:
        """Steps that come to replays and passes of the optimizer are taken by one call of the kernels."""
        self._look_again()
        taken, settings = 0, self.settings
        plan = self.step.optimizer.ahead(run.steps) if self._is_foreseen(run.form) else None
        recorded, _ = self.known.pop(run.form, (None, 0)) if plan is not None else (None, 0)
        if plan is not None and recorded is not None:
            self.steps += run.steps
            with kernels.uninterrupted():
                steps = self._train_ahead(run, recorded, *plan)
            self._keep(run.form, recorded, settings)
            taken = len(steps)
            if taken > recorded.recording.updates:
                return taken, False
        while taken < run.steps:  # the usual way, which says what is wrong with a batch that was refused
            finite = self.step.train(run.part(taken), self.differentiate)
            taken += 1
            if not finite:
                return taken, False
        return taken, True

    def _is_foreseen(self, form: Any) -> bool:
        """Whether steps of this form, with their updates, are up to the kernels."""
        recorded, _ = self.known.get(form, (None, 0))
        if recorded is None or recorded.sums is None or recorded.filling.taking is None:
            return False
        watching = (metric for _, _, metric in self.step.objective.watched)
        return bool(self.step.trained) and self.step.optimizer.foresees and all(map(replays, watching))

    def _train_ahead(
        self, run: BatchRun, recorded: Recorded, passes: Any, coefficients: Any
    ) -> list[tuple[float, list[float], list[float]]]:
        recording, taking, sums = recorded.recording, recorded.filling.taking, recorded.sums
        assert taking is not None and sums is not None
        for p in self.step.weights:
            p.written()
        count = threads.get_num_threads()
        try:
            steps = recording.train(taking, run.rows, passes, coefficients, sums, threads=count)
        finally:
            self.step.optimizer.made(recording.updates)
        self.step.objective.record_steps(run.size, steps, recorded.counts)
        return steps


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
