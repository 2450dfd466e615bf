"""Optimizers that divide the gradient by a mean or a sum of its past squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..registry import register
from .optimizer import Array, LearningRate, Optimizer


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

    @staticmethod
    def step(
        w: Array,
        g: Array,
        scratch: Array,
        lr: float,
        rho: float,
        friction: float,
        epsilon: float,
        velocity: Array,
        momentum: Array | None = None,
        average_gradient: Array | None = None,
    ) -> None:
        move, denominator = scratch
        np.multiply(g, g, out=move)
        _blend(velocity, move, rho)
        np.add(velocity, epsilon, out=denominator)
        if average_gradient is not None:
            np.copyto(move, g)
            _blend(average_gradient, move, rho)
            np.multiply(average_gradient, average_gradient, out=move)
            np.subtract(denominator, move, out=denominator)
        np.sqrt(denominator, out=denominator)
        np.multiply(g, lr, out=move)
        np.divide(move, denominator, out=move)
        if momentum is not None:
            np.multiply(momentum, friction, out=momentum)
            np.add(momentum, move, out=momentum)
            move = momentum
        np.subtract(w, move, out=w)


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

    @staticmethod
    def step(w: Array, g: Array, scratch: Array, lr: float, epsilon: float, accumulator: Array) -> None:
        move, denominator = scratch
        np.multiply(g, g, out=move)
        np.add(accumulator, move, out=accumulator)
        np.add(accumulator, epsilon, out=denominator)
        np.sqrt(denominator, out=denominator)
        np.multiply(g, lr, out=move)
        np.divide(move, denominator, out=move)
        np.subtract(w, move, out=w)


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

    @staticmethod
    def step(
        w: Array,
        g: Array,
        scratch: Array,
        lr: float,
        rho: float,
        epsilon: float,
        accumulated_grad: Array,
        accumulated_delta_var: Array,
    ) -> None:
        move, other = scratch
        np.multiply(g, g, out=move)
        _blend(accumulated_grad, move, rho)
        np.add(accumulated_delta_var, epsilon, out=move)
        np.sqrt(move, out=move)
        np.add(accumulated_grad, epsilon, out=other)
        np.sqrt(other, out=other)
        np.multiply(move, g, out=move)
        np.divide(move, other, out=move)
        np.multiply(move, move, out=other)
        _blend(accumulated_delta_var, other, rho)
        np.multiply(move, lr, out=move)
        np.subtract(w, move, out=w)


def _blend(mean: Array, new: Array, kept: float) -> None:
    """`mean <- kept * mean + (1 - kept) * new`; `new` is overwritten."""
    np.multiply(mean, kept, out=mean)
    np.multiply(new, 1 - kept, out=new)
    np.add(mean, new, out=mean)
