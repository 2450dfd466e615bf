"""Learning rates that depend on the step. A schedule is called with the number of steps taken so far and gives a float.

A schedule of one's own is a dataclass below `LearningRateSchedule`:

    @register("schedule")
    @dataclass(eq=False, repr=False)
    class SquareRootDecay(LearningRateSchedule):
        initial_learning_rate: float

        def __call__(self, step):
            return self.initial_learning_rate / math.sqrt(1 + step)
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from .. import registry
from ..registry import Configurable, register

serialize, deserialize = registry.serialize, registry.deserialize


@dataclass(eq=False, repr=False)
class LearningRateSchedule(Configurable):
    """Base of all schedules: `schedule(step) -> float`, with `step` = 0 at the first update."""

    kind = "schedule"

    def __call__(self, step: int) -> float:
        raise NotImplementedError(f"{type(self).__name__} defines no __call__(step)")

    def _require_positive(self, *names: str) -> None:
        for name in names:
            if not getattr(self, name) > 0:
                raise ValueError(f"{type(self).__name__}: {name} must be positive; received {getattr(self, name)!r}")


@register("schedule")
@dataclass(eq=False, repr=False)
class ExponentialDecay(LearningRateSchedule):
    """`initial * rate^(step / decay_steps)`; with `staircase` the exponent is rounded down."""

    initial_learning_rate: float
    decay_steps: float
    decay_rate: float
    staircase: bool = False
    name: str = "ExponentialDecay"

    def __post_init__(self) -> None:
        self._require_positive("decay_steps")

    def __call__(self, step: int) -> float:
        exponent = step / self.decay_steps
        return self.initial_learning_rate * self.decay_rate ** (math.floor(exponent) if self.staircase else exponent)


@register("schedule")
@dataclass(eq=False, repr=False)
class PiecewiseConstantDecay(LearningRateSchedule):
    """`values[0]` up to and including step `boundaries[0]`, then `values[1]` up to `boundaries[1]`, and so on."""

    boundaries: Sequence[float]
    values: Sequence[float]
    name: str = "PiecewiseConstant"

    def __post_init__(self) -> None:
        self.boundaries, self.values = list(self.boundaries), list(self.values)
        if len(self.values) != len(self.boundaries) + 1:
            raise ValueError(
                "PiecewiseConstantDecay expects one value more than boundaries; "
                f"received {len(self.boundaries)} boundaries and {len(self.values)} values"
            )
        if sorted(self.boundaries) != self.boundaries:
            raise ValueError(f"PiecewiseConstantDecay expects rising boundaries; received {self.boundaries}")

    def __call__(self, step: int) -> float:
        return self.values[bisect_left(self.boundaries, step)]


@register("schedule")
@dataclass(eq=False, repr=False)
class PolynomialDecay(LearningRateSchedule):
    """`(initial - end) * (1 - step / decay_steps)^power + end`, and `end` after `decay_steps`.

    With `cycle` the fall starts again instead: `decay_steps` grows to the next multiple that covers the step.
    """

    initial_learning_rate: float
    decay_steps: float
    end_learning_rate: float = 0.0001
    power: float = 1.0
    cycle: bool = False
    name: str = "PolynomialDecay"

    def __post_init__(self) -> None:
        self._require_positive("decay_steps")

    def __call__(self, step: int) -> float:
        length = self.decay_steps
        if self.cycle:
            length *= max(1, math.ceil(step / length))
        remaining = 1 - min(step, length) / length
        return (self.initial_learning_rate - self.end_learning_rate) * remaining**self.power + self.end_learning_rate


@register("schedule")
@dataclass(eq=False, repr=False)
class InverseTimeDecay(LearningRateSchedule):
    """`initial / (1 + rate * step / decay_steps)`; with `staircase` the fraction is rounded down."""

    initial_learning_rate: float
    decay_steps: float
    decay_rate: float
    staircase: bool = False
    name: str = "InverseTimeDecay"

    def __post_init__(self) -> None:
        self._require_positive("decay_steps")

    def __call__(self, step: int) -> float:
        elapsed = step / self.decay_steps
        return self.initial_learning_rate / (1 + self.decay_rate * (math.floor(elapsed) if self.staircase else elapsed))


@register("schedule")
@dataclass(eq=False, repr=False)
class CosineDecay(LearningRateSchedule):
    """Half a cosine from `initial` down to `alpha * initial` in `decay_steps` (Loshchilov and Hutter 2016).

    With `warmup_target` the rate first rises in a line from `initial` to the target, during `warmup_steps`, and the
    cosine falls from there.
    """

    initial_learning_rate: float
    decay_steps: float
    alpha: float = 0.0
    name: str = "CosineDecay"
    warmup_target: float | None = None
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        self._require_positive("decay_steps")

    def __call__(self, step: int) -> float:
        top = self.initial_learning_rate
        if self.warmup_target is not None:
            if step < self.warmup_steps:
                return top + (self.warmup_target - top) * step / self.warmup_steps
            top, step = self.warmup_target, step - self.warmup_steps
        return top * _half_cosine(min(step / self.decay_steps, 1.0), self.alpha)


@register("schedule")
@dataclass(eq=False, repr=False)
class CosineDecayRestarts(LearningRateSchedule):
    """Half cosines one after the other (SGDR, Loshchilov and Hutter 2016).

    The first lasts `first_decay_steps`; each next one is `t_mul` times as long and starts `m_mul` times as high.
    """

    initial_learning_rate: float
    first_decay_steps: float
    t_mul: float = 2.0
    m_mul: float = 1.0
    alpha: float = 0.0
    name: str = "SGDRDecay"

    def __post_init__(self) -> None:
        self._require_positive("first_decay_steps")
        if not self.t_mul >= 1:
            raise ValueError(f"CosineDecayRestarts: t_mul must be at least 1; received {self.t_mul!r}")

    def __call__(self, step: int) -> float:
        elapsed, length, restarts = float(step), self.first_decay_steps, 0
        if self.t_mul == 1:
            restarts, elapsed = int(step // length), step % length
        while elapsed >= length:
            elapsed, length, restarts = elapsed - length, length * self.t_mul, restarts + 1
        return self.initial_learning_rate * _half_cosine(elapsed / length, self.alpha, self.m_mul**restarts)


def _half_cosine(fraction: float, alpha: float, height: float = 1.0) -> float:
    return (1 - alpha) * height * 0.5 * (1 + math.cos(math.pi * fraction)) + alpha
