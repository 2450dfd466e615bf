"""The simple recurrent layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..registry import register
from .recurrent import Recurrent, positional


@register("layer")
@positional(
    "units", "activation", "use_bias", "kernel_initializer", "recurrent_initializer", "bias_initializer",
    "kernel_regularizer", "recurrent_regularizer", "bias_regularizer", "activity_regularizer", "kernel_constraint",
    "recurrent_constraint", "bias_constraint", "dropout", "recurrent_dropout", "return_sequences", "return_state",
    "go_backwards", "stateful", "unroll", "seed",
)  # fmt: skip
@dataclass(eq=False, repr=False)
class SimpleRNN(Recurrent):
    """The recurrent layer whose state is its last output.

        h = a(x W + h' U + b),    a = `activation`

    Shapes, D features and H units: kernel (D, H), recurrent_kernel (H, H), bias (H,); state h (batch, H).

    Args:
        See `Recurrent`.

    Raises:
        ValueError: see `Recurrent`.

    Source: Elman 1990, "Finding structure in time".
    """

    cell_name: ClassVar[str] = "rnn"
