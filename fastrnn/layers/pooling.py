"""One vector for a whole sequence."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np

from .. import masks
from ..registry import register
from ..states import Context
from .layer import Array, Layer


@dataclass(eq=False, repr=False)
class _GlobalPooling1D(Layer):
    _: KW_ONLY
    keepdims: bool = False

    expects = "(batch, time, values)"

    def output_shape(self, shape: Any) -> Any:
        return (shape[0], 1, shape[2]) if self.keepdims else (shape[0], shape[2])

    def output_mask(self, x: Array, mask: Any) -> None:
        return None


@register("layer")
@dataclass(eq=False, repr=False)
class GlobalAveragePooling1D(_GlobalPooling1D):
    """The mean over the steps that count; zeros for a row in which none does.

    Shapes: x (batch, time, values); y (batch, values), or (batch, 1, values) with `keepdims`.
    """

    def forward(self, x: Array, mask: Array | None, context: Context) -> tuple[Array, Any]:
        if mask is None:
            weight = np.full((len(x), 1, 1), 1 / x.shape[1], x.dtype)
        else:
            weight = (1 / np.maximum(masks.lengths(mask), 1)).astype(x.dtype)[:, None, None]
        y = masks.zero_masked(x, mask).sum(axis=1, keepdims=True) * weight
        return y if self.keepdims else y[:, 0], (weight, x.shape, mask)

    def backward(self, saved: Any, dy: Array) -> Array:
        weight, shape, mask = saved
        dx = np.broadcast_to(dy.reshape(shape[0], 1, shape[2]) * weight, shape)
        return masks.zero_masked(dx, mask) if mask is not None else np.ascontiguousarray(dx)


@register("layer")
@dataclass(eq=False, repr=False)
class GlobalMaxPooling1D(_GlobalPooling1D):
    """The largest value over all steps, masked or not; steps with equal values share the gradient.

    Shapes: x (batch, time, values); y (batch, values), or (batch, 1, values) with `keepdims`.
    """

    def forward(self, x: Array, mask: Any, context: Context) -> tuple[Array, Any]:
        y = x.max(axis=1, keepdims=True)
        return y if self.keepdims else y[:, 0], (x, y)

    def backward(self, saved: Any, dy: Array) -> Array:
        x, y = saved
        hits = (x == y).astype(dy.dtype)
        return hits * (dy.reshape(y.shape) / hits.sum(axis=1, keepdims=True))
