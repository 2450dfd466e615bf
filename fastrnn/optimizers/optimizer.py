"""What all optimizers share: one step over flat arrays.

An optimizer is the state of one weight and the step of one weight: the names and initial values of its *slots*
(momentum, mean square, ...), the numbers that a step needs besides them, and the step itself, which is one pass of the
kernels over flat arrays (`_core/src/update.h`) or, in an optimizer of one's own, a function of NumPy arrays. Here
is the rest, once: slots that lie over all parameters, clipping, weight decay, accumulated gradients, moving averages
of the weights, constraints, exact saving.

The order of one step:

    g <- mean of the accumulated gradients        gradient_accumulation_steps
    g <- clip(g)                                  clipvalue | clipnorm (per weight array) | global_clipnorm
    w <- w - w * weight_decay * learning_rate     decoupled
    w, slots <- step(w, g, slots)
    a <- ema_momentum * a + (1 - ema_momentum) w  use_ema; w <- a every ema_overwrite_frequency steps
    w <- constraint(w)

Formulas, order and defaults are those of Keras 3. A lazy parameter (`Parameter.lazy`) takes part row by row: only where
its gradient, after accumulation and clipping, is not all zero.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np

from .. import threads
from .._core import kernels
from ..params import FLOAT_DTYPES, Block, Parameter, layout_version, segments, unique
from ..registry import Configurable, is_own, serialize, snake_case
from .groups import ACCUMULATOR, AVERAGE, Chunk, Group
from .schedules import LearningRateSchedule

CHUNK = 1 << 16  # weights that a step in NumPy handles at a time: scratch and slots of one chunk stay in the cache
Array = np.ndarray
Rate = float | LearningRateSchedule | Callable[[], float]


class LearningRate:
    """The field `learning_rate` of an optimizer: given a number, a schedule or a function, read as a number."""

    def __init__(self, default: float) -> None:
        self.default = default

    def __get__(self, optimizer: Any, owner: type | None = None) -> float:
        if optimizer is None:
            return self.default
        source = optimizer._learning_rate
        if isinstance(source, LearningRateSchedule):
            return float(source(optimizer._calls))
        return float(source()) if callable(source) else source

    def __set__(self, optimizer: Any, value: Rate) -> None:
        if not callable(value):
            current = getattr(optimizer, "_learning_rate", None)
            if callable(current):
                raise TypeError(
                    f"{type(optimizer).__name__}: learning_rate follows {current!r} and cannot be set to a number; "
                    "make the optimizer with a number to be able to set it"
                )
            value = optimizer._nonnegative("learning_rate", value)
        optimizer._learning_rate = value


@dataclass(eq=False, repr=False)
class Optimizer(Configurable):
    """Base of all optimizers.

    A subclass defines `slots`, `coefficients` and `step`:

        @register("optimizer")
        @dataclass(eq=False, repr=False)
        class Signed(Optimizer):
            @staticmethod
            def step(w, g, scratch, learning_rate):
                w -= learning_rate * np.sign(g)

    Args:
        learning_rate: a number, a `schedules.LearningRateSchedule`, or a function without arguments.
        weight_decay: weights shrink by `weight_decay * learning_rate` before each update (decoupled).
        clipnorm: largest norm of the gradient of each weight array.
        clipvalue: largest absolute value in a gradient.
        global_clipnorm: largest norm of all gradients taken as one vector. At most one of the three is given.
        use_ema: keep an exponential moving average of the weights, which they take at the end of `fit` (`finalize`).
        ema_momentum: share of the old average that stays at each step.
        ema_overwrite_frequency: the weights also take the average every so many steps.
        loss_scale_factor: kept, without effect: float32 and float64 need no scaled loss.
        gradient_accumulation_steps: update every so many calls, with the mean of their gradients.
        excluded_from_weight_decay: see `exclude_from_weight_decay`.

    Raises:
        ValueError: if an argument lies outside its range or two kinds of clipping are asked for.
    """

    kind = "optimizer"

    learning_rate: LearningRate = LearningRate(0.001)
    _: KW_ONLY
    weight_decay: float | None = None
    clipnorm: float | None = None
    clipvalue: float | None = None
    global_clipnorm: float | None = None
    use_ema: bool = False
    ema_momentum: float = 0.99
    ema_overwrite_frequency: int | None = None
    loss_scale_factor: float | None = None
    gradient_accumulation_steps: int | None = None
    excluded_from_weight_decay: Sequence[str] = ()
    name: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._learning_rate: Rate
        self.name = self.name or snake_case(type(self).__name__)
        self.excluded_from_weight_decay = tuple(self.excluded_from_weight_decay)
        clips = [name for name in ("clipnorm", "clipvalue", "global_clipnorm") if getattr(self, name) is not None]
        if len(clips) > 1:
            raise ValueError(f"{type(self).__name__} takes one kind of clipping; received {' and '.join(clips)}")
        for name in (*clips, "loss_scale_factor"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise self._bad(name, "be positive and finite")
        if self.weight_decay is not None:
            self._nonnegative("weight_decay", self.weight_decay)
        for name, least in (("gradient_accumulation_steps", 2), ("ema_overwrite_frequency", 1)):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, (int, np.integer)) and value >= least):
                raise self._bad(name, f"be an integer of at least {least}, or None")
        if not 0 <= self.ema_momentum <= 1:
            raise self._bad("ema_momentum", "lie in [0, 1]")
        self._calls = 0
        self._parameters: list[Parameter] = []
        self._groups: list[Group] = []
        self._retired: dict[tuple[str, Parameter], Array] = {}
        self._blocks: list[Block] = []
        self._located = -1
        self._chunks: list[Chunk] = []
        self._passes: list[kernels.Update] = []
        self._passes_of = ""
        self._constrained: list[Parameter] = []

    # What a subclass defines.

    def slots(self) -> dict[str, float]:
        """Names and initial values of what is kept for each weight."""
        return {}

    def coefficients(self, learning_rate: float, step: int) -> tuple[Any, ...]:
        """The numbers that update number `step` (1, 2, ...) passes to `step`; called once an update."""
        return (learning_rate,)

    @property
    def kernel(self) -> str | None:
        """The name of the kernels' step (`kernels.steps`), which takes the coefficients and slots in their order."""
        return None

    def step(self, w: Array, g: Array, scratch: Array, *coefficients: Any, **slots: Any) -> None:
        """One update, in place, of the weights `w` (N) and their slots (N); `scratch` (2, N) may be overwritten.

        Whoever overrides it (a static method is enough) is not asked for `kernel`.
        """
        if self.kernel is None:
            raise NotImplementedError(f"{type(self).__name__} must define step(w, g, scratch, *coefficients, **slots)")
        kernels.update(self.kernel, w, g, tuple(slots.values()), (1.0, *coefficients))

    # What it offers.

    @property
    def iterations(self) -> int:
        """Updates made so far."""
        return self._calls // (self.gradient_accumulation_steps or 1)

    @property
    def built(self) -> bool:
        return bool(self._parameters)

    def build(self, parameters: Sequence[Parameter]) -> None:
        """Fixes what is trained. Called again with others, parameters that it has ever trained keep their slots."""
        parameters = unique(parameters)
        if parameters == self._parameters:
            return
        known = {**self._retired, **{(name, p): view for group in self._groups for name, p, view in group.views()}}
        initial = self.slots()
        if self.use_ema:
            initial[AVERAGE] = 0.0
        if self.gradient_accumulation_steps:
            initial[ACCUMULATOR] = 0.0
        by_dtype = ([p for p in parameters if p.dtype == dtype] for dtype in FLOAT_DTYPES)
        self._parameters, self._groups = parameters, [Group(members, initial) for members in by_dtype if members]
        for group in self._groups:
            for name, p, view in group.views():
                view[...] = known.pop((name, p), view)
        self._retired = known
        self._located = -1

    def apply(self) -> None:
        """One step from the gradients that the parameters hold. Clipping overwrites the gradients.

        Raises:
            ValueError: if the optimizer has not been built, or the learning rate is negative or not finite.
        """
        if not self._parameters:
            raise ValueError(f"{type(self).__name__} has nothing to train: call build(parameters) before apply()")
        learning_rate = self._nonnegative("learning_rate", self.learning_rate)
        self._locate()
        updates = not self.gradient_accumulation_steps or self._accumulate(self.gradient_accumulation_steps)
        if updates:
            if self.clipvalue or self.clipnorm or self.global_clipnorm:
                self._clip()
            self._update(learning_rate)
        overwrites = self.use_ema and self._average()
        for p in self._constrained:
            p.assign(p.constraint(p.values))
        if updates or overwrites:
            self._changed()
        self._calls += 1

    @property
    def foresees(self) -> bool:
        """Whether steps come to passes of the kernels, whose coefficients can be told before, and no code of users."""
        rate = self._learning_rate
        more = self.clipvalue, self.clipnorm, self.global_clipnorm, self.gradient_accumulation_steps, self.use_ema
        own = is_own(self) and (not callable(rate) or is_own(rate))
        return own and not any(more) and not self._constrained and not self._in_numpy and self.kernel is not None

    def ahead(self, count: int) -> tuple[list[kernels.Update], list[list[tuple[float, ...]]]] | None:
        """The next `count` steps, if it `foresees` them: the passes of a step, and for each step the coefficients of
        each pass. Whoever makes them tells `made`. None if they cannot be told, for what is wrong with a rate too."""
        self._locate()
        if not self.foresees:
            return None
        rate, coefficients = self._learning_rate, []
        try:
            for step in range(self._calls, self._calls + count):
                learning_rate = float(rate(step)) if isinstance(rate, LearningRateSchedule) else self.learning_rate
                found = self.coefficients(self._nonnegative("learning_rate", learning_rate), step + 1)
                coefficients.append([(self._keep(chunk, learning_rate), *found) for chunk in self._chunks])
        except Exception:
            return None
        return self._bound(str(self.kernel)), coefficients

    def made(self, count: int) -> None:
        """Called after `count` of the steps that `ahead` gave."""
        if count:
            self._changed()
            self._calls += count

    def finalize(self) -> None:
        """With `use_ema`, the weights take their averages: what `fit` does at its end."""
        if self.use_ema and self.built:
            self._locate()
            for chunk in self._chunks:
                chunk.values[:] = chunk.average
            self._changed()

    def exclude_from_weight_decay(
        self, var_list: Sequence[Parameter] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """Leaves the given weights, and those in whose name one of `var_names` is found, without weight decay.

        Raises:
            ValueError: if the optimizer has been built.
        """
        if self.built:
            raise ValueError(f"{type(self).__name__}: exclude_from_weight_decay comes before the optimizer is built")
        self.excluded_from_weight_decay = (*(p.path for p in var_list or ()), *(var_names or ()))

    def state(self) -> dict[str, Array]:
        """Copies of all that the next step depends on: the count of steps, the learning rate, and each slot of each
        parameter as `"<slot>/<path of the parameter>"`, so that it does not matter where in memory they lie."""
        found: dict[str, Array] = {"iterations": np.array(self._calls, dtype=np.int64)}
        if not callable(self._learning_rate):
            found["learning_rate"] = np.array(self._learning_rate, dtype=np.float64)
        for name, view in self._named_slots().items():
            found[name] = view.copy()
        return found

    def set_state(self, state: dict[str, Array]) -> None:
        """Continues where `state` was taken, bit for bit. Nothing is changed if it does not fit.

        Raises:
            ValueError: naming what is missing, what is left over, or the shape that differs.
        """
        slots = self._named_slots()
        given = set(state) - {"learning_rate"}
        expected = {"iterations", *slots}
        if given != expected:
            raise ValueError(
                f"{type(self).__name__}: this state belongs to another optimizer or other weights; "
                f"missing: {sorted(expected - given)}, unknown: {sorted(given - expected)}"
            )
        for name, view in slots.items():
            if np.shape(state[name]) != view.shape:
                raise ValueError(
                    f"{type(self).__name__}: {name!r} has shape {view.shape}; received shape {np.shape(state[name])}"
                )
        if "learning_rate" in state and not callable(self._learning_rate):
            self.learning_rate = float(state["learning_rate"])
        self._calls = int(state["iterations"])
        for name, view in slots.items():
            view[...] = state[name]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "learning_rate": serialize(self._learning_rate)}

    def __getstate__(self) -> dict[str, Any]:
        return {
            k: v
            for k, v in self.__dict__.items()
            if k not in ("_chunks", "_blocks", "_constrained", "_passes", "_passes_of")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _located=-1)

    # The parts of a step.

    def _locate(self) -> None:
        """Finds the memory of the parameters, which moves when a model adopts them."""
        version = layout_version()
        if self._located != version:
            self._located, self._blocks = version, list(dict.fromkeys(p.block for p in self._parameters))
            most = CHUNK if self._in_numpy else sys.maxsize
            self._chunks = [chunk for group in self._groups for chunk in group.chunks(self._decays, most)]
            self._constrained = [p for p in self._parameters if p.constraint is not None]
            self._passes_of = ""

    def _changed(self) -> None:
        for block in self._blocks:
            block.changed()

    def _decays(self, p: Parameter) -> bool:
        excluded = self.excluded_from_weight_decay
        return not (p.path in excluded or any(re.search(name, p.name) for name in excluded))

    def _accumulate(self, steps: int) -> bool:
        """Adds the gradients to the sums; says whether this call updates, with the mean of the sums as gradients."""
        last = (self._calls + 1) % steps == 0
        for chunk in self._chunks:
            _pass("accumulate", chunk, (chunk.accumulator,))
        if last:
            for p in self._parameters:
                p.untrack_rows()
            for chunk in self._chunks:
                _pass("take_mean", chunk, (chunk.accumulator,), steps)
        return last

    def _clip(self) -> None:
        if self.clipvalue:
            for chunk in self._chunks:
                _pass("clip", chunk, (), self.clipvalue)
        elif self.clipnorm:
            for segment in (s for p in self._parameters for s in segments([p])):
                norm = math.sqrt(_squared_norm(segment.gradients))
                if norm > self.clipnorm:
                    count = threads.get_num_threads()
                    kernels.update("scale", None, segment.gradients, (), (self.clipnorm / norm,), threads=count)
        elif self.global_clipnorm:
            norm = math.sqrt(math.fsum(_squared_norm(s.gradients) for p in self._parameters for s in segments([p])))
            if norm > self.global_clipnorm:
                for chunk in self._chunks:
                    _pass("scale", chunk, (), self.global_clipnorm / norm)

    @property
    def _in_numpy(self) -> bool:
        return getattr(type(self).step, "__func__", type(self).step) is not Optimizer.step

    def _update(self, learning_rate: float) -> None:
        coefficients = self.coefficients(learning_rate, self.iterations + 1)
        kernel = None if self._in_numpy else self.kernel
        self._locate()  # what comes before may have looked at gradients, after which all rows may have one
        if kernel is None:
            for chunk in self._chunks:
                self._step_in_numpy(chunk, self._keep(chunk, learning_rate), coefficients)
            return
        for chunk, update in zip(self._chunks, self._bound(kernel), strict=True):
            update.run((self._keep(chunk, learning_rate), *coefficients), threads=threads.get_num_threads())

    def _bound(self, kernel: str) -> list[kernels.Update]:
        """The pass of this name over each chunk."""
        if kernel != self._passes_of:
            self._passes_of, self._passes = kernel, [_update_of(kernel, chunk) for chunk in self._chunks]
        return self._passes

    def _keep(self, chunk: Chunk, learning_rate: float) -> float:
        """What decay leaves of the weights."""
        return 1.0 - (self.weight_decay or 0.0) * learning_rate if chunk.decayed else 1.0

    def _step_in_numpy(self, chunk: Chunk, keep: float, coefficients: tuple[Any, ...]) -> None:
        w, g, slots, scratch, where = chunk.values, chunk.gradient, chunk.slots, chunk.scratch, None
        if chunk.lazy is not None:
            shape = (-1, _width(chunk.lazy))
            where = g.reshape(shape).any(axis=1)
            w, g = w.reshape(shape)[where].reshape(-1), g.reshape(shape)[where].reshape(-1)
            slots = {name: slot.reshape(shape)[where].reshape(-1) for name, slot in slots.items()}
            scratch = np.empty((2, w.size), w.dtype)
        if keep != 1.0:
            np.multiply(w, keep, out=w)
        self.step(w, g, scratch, *coefficients, **slots)
        if where is not None:
            for old, new in ((chunk.values, w), *((chunk.slots[name], slots[name]) for name in slots)):
                old.reshape(shape)[where] = new.reshape(shape)

    def _average(self) -> bool:
        """Moves the averages towards the weights; says whether the weights took them."""
        kept = self.ema_momentum if self.iterations else 0.0
        frequency = self.ema_overwrite_frequency
        overwrites = frequency is not None and (self.iterations + 1) % frequency == 0
        for chunk in self._chunks:
            _pass("average", chunk, (chunk.average,), kept)
            if overwrites:
                chunk.values[:] = chunk.average
        return overwrites

    def _named_slots(self) -> dict[str, Array]:
        views = [(f"{name}/{p.path}", view) for group in self._groups for name, p, view in group.views()]
        found = dict(views)
        if len(found) != len(views):
            raise ValueError(f"{type(self).__name__}: two weights have the same path; their state cannot be named")
        return found

    # Checks of arguments.

    def _bad(self, name: str, rule: str) -> ValueError:
        return ValueError(f"{type(self).__name__}: {name} must {rule}; received {getattr(self, name)!r}")

    def _nonnegative(self, name: str, value: Any) -> float:
        if type(value) is float and 0 <= value < math.inf:
            return value
        scalar = isinstance(value, (int, float, np.generic, np.ndarray)) and np.ndim(value) == 0
        if not scalar or not 0 <= float(value) < math.inf:
            raise ValueError(f"{type(self).__name__}: {name} must be a number >= 0 and finite; received {value!r}")
        return float(value)

    def _fractions(self, *names: str) -> None:
        """Raises ValueError unless each of the fields lies in [0, 1)."""
        for name in names:
            if not 0 <= getattr(self, name) < 1:
                raise self._bad(name, "lie in [0, 1)")


def _update_of(kernel: str, chunk: Chunk) -> kernels.Update:
    rows = None if chunk.lazy is None else chunk.lazy.rows
    slots = tuple(chunk.slots.values())
    return kernels.Update(kernel, chunk.values, chunk.gradient, slots, width=_width(chunk.lazy), rows=rows)


def _pass(name: str, chunk: Chunk, slots: tuple[Array, ...], *coefficients: float) -> None:
    """One pass of the kernels over a chunk."""
    kernels.update(name, chunk.values, chunk.gradient, slots, coefficients, threads=threads.get_num_threads())


def _squared_norm(gradient: Array) -> float:
    return kernels.squared_norm(gradient, threads=threads.get_num_threads())


def _width(lazy: Parameter | None) -> int:
    """The length of the rows of a lazy parameter; 0 for none."""
    return 0 if lazy is None else lazy.size // lazy.shape[0]
