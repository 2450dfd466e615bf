"""The long short-term memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ..registry import register
from .layer import Array
from .recurrent import Gated, positional


@register("layer")
@positional(
    "units", "activation", "recurrent_activation", "use_bias", "kernel_initializer", "recurrent_initializer",
    "bias_initializer", "unit_forget_bias", "kernel_regularizer", "recurrent_regularizer", "bias_regularizer",
    "activity_regularizer", "kernel_constraint", "recurrent_constraint", "bias_constraint", "dropout",
    "recurrent_dropout", "seed", "return_sequences", "return_state", "go_backwards", "stateful", "unroll", "use_cudnn",
)  # fmt: skip
@dataclass(eq=False, repr=False)
class LSTM(Gated):
    """Long short-term memory: a cell that is written, kept and read through gates.

    With s = `recurrent_activation`, a = `activation`, * element by element, and the weights' columns in the order
    i, f, c, o:

        i = s(x W_i + h' U_i + b_i)         what is written
        f = s(x W_f + h' U_f + b_f)         what is kept
        g = a(x W_c + h' U_c + b_c)
        o = s(x W_o + h' U_o + b_o)         what is read
        c = f * c' + i * g
        h = o * a(c)

    Shapes, D features and H units: kernel (D, 4H), recurrent_kernel (H, 4H), bias (4H,); states h, c (batch, H).

    Args:
        unit_forget_bias: the forget gate's biases start as ones, whatever `bias_initializer` is.
        Others: see `Recurrent` and `Gated`.

    Raises:
        ValueError: see `Recurrent`.

    Sources: Hochreiter & Schmidhuber 1997, "Long short-term memory"; Gers, Schmidhuber & Cummins 2000, "Learning to
    forget: continual prediction with LSTM"; Jozefowicz, Zaremba & Sutskever 2015, "An empirical exploration of
    recurrent network architectures" (the forget gate's first bias).
    """

    unit_forget_bias: bool = field(default=True, kw_only=True)

    cell_name: ClassVar[str] = "lstm"

    def initial_bias(self, shape: tuple[int, ...], dtype: str) -> Array:
        bias = super().initial_bias(shape, dtype)
        if self.unit_forget_bias:
            bias.reshape(-1, self.units)[self.cell.gates.index("f")] = 1
        return bias
