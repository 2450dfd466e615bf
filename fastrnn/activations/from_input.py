"""Activations whose derivative needs the input `x`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..registry import register
from .activation import Activation
from .from_output import HardSigmoid, Sigmoid, Softplus, SparseSigmoid, Tanh

_tanh, _sigmoid, _hard_sigmoid = Tanh().forward, Sigmoid().forward, HardSigmoid().forward
_softplus, _sparse_sigmoid = Softplus().forward, SparseSigmoid().forward


@register("activation")
@dataclass(eq=False, repr=False)
class LeakyRelu(Activation):
    """x for x > 0, negative_slope * x below"""

    negative_slope: float = 0.2

    def forward(self, x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, x, self.negative_slope * x)

    def backward(self, y: np.ndarray, dy: np.ndarray, x: Any = None) -> np.ndarray:
        return np.where(x > 0, dy, self.negative_slope * dy)


@register("activation", "swish")
class Silu(Activation):
    """x * sigmoid(x) (Ramachandran et al. 2017)"""

    def forward(self, x: np.ndarray) -> np.ndarray:
        return x * _sigmoid(x)

    def backward(self, y: np.ndarray, dy: np.ndarray, x: Any = None) -> np.ndarray:
        s = _sigmoid(x)
        return dy * (s * (1 + x * (1 - s)))


@register("activation", "hard_swish")
class HardSilu(Activation):
    """x * hard_sigmoid(x)"""

    def forward(self, x: np.ndarray) -> np.ndarray:
        return x * _hard_sigmoid(x)

    def backward(self, y: np.ndarray, dy: np.ndarray, x: Any = None) -> np.ndarray:
        return dy * np.where(x <= -3, 0, np.where(x >= 3, 1, x / 3 + 0.5))


@register("activation")
@dataclass(eq=False, repr=False)
class Gelu(Activation):
    """x * P(X <= x) for a standard normal X (Hendrycks and Gimpel 2016)

    Args:
        approximate: takes sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x ** 3), for P.
    """

    approximate: bool = False

    def forward(self, x: np.ndarray) -> np.ndarray:
        return x * (_sigmoid(2 * _inner(x)) if self.approximate else normal_cdf(x))

    def backward(self, y: np.ndarray, dy: np.ndarray, x: Any = None) -> np.ndarray:
        if self.approximate:
            p = _sigmoid(2 * _inner(x))
            return dy * (p + 2 * x * p * (1 - p) * _GELU * (1 + 3 * _CUBIC * x * x))
        return dy * (normal_cdf(x) + x * np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi))


@register("activation")
class Mish(Activation):
    """x * tanh(softplus(x)) (Misra 2019)"""

    def forward(self, x: np.ndarray) -> np.ndarray:
        return x * _tanh(_softplus(x))

    def backward(self, y: np.ndarray, dy: np.ndarray, x: Any = None) -> np.ndarray:
        t = _tanh(_softplus(x))
        return dy * (t + x * (1 - t * t) * _sigmoid(x))


@register("activation")
class TanhShrink(Activation):
    """x - tanh(x)"""

    def forward(self, x: np.ndarray) -> np.ndarray:
        return x - _tanh(x)

    def backward(self, y: np.ndarray, dy: np.ndarray, x: Any = None) -> np.ndarray:
        return dy * np.square(_tanh(x))


@register("activation")
@dataclass(eq=False, repr=False)
class HardShrink(Activation):
    """x where |x| > threshold, else 0"""

    threshold: float = 0.5

    def forward(self, x: np.ndarray) -> np.ndarray:
        return x * (np.abs(x) > self.threshold)

    def backward(self, y: np.ndarray, dy: np.ndarray, x: Any = None) -> np.ndarray:
        return dy * (np.abs(x) > self.threshold)


@register("activation")
@dataclass(eq=False, repr=False)
class Squareplus(Activation):
    """(x + sqrt(x ** 2 + b)) / 2 (Barron 2021)"""

    b: float = 4

    def forward(self, x: np.ndarray) -> np.ndarray:
        far = (np.abs(x) + np.sqrt(x * x + self.b)) / 2
        return np.where(x > 0, far, self.b / (4 * far))

    def backward(self, y: np.ndarray, dy: np.ndarray, x: Any = None) -> np.ndarray:
        return dy * (y / np.sqrt(x * x + self.b))


@register("activation")
class SparsePlus(Activation):
    """0 for x <= -1, (x + 1) ** 2 / 4 up to 1, x above"""

    def forward(self, x: np.ndarray) -> np.ndarray:
        return np.where(x < 1, np.square(np.maximum(x, -1) + 1) / 4, x)

    def backward(self, y: np.ndarray, dy: np.ndarray, x: Any = None) -> np.ndarray:
        return dy * _sparse_sigmoid(x)


def _inner(x: np.ndarray) -> np.ndarray:
    return _GELU * (x + _CUBIC * x**3)


def normal_cdf(x: np.ndarray) -> np.ndarray:
    """P(X <= x) of a standard normal, to rounding; relative error below 1e-13 also in the left tail.

    exp(-z*z/2) / (1 + z) times a Chebyshev series in (z - 5) / (z + 5) is P(X <= -z) for z >= 0; the coefficients were
    fitted with 50 digits.
    """
    z = np.minimum(np.abs(x), 40)
    series = _TAIL if x.dtype == np.float64 else _TAIL[:12]
    twice = 2 * ((z - 5) / (z + 5))
    a = b = np.zeros_like(z)
    for c in series[:0:-1]:
        a, b = twice * a - b + c, a
    tail = (twice / 2 * a - b + series[0]) / (1 + z) * np.exp(-0.5 * z * z)
    return np.where(x > 0, 1 - tail, tail)


_GELU, _CUBIC = math.sqrt(2 / math.pi), 0.044715
_TAIL = (
    0.461974212072185681, -0.0651652023949126306, -0.00545878150113656722, 0.0122961990455634396,
    -0.00647087291570368799, 0.00224073552241683054, -0.000563862377465197372, 0.0000998403108292581157,
    -9.84951484316849337e-6, -4.03249423304521713e-7, 2.99023962013034016e-7, -3.03207074844281387e-8,
    -4.61766571392902726e-9, 1.32982880083826921e-9, 3.00724271901904485e-11, -4.42995372553281566e-11,
    1.39998571470181508e-12, 1.47189570289125705e-12, -9.32595311916537123e-14, -5.29468116906769447e-14,
    3.95818841441452418e-15, 2.10482146429632641e-15, -1.34567128613607419e-16, -9.09761491449514153e-17,
)  # fmt: skip
