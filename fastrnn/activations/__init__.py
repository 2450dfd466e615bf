"""Activation functions, each with its derivative beside it.

    y = activation.forward(x)
    dx = activation.backward(y, dy, x)      # x may be left out where `from_output` holds

Results have the shape and dtype of `x`. `tanh`, `sigmoid` and the rest are objects that can be called like functions;
`activations.elu(x, alpha=0.5)` and `Elu(alpha=0.5)` set parameters. `get` finds them by name. An activation of one's
own is a subclass of `Activation` with the two methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import registry
from .activation import HOW_TO_WRITE_ONE, Activation
from .from_input import Gelu, HardShrink, HardSilu, LeakyRelu, Mish, Silu, SparsePlus, Squareplus, TanhShrink
from .from_output import (
    Celu,
    Elu,
    Exponential,
    HardSigmoid,
    HardTanh,
    Linear,
    LogSigmoid,
    LogSoftmax,
    Relu,
    Relu6,
    Selu,
    Sigmoid,
    Softmax,
    Softplus,
    SoftShrink,
    Softsign,
    SparseSigmoid,
    Tanh,
)


def get(identifier: Any, custom_objects: Mapping[str, Any] | None = None) -> Activation:
    """An activation from its name, a configuration, a class, itself, or the layer that does it; None gives `linear`.

    Raises:
        ValueError: for an unknown name, or for a plain function, of which the derivative is not known.
    """
    found = registry.get("activation", "linear" if identifier is None else identifier, custom_objects)
    found = getattr(found, "as_activation", found)
    if not isinstance(found, Activation):
        raise ValueError(f"{HOW_TO_WRITE_ONE}; received {identifier!r}")
    return found


linear, tanh, sigmoid, relu, leaky_relu, relu6 = Linear(), Tanh(), Sigmoid(), Relu(), LeakyRelu(), Relu6()
elu, celu, selu, softplus, softsign, exponential = Elu(), Celu(), Selu(), Softplus(), Softsign(), Exponential()
hard_sigmoid, hard_tanh, hard_silu, hard_shrink = HardSigmoid(), HardTanh(), HardSilu(), HardShrink()
softmax, log_softmax, log_sigmoid = Softmax(), LogSoftmax(), LogSigmoid()
silu = swish = Silu()
hard_swish = hard_silu
gelu, mish, tanh_shrink, soft_shrink, squareplus = Gelu(), Mish(), TanhShrink(), SoftShrink(), Squareplus()
sparse_plus, sparse_sigmoid = SparsePlus(), SparseSigmoid()
