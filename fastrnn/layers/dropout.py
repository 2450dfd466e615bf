"""Dropout: values set to zero at random in training.

Source: Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import threads
from .._core import kernels
from ..registry import register
from ..states import Context
from .layer import Array, Layer


@register("layer")
@dataclass(eq=False, repr=False)
class Dropout(Layer):
    """y = x * m, with m = 0 with probability `rate`, else 1 / (1 - rate); y = x when not training.

    Args:
        rate: fraction to drop, in [0, 1).
        noise_shape: shape of m; its ones are repeated along the input's axis, None takes the input's size.
            `(None, 1, None)` drops the same features at every step. By default the input's shape.
        seed: of the random stream; None draws one.

    Raises:
        ValueError: if the rate is outside [0, 1), or `noise_shape` does not fit.
    """

    rate: float
    noise_shape: Any = None
    seed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        who = type(self).__name__
        if isinstance(self.rate, bool) or not isinstance(self.rate, (int, float, np.number)) or not 0 <= self.rate < 1:
            raise ValueError(f"{who}: rate must lie in [0, 1); received {self.rate!r}")
        if self.seed is not None and (not isinstance(self.seed, (int, np.integer)) or self.seed < 0):
            raise ValueError(f"{who}: seed must be a non-negative integer or None; received {self.seed!r}")
        if self.noise_shape is not None:
            if not isinstance(self.noise_shape, Sequence) or not all(n is None or n > 0 for n in self.noise_shape):
                raise ValueError(f"{who}: noise_shape must be a tuple of sizes and None; received {self.noise_shape!r}")
            self.noise_shape = tuple(self.noise_shape)

    def check_shape(self, shape: Any) -> None:
        super().check_shape(shape)
        wanted = self.noise_shape or shape
        if len(wanted) != len(shape) or any(n not in (None, 1, m) and m for n, m in zip(wanted, shape, strict=True)):
            raise ValueError(f"{self.title}: noise_shape {self.noise_shape} does not fit input of shape {shape}")

    @property
    def replays(self) -> bool:  # type: ignore[override]
        return self.noise_shape is None

    def forward(self, x: Array, mask: Any, context: Context) -> tuple[Array, Array | None]:
        if not context.training or self.rate == 0:
            return x, None
        shape = x.shape
        if self.noise_shape is not None:
            shape = tuple(n or m for n, m in zip(self.noise_shape, x.shape, strict=True))
        if shape == x.shape:
            return context.stream(self).dropout(np.ascontiguousarray(x), self.rate)
        m = context.stream(self).factors(shape, x.dtype, self.rate)
        return x * m, m

    def backward(self, saved: Array | None, dy: Array) -> Array:
        """dx = dy * m. `saved` is m, or, where m has the shape of x, which values were kept."""
        if saved is None:
            return dy
        if saved.dtype == bool:
            count = threads.get_num_threads()
            return kernels.dropout_gradient(np.ascontiguousarray(dy), saved, self.rate, threads=count)
        return dy * saved


@register("layer")
@dataclass(eq=False, repr=False)
class SpatialDropout1D(Dropout):
    """Dropout of whole features: what is dropped in a row is dropped at all of its steps.

    Shapes: x and y (batch, time, features); m (batch, 1, features).
    Source: Tompson et al. 2015, "Efficient object localization using convolutional networks".
    """

    noise_shape: Any = field(init=False, default=(None, 1, None))

    expects = "(batch, time, values)"
