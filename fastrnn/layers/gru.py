"""The gated recurrent unit."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..registry import register
from .recurrent import Gated, positional


@register("layer")
@positional(
    "units", "activation", "recurrent_activation", "use_bias", "kernel_initializer", "recurrent_initializer",
    "bias_initializer", "kernel_regularizer", "recurrent_regularizer", "bias_regularizer", "activity_regularizer",
    "kernel_constraint", "recurrent_constraint", "bias_constraint", "dropout", "recurrent_dropout", "seed",
    "return_sequences", "return_state", "go_backwards", "stateful", "unroll", "reset_after", "use_cudnn",
)  # fmt: skip
@dataclass(eq=False, repr=False)
class GRU(Gated):
    """Gated recurrent unit: the state moves towards a candidate, as far as a gate lets it.

    With s = `recurrent_activation`, a = `activation`, * element by element, and the weights' columns in the order
    z, r, h:

        z = s(x W_z + h' U_z + b_z)                         what is kept
        r = s(x W_r + h' U_r + b_r)
        g = a(x W_h + b_h + r * (h' U_h + c_h))             with `reset_after`
        g = a(x W_h + b_h + (r * h') U_h)                   without
        h = z * h' + (1 - z) * g

    Shapes, D features and H units: kernel (D, 3H), recurrent_kernel (H, 3H); bias (2, 3H) with `reset_after`, its
    first row added to the products with x, its second row to those with h', else (3H,); state h (batch, H).

    Args:
        reset_after: the reset gate acts after the recurrent product (as cuDNN and PyTorch have it) or before it.
        Others: see `Recurrent` and `Gated`.

    Raises:
        ValueError: see `Recurrent`.

    Source: Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder for statistical machine
    translation"; `reset_after` is the form of its first version, arXiv:1406.1078v1.
    """

    reset_after: bool = field(default=True, kw_only=True)

    @property
    def cell_name(self) -> str:  # type: ignore[override]
        return "gru" if self.reset_after else "gru_reset_before"
