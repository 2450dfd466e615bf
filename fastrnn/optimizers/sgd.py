"""Optimizers that follow the gradient or its sign."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..registry import register
from .optimizer import LearningRate, Optimizer


@register("optimizer")
@dataclass(eq=False, repr=False)
class SGD(Optimizer):
    """Gradient descent, with momentum if asked for.

    w <- w - lr g                                 momentum = 0
    m <- momentum m - lr g;  w <- w + m           momentum > 0
    m <- momentum m - lr g;  w <- w + momentum m - lr g     nesterov
    """

    learning_rate: LearningRate = LearningRate(0.01)
    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.momentum <= 1:
            raise self._bad("momentum", "lie in [0, 1]")

    def slots(self) -> dict[str, float]:
        return {"momentum": 0.0} if self.momentum else {}

    def coefficients(self, learning_rate: float, step: int) -> tuple[Any, ...]:
        return (learning_rate, self.momentum) if self.momentum else (learning_rate,)

    @property
    def kernel(self) -> str:
        return ("nesterov" if self.nesterov else "momentum") if self.momentum else "sgd"


@register("optimizer")
@dataclass(eq=False, repr=False)
class Lion(Optimizer):
    """The sign of a momentum (Chen et al. 2023, "Symbolic discovery of optimization algorithms").

    w <- w - lr sign(beta_1 m + (1 - beta_1) g)
    m <- beta_2 m + (1 - beta_2) g
    """

    learning_rate: LearningRate = LearningRate(0.001)
    beta_1: float = 0.9
    beta_2: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("beta_1", "beta_2"):
            if not 0 < getattr(self, name) <= 1:
                raise self._bad(name, "lie in (0, 1]")

    def slots(self) -> dict[str, float]:
        return {"momentum": 0.0}

    def coefficients(self, learning_rate: float, step: int) -> tuple[Any, ...]:
        return learning_rate, self.beta_1, self.beta_2

    @property
    def kernel(self) -> str:
        return "lion"
