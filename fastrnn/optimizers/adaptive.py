"""Optimizers that divide the gradient by a mean or a sum of its past squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..registry import register
from .optimizer import LearningRate, Optimizer


@register("optimizer", "rmsprop")
@dataclass(eq=False, repr=False)
class RMSprop(Optimizer):
    """The gradient over the root of its running mean square (Hinton 2012, lecture 6e).

    v <- rho v + (1 - rho) g^2
    a <- rho a + (1 - rho) g                          centered
    d  = lr g / sqrt(v - a^2 + epsilon)               a = 0 unless centered
    w <- w - d;  or  m <- momentum m + d;  w <- w - m
    """

    learning_rate: LearningRate = LearningRate(0.001)
    rho: float = 0.9
    momentum: float = 0.0
    epsilon: float = 1e-7
    centered: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._fractions("rho")
        self._nonnegative("momentum", self.momentum)
        self._nonnegative("epsilon", self.epsilon)

    def slots(self) -> dict[str, float]:
        optional = {"momentum": self.momentum, "average_gradient": self.centered}
        return {"velocity": 0.0, **{name: 0.0 for name, wanted in optional.items() if wanted}}

    def coefficients(self, learning_rate: float, step: int) -> tuple[Any, ...]:
        return learning_rate, self.rho, self.momentum, self.epsilon

    @property
    def kernel(self) -> str:
        return "rmsprop" + "_momentum" * bool(self.momentum) + "_centered" * self.centered


@register("optimizer")
@dataclass(eq=False, repr=False)
class Adagrad(Optimizer):
    """The gradient over the root of the sum of all its squares (Duchi et al. 2011).

    v <- v + g^2;  w <- w - lr g / sqrt(v + epsilon)
    """

    learning_rate: LearningRate = LearningRate(0.001)
    initial_accumulator_value: float = 0.1
    epsilon: float = 1e-7

    def __post_init__(self) -> None:
        super().__post_init__()
        self._nonnegative("initial_accumulator_value", self.initial_accumulator_value)
        self._nonnegative("epsilon", self.epsilon)

    def slots(self) -> dict[str, float]:
        return {"accumulator": self.initial_accumulator_value}

    def coefficients(self, learning_rate: float, step: int) -> tuple[Any, ...]:
        return learning_rate, self.epsilon

    @property
    def kernel(self) -> str:
        return "adagrad"


@register("optimizer")
@dataclass(eq=False, repr=False)
class Adadelta(Optimizer):
    """Steps as large as the past steps, measured in past gradients (Zeiler 2012).

    v <- rho v + (1 - rho) g^2
    d  = -g sqrt(u + epsilon) / sqrt(v + epsilon)
    u <- rho u + (1 - rho) d^2
    w <- w + lr d
    """

    learning_rate: LearningRate = LearningRate(0.001)
    rho: float = 0.95
    epsilon: float = 1e-7

    def __post_init__(self) -> None:
        super().__post_init__()
        self._fractions("rho")
        self._nonnegative("epsilon", self.epsilon)

    def slots(self) -> dict[str, float]:
        return {"accumulated_grad": 0.0, "accumulated_delta_var": 0.0}

    def coefficients(self, learning_rate: float, step: int) -> tuple[Any, ...]:
        return learning_rate, self.rho, self.epsilon

    @property
    def kernel(self) -> str:
        return "adadelta"
