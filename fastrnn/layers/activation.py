"""Activations as layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .. import activations
from ..registry import register, replays
from ..states import Context
from .layer import Array, BeforeActivation, Layer


class Saved(NamedTuple):
    """x is None where the activation's derivative follows from y."""

    y: Array
    x: Array | None


@register("layer")
@dataclass(eq=False, repr=False)
class Activation(Layer):
    """y = activation(x).

    Args:
        activation: name or Activation.
    """

    activation: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        self.activation = activations.get(self.activation)

    @property
    def final_activation(self) -> Any:
        return self.activation

    @property
    def as_activation(self) -> Any:
        """What another layer takes for its `activation` when it is given this layer."""
        return self.activation

    @property
    def replays(self) -> bool:  # type: ignore[override]
        return replays(self.activation)

    def forward(self, x: Array, mask: Any, context: Context) -> tuple[Array, Saved]:
        y = self.activation.forward(x)
        return y, Saved(y, None if self.activation.from_output else x)

    def backward(self, saved: Saved, dy: Array | BeforeActivation) -> Array:
        return dy.values if isinstance(dy, BeforeActivation) else self.activation.backward(saved.y, dy, saved.x)


@register("layer")
@dataclass(eq=False, repr=False)
class Softmax(Activation):
    """y = exp(x) / sum(exp(x)) along `axis`."""

    activation: Any = field(init=False, default=None)
    axis: int = -1

    def __post_init__(self) -> None:
        self.activation = activations.Softmax(axis=self.axis)
        super().__post_init__()


@register("layer")
@dataclass(eq=False, repr=False)
class LeakyReLU(Activation):
    """y = x where x > 0, negative_slope * x below."""

    activation: Any = field(init=False, default=None)
    negative_slope: float = 0.3

    def __post_init__(self) -> None:
        self.activation = activations.LeakyRelu(negative_slope=self.negative_slope)
        super().__post_init__()


@register("layer")
@dataclass(eq=False, repr=False)
class ELU(Activation):
    """y = x where x > 0, alpha * (exp(x) - 1) below."""

    activation: Any = field(init=False, default=None)
    alpha: float = 1.0

    def __post_init__(self) -> None:
        self.activation = activations.Elu(alpha=self.alpha)
        super().__post_init__()


@register("layer")
@dataclass(eq=False, repr=False)
class ReLU(Layer):
    """y = min(x, max_value) where x >= threshold, negative_slope * (x - threshold) below.

    Raises:
        ValueError: for a negative `max_value`, `negative_slope` or `threshold`.
    """

    max_value: float | None = None
    negative_slope: float = 0.0
    threshold: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for argument in ("max_value", "negative_slope", "threshold"):
            value = getattr(self, argument)
            if value is not None and value < 0:
                raise ValueError(f"ReLU: {argument} must not be negative; received {value!r}")

    @property
    def as_activation(self) -> Any:
        """See `Activation.as_activation`."""
        if self.max_value is None and not self.negative_slope and not self.threshold:
            return activations.relu
        raise ValueError(f"{self.title} with its arguments is no activation of another layer; it stands by itself")

    def forward(self, x: Array, mask: Any, context: Context) -> tuple[Array, Array]:
        y = np.where(x >= self.threshold, x, self.negative_slope * (x - self.threshold))
        return y if self.max_value is None else np.minimum(y, self.max_value), x

    def backward(self, saved: Array, dy: Array) -> Array:
        dx = np.where(saved >= self.threshold, dy, self.negative_slope * dy)
        return dx if self.max_value is None else np.where(saved < self.max_value, dx, 0)
