"""Adam and its relatives: a running mean of the gradient over its running size, corrected for their start at zero."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..registry import register
from .optimizer import LearningRate, Optimizer


@register("optimizer")
@dataclass(eq=False, repr=False)
class Adam(Optimizer):
    """Adam (Kingma and Ba 2014); `amsgrad` divides by the largest v so far (Reddi et al. 2018).

    m <- m + (1 - beta_1) (g - m)
    v <- v + (1 - beta_2) (g^2 - v)
    w <- w - lr sqrt(1 - beta_2^t) / (1 - beta_1^t) * m / (sqrt(v) + epsilon)
    """

    learning_rate: LearningRate = LearningRate(0.001)
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    amsgrad: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._fractions("beta_1", "beta_2")
        self._nonnegative("epsilon", self.epsilon)

    def slots(self) -> dict[str, float]:
        return {"momentum": 0.0, "velocity": 0.0, **({"velocity_hat": 0.0} if self.amsgrad else {})}

    def coefficients(self, learning_rate: float, step: int) -> tuple[Any, ...]:
        correction = math.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
        return learning_rate * correction, self.beta_1, self.beta_2, self.epsilon

    @property
    def kernel(self) -> str:
        return "amsgrad" if self.amsgrad else "adam"


@register("optimizer", "adamw")
@dataclass(eq=False, repr=False)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2017)."""

    weight_decay: float = 0.004

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight_decay is None:
            raise self._bad("weight_decay", "be a number")


@register("optimizer")
@dataclass(eq=False, repr=False)
class Adamax(Optimizer):
    """Adam with the largest recent gradient in place of the mean square (Kingma and Ba 2014, section 7).

    m <- m + (1 - beta_1) (g - m)
    u <- max(beta_2 u, |g|)
    w <- w - lr / (1 - beta_1^t) * m / (u + epsilon)
    """

    learning_rate: LearningRate = LearningRate(0.001)
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7

    def __post_init__(self) -> None:
        super().__post_init__()
        self._fractions("beta_1", "beta_2")
        self._nonnegative("epsilon", self.epsilon)

    def slots(self) -> dict[str, float]:
        return {"momentum": 0.0, "norm": 0.0}

    def coefficients(self, learning_rate: float, step: int) -> tuple[Any, ...]:
        return learning_rate / (1 - self.beta_1**step), self.beta_1, self.beta_2, self.epsilon

    @property
    def kernel(self) -> str:
        return "adamax"


@register("optimizer")
@dataclass(eq=False, repr=False)
class Nadam(Optimizer):
    """Adam with Nesterov's look ahead (Dozat 2016).

    u_t = beta_1 (1 - 0.96^t / 2);  U_t = u_1 u_2 ... u_t
    m <- m + (1 - beta_1) (g - m)
    v <- v + (1 - beta_2) (g^2 - v)
    d  = u_{t+1} m / (1 - U_{t+1}) + (1 - u_t) g / (1 - U_t)
    w <- w - lr d / (sqrt(v / (1 - beta_2^t)) + epsilon)
    """

    learning_rate: LearningRate = LearningRate(0.001)
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7

    def __post_init__(self) -> None:
        super().__post_init__()
        self._fractions("beta_1", "beta_2")
        self._nonnegative("epsilon", self.epsilon)
        self._u_product = 1.0

    def slots(self) -> dict[str, float]:
        return {"momentum": 0.0, "velocity": 0.0}

    def coefficients(self, learning_rate: float, step: int) -> tuple[Any, ...]:
        now, ahead = (self.beta_1 * (1 - 0.5 * 0.96**t) for t in (step, step + 1))
        self._u_product *= now
        of_momentum = learning_rate * ahead / (1 - self._u_product * ahead)
        of_gradient = learning_rate * (1 - now) / (1 - self._u_product)
        root = 1 / math.sqrt(1 - self.beta_2**step)
        return of_momentum, of_gradient, root, self.beta_1, self.beta_2, self.epsilon

    @property
    def kernel(self) -> str:
        return "nadam"

    @property
    def foresees(self) -> bool:
        """No: asking for coefficients multiplies U."""
        return False

    def state(self) -> dict[str, np.ndarray]:
        return {**super().state(), "u_product": np.array(self._u_product)}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        if "u_product" not in state:
            raise ValueError("Nadam: this state belongs to another optimizer; missing: u_product")
        super().set_state({name: value for name, value in state.items() if name != "u_product"})
        self._u_product = float(state["u_product"])
