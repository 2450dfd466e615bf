"""Activations whose derivative follows from their output: nobody needs to keep what went in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import threads
from .._core import kernels
from ..registry import register
from .activation import Activation


@register("activation")
class Linear(Activation):
    """x"""

    from_output = True
    replays = True

    def forward(self, x: np.ndarray) -> np.ndarray:
        return x

    def backward(self, y: np.ndarray, dy: np.ndarray, x: Any = None) -> np.ndarray:
        return dy


@register("activation")
class Tanh(Activation):
    """tanh(x)"""

    from_output = True
    replays = True

    def forward(self, x: np.ndarray) -> np.ndarray:
        return _in_c("tanh", x)

    def backward(self, y: np.ndarray, dy: np.ndarray, x: Any = None) -> np.ndarray:
        return _times(dy, y, lambda y: 1 - y * y)


@register("activation")
class Sigmoid(Activation):
    """1 / (1 + exp(-x))"""

    from_output = True
    replays = True

    def forward(self, x: np.ndarray) -> np.ndarray:
        return _in_c("sigmoid", x)

    def backward(self, y: np.ndarray, dy: np.ndarray, x: Any = None) -> np.ndarray:
        return _times(dy, y, lambda y: y * (1 - y))


@register("activation")
class Relu(Activation):
    """max(x, 0); the derivative at 0 is 0"""

    from_output = True
    replays = True

    def forward(self, x: np.ndarray) -> np.ndarray:
        return kernels.in_numpy(np.maximum, x, 0, out=np.empty_like(x))

    def forward_over(self, x: np.ndarray) -> np.ndarray:
        return kernels.in_numpy(np.maximum, x, 0, out=x)

    def backward(self, y: np.ndarray, dy: np.ndarray, x: Any = None) -> np.ndarray:
        return _times(dy, y, lambda y: y > 0)


@register("activation")
class Relu6(Activation):
    """min(max(x, 0), 6)"""

    from_output = True

    def forward(self, x: np.ndarray) -> np.ndarray:
        return np.clip(x, 0, 6)

    def backward(self, y: np.ndarray, dy: np.ndarray, x: Any = None) -> np.ndarray:
        return dy * ((y > 0) & (y < 6))


@register("activation")
@dataclass(eq=False, repr=False)
class Elu(Activation):
    """x for x > 0, alpha * (exp(x) - 1) below (Clevert et al. 2015)"""

    alpha: float = 1.0
    from_output = True

    def forward(self, x: np.ndarray) -> np.ndarray:
        if self.alpha == 1:
            return _in_c("elu", x)
        return np.where(x > 0, x, self.alpha * np.expm1(np.minimum(x, 0)))

    def backward(self, y: np.ndarray, dy: np.ndarray, x: Any = None) -> np.ndarray:
        return np.where(y > 0, dy, dy * (y + self.alpha))


@register("activation")
@dataclass(eq=False, repr=False)
class Celu(Activation):
    """x for x > 0, alpha * (exp(x / alpha) - 1) below (Barron 2017)"""

    alpha: float = 1.0
    from_output = True

    def forward(self, x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, x, self.alpha * np.expm1(np.minimum(x, 0) / self.alpha))

    def backward(self, y: np.ndarray, dy: np.ndarray, x: Any = None) -> np.ndarray:
        return np.where(y > 0, dy, dy * (y / self.alpha + 1))


@register("activation")
class Selu(Activation):
    """SCALE * elu(x, ALPHA), whose fixed point has mean 0 and variance 1 (Klambauer et al. 2017)"""

    ALPHA: ClassVar[float] = 1.6732632423543772
    SCALE: ClassVar[float] = 1.0507009873554805
    from_output = True

    def forward(self, x: np.ndarray) -> np.ndarray:
        return _in_c("selu", x)

    def backward(self, y: np.ndarray, dy: np.ndarray, x: Any = None) -> np.ndarray:
        return dy * np.where(y > 0, self.SCALE, y + self.SCALE * self.ALPHA)


@register("activation")
class Softplus(Activation):
    """log(1 + exp(x))"""

    from_output = True

    def forward(self, x: np.ndarray) -> np.ndarray:
        return _in_c("softplus", x)

    def backward(self, y: np.ndarray, dy: np.ndarray, x: Any = None) -> np.ndarray:
        return -dy * np.expm1(-y)


@register("activation")
class Softsign(Activation):
    """x / (1 + |x|)"""

    from_output = True

    def forward(self, x: np.ndarray) -> np.ndarray:
        return _in_c("softsign", x)

    def backward(self, y: np.ndarray, dy: np.ndarray, x: Any = None) -> np.ndarray:
        return dy * np.square(1 - np.abs(y))


@register("activation")
class Exponential(Activation):
    """exp(x)"""

    from_output = True

    def forward(self, x: np.ndarray) -> np.ndarray:
        return _in_c("exponential", x)

    def backward(self, y: np.ndarray, dy: np.ndarray, x: Any = None) -> np.ndarray:
        return dy * y


@register("activation")
class HardSigmoid(Activation):
    """min(max(x + 3, 0), 6) / 6"""

    from_output = True

    def forward(self, x: np.ndarray) -> np.ndarray:
        return _in_c("hard_sigmoid", x)

    def backward(self, y: np.ndarray, dy: np.ndarray, x: Any = None) -> np.ndarray:
        return dy * ((y > 0) & (y < 1)) / 6


@register("activation")
class HardTanh(Activation):
    """min(max(x, -1), 1)"""

    from_output = True

    def forward(self, x: np.ndarray) -> np.ndarray:
        return np.clip(x, -1, 1)

    def backward(self, y: np.ndarray, dy: np.ndarray, x: Any = None) -> np.ndarray:
        return dy * (np.abs(y) < 1)


@register("activation")
@dataclass(eq=False, repr=False)
class LogSoftmax(Activation):
    """x - log(sum(exp(x))) along `axis`"""

    axis: int = -1
    from_output = True

    def forward(self, x: np.ndarray) -> np.ndarray:
        shifted = x - x.max(axis=self.axis, keepdims=True)
        shifted -= np.log(np.exp(shifted).sum(axis=self.axis, keepdims=True))
        return shifted

    def backward(self, y: np.ndarray, dy: np.ndarray, x: Any = None) -> np.ndarray:
        return dy - np.exp(y) * dy.sum(axis=self.axis, keepdims=True)


@register("activation")
@dataclass(eq=False, repr=False)
class Softmax(Activation):
    """exp(x) / sum(exp(x)) along `axis`"""

    axis: int = -1
    from_output = True
    replays = True

    def forward(self, x: np.ndarray) -> np.ndarray:
        rows = np.ascontiguousarray(np.moveaxis(x, self.axis, -1))
        y = kernels.softmax(rows, threads=threads.get_num_threads())
        return np.ascontiguousarray(np.moveaxis(y, -1, self.axis))

    def forward_over(self, x: np.ndarray) -> np.ndarray:
        if self.axis not in (-1, x.ndim - 1):
            return self.forward(x)
        return kernels.softmax(x, out=x, threads=threads.get_num_threads())

    def backward(self, y: np.ndarray, dy: np.ndarray, x: Any = None) -> np.ndarray:
        dx = dy - (dy * y).sum(axis=self.axis, keepdims=True)
        dx *= y
        return dx


@register("activation")
class LogSigmoid(Activation):
    """log(sigmoid(x))"""

    from_output = True

    def forward(self, x: np.ndarray) -> np.ndarray:
        return np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)))

    def backward(self, y: np.ndarray, dy: np.ndarray, x: Any = None) -> np.ndarray:
        return -dy * np.expm1(y)


@register("activation")
@dataclass(eq=False, repr=False)
class SoftShrink(Activation):
    """x moved towards 0 by threshold, 0 where it would pass it"""

    threshold: float = 0.5
    from_output = True

    def forward(self, x: np.ndarray) -> np.ndarray:
        return x - np.clip(x, -self.threshold, self.threshold)

    def backward(self, y: np.ndarray, dy: np.ndarray, x: Any = None) -> np.ndarray:
        return dy * (y != 0)


@register("activation")
class SparseSigmoid(Activation):
    """min(max((x + 1) / 2, 0), 1)"""

    from_output = True

    def forward(self, x: np.ndarray) -> np.ndarray:
        return np.clip((x + 1) / 2, 0, 1)

    def backward(self, y: np.ndarray, dy: np.ndarray, x: Any = None) -> np.ndarray:
        return dy * ((y > 0) & (y < 1)) / 2


def _in_c(name: str, x: np.ndarray) -> np.ndarray:
    return kernels.activate(name, np.ascontiguousarray(x), threads=threads.get_num_threads()).reshape(np.shape(x))


def _times(dy: np.ndarray, y: np.ndarray, slope: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """dy * slope(y)"""
    return kernels.in_numpy(_multiply, dy, y, slope, out=np.empty_like(dy))


def _multiply(dy: np.ndarray, y: np.ndarray, slope: Callable[[np.ndarray], np.ndarray], out: np.ndarray) -> None:
    np.multiply(dy, slope(y), out=out)
