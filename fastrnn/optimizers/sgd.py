"""Optimizers that follow the gradient or its sign."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..registry import register
from .optimizer import Array, LearningRate, Optimizer


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
        return learning_rate, self.momentum, self.nesterov

    @staticmethod
    def step(
        w: Array, g: Array, scratch: Array, lr: float, friction: float, nesterov: bool, momentum: Array | None = None
    ) -> None:
        move = scratch[0]
        np.multiply(g, lr, out=move)
        if momentum is None:
            np.subtract(w, move, out=w)
            return
        np.multiply(momentum, friction, out=momentum)
        np.subtract(momentum, move, out=momentum)
        if nesterov:
            np.subtract(w, move, out=w)
            np.multiply(momentum, friction, out=move)
            np.add(w, move, out=w)
        else:
            np.add(w, momentum, out=w)


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

    @staticmethod
    def step(w: Array, g: Array, scratch: Array, lr: float, beta_1: float, beta_2: float, momentum: Array) -> None:
        kept, new = scratch
        np.multiply(momentum, beta_1, out=kept)
        np.multiply(g, 1 - beta_1, out=new)
        np.add(kept, new, out=new)
        np.sign(new, out=new)
        np.multiply(new, lr, out=new)
        np.subtract(w, new, out=w)
        np.multiply(momentum, beta_2, out=momentum)
        np.multiply(g, 1 - beta_2, out=new)
        np.add(momentum, new, out=momentum)
