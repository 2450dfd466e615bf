"""Masks from values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..registry import register
from ..states import Context
from .layer import Array, Layer


@register("layer")
@dataclass(eq=False, repr=False)
class Masking(Layer):
    """Masks the steps in which every feature equals `mask_value`, and sets them to zero.

    Shapes: x and y (batch, time, ..., values); mask (batch, time, ...).

    Args:
        mask_value: what padding is filled with.
    """

    mask_value: float = 0.0

    expects = "(batch, time, ..., values)"

    def output_mask(self, x: Array, mask: Any) -> Array:
        """True where any feature differs from `mask_value`; what was masked before is forgotten."""
        return (x != np.asarray(self.mask_value, x.dtype)).any(axis=-1)

    def forward(self, x: Array, mask: Any, context: Context) -> tuple[Array, Array]:
        kept = self.output_mask(x, mask)[..., None]
        return np.where(kept, x, 0), kept

    def backward(self, saved: Array, dy: Array) -> Array:
        return np.where(saved, dy, 0)
