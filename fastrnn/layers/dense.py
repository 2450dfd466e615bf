"""The fully connected layer."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import activations, initializers, registry, threads
from .._core import kernels
from ..registry import register, replays
from ..states import Context
from .layer import Array, BeforeActivation, Layer


class Saved(NamedTuple):
    """What backward needs: z is None where the activation's derivative follows from y."""

    x: Array
    y: Array
    z: Array | None
    mask: Array | None
    input_gradient: bool


@register("layer")
@dataclass(eq=False, repr=False)
class Dense(Layer):
    """y = activation(x kernel + bias), on the last axis of an input of any rank, as one product.

    Shapes: x (batch, ..., features); y (batch, ..., units); kernel (features, units); bias (units,).

    Args:
        units: width of the output.
        activation: name or Activation; None is linear.
        use_bias: whether a bias is added.
        kernel_initializer, bias_initializer: first values of the weights.
        kernel_regularizer, bias_regularizer: penalties on the weights.
        activity_regularizer: penalty on the output.
        kernel_constraint, bias_constraint: projections of the weights after each update.

    Raises:
        ValueError: if `units` is not a positive integer.
    """

    units: int
    activation: Any = None
    use_bias: bool = True
    _: KW_ONLY
    kernel_initializer: Any = "glorot_uniform"
    bias_initializer: Any = "zeros"
    kernel_regularizer: Any = None
    bias_regularizer: Any = None
    kernel_constraint: Any = None
    bias_constraint: Any = None

    expects = "(batch, ..., features)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.units, bool) or not isinstance(self.units, (int, np.integer)) or self.units < 1:
            raise ValueError(f"Dense: units must be a positive integer; received {self.units!r}")
        self.activation = activations.get(self.activation)
        self.kernel_initializer = initializers.get(self.kernel_initializer)
        self.bias_initializer = initializers.get(self.bias_initializer)
        self.kernel_regularizer = registry.get("regularizer", self.kernel_regularizer)
        self.bias_regularizer = registry.get("regularizer", self.bias_regularizer)
        self.kernel_constraint = registry.get("constraint", self.kernel_constraint)
        self.bias_constraint = registry.get("constraint", self.bias_constraint)

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(
            "kernel",
            (shape[-1], self.units),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                "bias",
                (self.units,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def output_shape(self, shape: Any) -> Any:
        return (*shape[:-1], self.units)

    @property
    def final_activation(self) -> Any:
        return self.activation

    @property
    def replays(self) -> bool:  # type: ignore[override]
        return replays(self.activation)

    def forward(self, x: Array, mask: Array | None, context: Context) -> tuple[Array | BeforeActivation, Saved | None]:
        if x.ndim < 2 or x.shape[-1] != self.kernel.shape[0]:
            self.check_shape(x.shape)
        bias = None if self.bias is None else self.bias.values
        z = kernels.product(_rows(x), self.kernel.values, bias=bias, threads=threads.get_num_threads())
        if x.ndim > 2:
            z = z.reshape(*x.shape[:-1], self.units)
        if context.early:
            return BeforeActivation(z), Saved(x, z, None, mask, context.input_gradient)
        if not context.record:
            return self.activation.forward_over(z), None
        kept = None if self.activation.from_output else z
        y = self.activation.forward_over(z) if kept is None else self.activation.forward(z)
        return y, Saved(x, y, kept, mask, context.input_gradient)

    def backward(self, saved: Saved, dy: Array | BeforeActivation) -> Array | None:
        """dz = dy activation'(z); dkernel += x^T dz; dbias += sum of dz; dx = dz kernel^T.

        Rows that are masked and have no gradient are left out: whatever stands in padding stays there, NaN included.
        """
        x, y, z, mask, input_gradient = saved
        given = dy.values if isinstance(dy, BeforeActivation) else dy
        kept = _kept_rows(given, mask)
        dz = _rows(given if isinstance(dy, BeforeActivation) else self.activation.backward(y, dy, z))
        x_rows = _rows(x)
        if kept is not None:
            dz, x_rows = dz[kept], x_rows[kept]
        count = threads.get_num_threads()
        if self.trainable and len(dz):
            blank = self.kernel.blank
            dkernel = self.kernel.lend_gradient(overwritten=blank)
            dbias = None if self.bias is None else self.bias.lend_gradient()
            kernels.product(x_rows, dz, transpose_a=True, out=dkernel, sums=dbias, accumulate=not blank, threads=count)
        if not input_gradient:
            return None
        if kept is None:
            dx = kernels.product(dz, self.kernel.values, transpose_b=True, threads=count)
            return dx if x.ndim == 2 else dx.reshape(x.shape)
        dx = np.zeros_like(x)
        if len(dz):
            _rows(dx)[kept] = kernels.product(dz, self.kernel.values, transpose_b=True, threads=count)
        return dx


def _rows(x: Array) -> Array:
    """(batch, ..., features) as (rows, features), C-contiguous."""
    return np.ascontiguousarray(x if x.ndim == 2 else x.reshape(-1, x.shape[-1]))


def _kept_rows(dy: Array, mask: Array | None) -> Array | None:
    """Which rows a gradient passes through: None for all of them, else those that count, if the others' dy is 0."""
    if mask is None or mask.shape != dy.shape[:-1] or mask.all() or dy[~mask].any():
        return None
    return np.flatnonzero(mask)
