"""Layers that move values about and compute nothing. Masks do not survive them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core import kernels
from ..registry import register
from ..states import Context
from .layer import Array, Layer


class _Rearrangement(Layer):
    """y is x in another order or shape: integers stay integers, and no mask fits any longer."""

    keeps_integers = True

    def output_mask(self, x: Any, mask: Any) -> None:
        return None


@register("layer")
@dataclass(eq=False, repr=False)
class Flatten(_Rearrangement):
    """(batch, ...) -> (batch, values)."""

    replays = True

    expects = "(batch, ...)"

    def output_shape(self, shape: Any) -> Any:
        return shape[0], None if None in shape[1:] else math.prod(shape[1:])

    def forward(self, x: Array, mask: Any, context: Context) -> tuple[Array, Any]:
        return x.reshape(len(x), -1), x.shape

    def backward(self, saved: Any, dy: Array) -> Array:
        return dy.reshape(saved)


@register("layer")
@dataclass(eq=False, repr=False)
class Reshape(_Rearrangement):
    """(batch, ...) -> (batch, *target_shape), in the order in which the values lie.

    Args:
        target_shape: sizes after the batch; one may be -1, for what is left.

    Raises:
        ValueError: if sizes are neither positive nor a single -1; in a call, if the values do not fit.
    """

    target_shape: Any

    expects = "(batch, ...)"

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = self.target_shape if isinstance(self.target_shape, (tuple, list)) else (self.target_shape,)
        if not all(isinstance(n, (int, np.integer)) and (n > 0 or n == -1) for n in sizes) or list(sizes).count(-1) > 1:
            raise ValueError(
                f"Reshape: target_shape holds positive integers, one may be -1; received {self.target_shape!r}"
            )
        self.target_shape = tuple(int(n) for n in sizes)

    def output_shape(self, shape: Any) -> Any:
        if None in shape[1:]:
            return shape[0], *(None if n == -1 else n for n in self.target_shape)
        size, known = math.prod(shape[1:]), math.prod(n for n in self.target_shape if n != -1)
        if size % known or (size != known and -1 not in self.target_shape):
            wanted = ", ".join(map(str, ("batch", *self.target_shape)))
            raise ValueError(f"{self.title}: input of shape {shape} cannot become ({wanted})")
        return shape[0], *(size // known if n == -1 else n for n in self.target_shape)

    def forward(self, x: Array, mask: Any, context: Context) -> tuple[Array, Any]:
        return x.reshape(self.output_shape(x.shape)), x.shape

    def backward(self, saved: Any, dy: Array) -> Array:
        return dy.reshape(saved)


@register("layer")
@dataclass(eq=False, repr=False)
class Permute(_Rearrangement):
    """Axis i + 1 of y is axis dims[i] of x; the batch, axis 0, stays: `Permute((2, 1))` swaps time and features.

    Args:
        dims: the axes 1, 2, ... in their new order.

    Raises:
        ValueError: if `dims` is no permutation of 1, 2, ...
    """

    dims: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        self.dims = tuple(self.dims)
        if sorted(self.dims) != list(range(1, len(self.dims) + 1)):
            raise ValueError(f"Permute: dims must hold each of 1, 2, ... once; received {self.dims}")

    def check_shape(self, shape: Any) -> None:
        if isinstance(shape, list) or len(shape) != len(self.dims) + 1:
            raise ValueError(f"{self.title} expects one input of {len(self.dims) + 1} axes; received {shape}")

    def output_shape(self, shape: Any) -> Any:
        return shape[0], *(shape[d] for d in self.dims)

    def forward(self, x: Array, mask: Any, context: Context) -> tuple[Array, None]:
        return np.ascontiguousarray(x.transpose(0, *self.dims)), None

    def backward(self, saved: None, dy: Array) -> Array:
        return np.ascontiguousarray(dy.transpose(np.argsort((0, *self.dims))))


@register("layer")
@dataclass(eq=False, repr=False)
class RepeatVector(_Rearrangement):
    """y[:, t, :] = x for n steps t: (batch, values) -> (batch, n, values). There is no mask: every step counts.

    Args:
        n: number of steps.

    Raises:
        ValueError: if `n` is not a positive integer.
    """

    n: int

    expects = "(batch, values)"
    replays = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.n, bool) or not isinstance(self.n, (int, np.integer)) or self.n < 1:
            raise ValueError(f"RepeatVector: n must be a positive integer; received {self.n!r}")

    def output_shape(self, shape: Any) -> Any:
        return shape[0], self.n, shape[1]

    def forward(self, x: Array, mask: Any, context: Context) -> tuple[Array, None]:
        y = np.empty(self.output_shape(x.shape), x.dtype)
        return kernels.in_numpy(_repeat, x, out=y), None

    def backward(self, saved: None, dy: Array) -> Array:
        dx = np.empty((dy.shape[0], dy.shape[2]), dy.dtype)
        return kernels.in_numpy(np.add.reduce, dy, out=dx, axis=1)


def _repeat(x: Array, out: Array) -> None:
    """(batch, values) into every step of (batch, n, values)."""
    out[...] = x[:, None, :]
