"""A layer applied to every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..registry import register, replays
from ..states import Context
from .layer import Array, BeforeActivation, Layer


@register("layer")
@dataclass(eq=False, repr=False)
class TimeDistributed(Layer):
    """y[:, t] = layer(x[:, t]) for every t, as one call of the layer on (batch * time, ...).

    Shapes: x (batch, time, ...); y (batch, time, ...) as the layer makes it of (batch, ...).

    Masks (batch, time) pass on. A mask with an axis for every axis of x but the last, such as (batch, time, words), is
    handed to the layer row by row; where the layer uses it up, a step counts if anything counted in it.

    Args:
        layer: the layer. It is used as it is, weights and all; its activity_regularizer is that of the wrapper.

    Raises:
        TypeError: if `layer` is no layer.
        ValueError: if layer and wrapper have different activity regularizers.
    """

    layer: Any

    expects = "(batch, time, ..., values)"

    def __post_init__(self) -> None:
        if not isinstance(self.layer, Layer):
            raise TypeError(f"TimeDistributed wraps a layer; received {self.layer!r}")
        if self.dtype is None:
            self.dtype = self.layer.dtype
        super().__post_init__()
        inner = self.layer.activity_regularizer
        if (
            inner is not None
            and self.activity_regularizer is not None
            and repr(inner) != repr(self.activity_regularizer)
        ):
            raise ValueError(f"{self.title}: give the activity_regularizer to it or to its layer, not to both")
        self.activity_regularizer = self.activity_regularizer or inner

    def check_shape(self, shape: Any) -> None:
        super().check_shape(shape)
        self.layer.check_shape((None, *shape[2:]))

    def build(self, shape: Any) -> None:
        self.layer.build((None, *shape[2:]))

    def output_shape(self, shape: Any) -> Any:
        inner = self.layer.output_shape((None, *shape[2:]))
        if isinstance(inner, list):
            return [(*shape[:2], *s[1:]) for s in inner]
        return (*shape[:2], *inner[1:])

    def output_dtype(self, dtype: Any) -> str:
        return self.layer.output_dtype(dtype)

    def output_mask(self, x: Array, mask: Any) -> Any:
        inner = self.layer.output_mask(_fold(x), _fold_mask(x, mask))
        if isinstance(inner, list):
            inner = inner[0]
        if inner is not None:
            return _unfold(inner, x.shape)
        return mask if mask is None else mask.reshape(*x.shape[:2], -1).any(axis=-1)

    @property
    def final_activation(self) -> Any:
        return self.layer.final_activation

    @property
    def replays(self) -> bool:  # type: ignore[override]
        return replays(self.layer)

    def cast(self, x: Any) -> Any:
        return self.layer.cast(x)

    def forward(self, x: Array, mask: Any, context: Context) -> tuple[Any, Any]:
        y, saved = self.layer.forward(_fold(x), _fold_mask(x, mask), context)
        if isinstance(y, BeforeActivation):
            return BeforeActivation(_unfold(y.values, x.shape)), (saved, x.shape)
        return [_unfold(v, x.shape) for v in y] if isinstance(y, list) else _unfold(y, x.shape), (saved, x.shape)

    def backward(self, saved: Any, dy: Any) -> Array | None:
        saved, shape = saved
        if isinstance(dy, BeforeActivation):
            dy = BeforeActivation(_fold(dy.values))
        elif isinstance(dy, list):
            dy = [None if v is None else _fold(v) for v in dy]
        else:
            dy = _fold(dy)
        dx = self.layer.backward(saved, dy)
        return None if dx is None else _unfold(dx, shape)


def _fold(x: Array) -> Array:
    """(batch, time, ...) as (batch * time, ...)."""
    return np.ascontiguousarray(x).reshape(-1, *x.shape[2:])


def _unfold(x: Array, shape: tuple[int, ...]) -> Array:
    """(batch * time, ...) as (batch, time, ...)."""
    return x.reshape(*shape[:2], *x.shape[1:])


def _fold_mask(x: Array, mask: Array | None) -> Array | None:
    return _fold(mask) if mask is not None and mask.ndim == x.ndim - 1 else None
