"""`model.stepper()`: a model taken step by step. Its layers become a list of operations for the kernels' `Stream`.

Every layer must give its output at a step from its input at that step and from states that it keeps. The list is made
once; weights are asked for again when they have changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import activations
from .._core import kernels
from ..layers.activation import Activation, ReLU
from ..layers.arithmetic import Affine, Power
from ..layers.dense import Dense
from ..layers.dropout import Dropout
from ..layers.embedding import Embedding
from ..layers.layer import Layer
from ..layers.masking import Masking
from ..layers.recurrent import Recurrent
from ..layers.time_distributed import TimeDistributed
from ..states import Context
from .network import Step

Array = np.ndarray
SUPPORTED = (
    "a stepper takes a chain of layers: recurrent ones that go forwards, Embedding, Dense, activations, Dropout, "
    "Masking, arithmetic with numbers, and TimeDistributed around any other"
)
IN_C = {type(activations.get(name)) for name in kernels.activations}


class Stepper(kernels.Stream):
    """A model that takes sequences one step a call. `model.stepper(batch_size)` makes it.

        stepper = model.stepper()
        for x_t in signal:            # (features,)
            y_t = stepper.step(x_t)   # what model.predict gives at that step of the whole signal, to the last bit

    Each of the `batch_size` rows is a stream of its own. What a step needs is bound: nothing is allocated, and states
    stay where they are. Weights that change later, by `fit` or `assign`, count from the next step on. Dropout drops
    nothing. A row whose step is masked, by Masking or by an Embedding with `mask_zero`, keeps its states and repeats
    its last output, as in a padded sequence. Layers that are `stateful` keep their states apart from the stepper's.

    A stepper takes the model's layers as they are when it is made. It serves one thread at a time; threads make one
    each. It does not pickle, its `state` does. A forked child goes on with a copy.

    Attributes:
        batch_size: rows of a step.
        state: of every recurrent layer; can be read and set.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<Stepper batch_size={self.batch_size}>"


class Operation(NamedTuple):
    """What `kernels.Stream`, which says what each of these means, is told of a layer or a part of it. `name` is the
    layer's, for errors."""

    kind: str
    columns: int
    name: str
    weights: Callable[[], Any] | None = None
    activation: str = "linear"
    recurrent_activation: str = "sigmoid"
    states: int = 0
    skipped: str | None = None
    mask_zero: bool = False
    mask_value: float = 0.0
    function: Callable[[Array], Array] | None = None


def stepper(model: Any, batch_size: int) -> Stepper:
    """The stepper of a built model.

    Raises:
        ValueError: if the model is no chain of layers that can be taken step by step; names the first that is none.
    """
    who, network = f"model {model.name!r}", model.network
    if len(network.inputs) != 1 or len(network.outputs) != 1:
        raise ValueError(
            f"{who} has {len(network.inputs)} inputs and {len(network.outputs)} outputs; a stepper needs one of each "
            "(the states of recurrent layers are in its `state`)"
        )
    try:
        chain, slot = _Chain(model.inputs[0].shape), network.inputs[0]
        for step in network.steps:
            _check_place(step, slot)
            chain.add(step.layer)
            slot = step.outputs[0]
        if slot != network.outputs[0]:
            raise ValueError(f"the output is not that of the last layer; {SUPPORTED}")
    except ValueError as error:
        raise ValueError(f"{who}: {error}") from None
    return Stepper(chain.dtype, batch_size, chain.features, chain.finish())


def _check_place(step: Step, slot: int) -> None:
    layer = step.layer
    if step.inputs != [slot]:
        recurrent = isinstance(layer, Recurrent) and step.inputs[:1] == [slot]
        what = "is given an initial state" if recurrent else "does not follow on the layer before it alone"
        raise ValueError(f"{layer.title} {what}; {SUPPORTED}")
    if step.mask:
        raise ValueError(f"{layer.title} is given a mask in the graph, which a stepper does not take")
    if step.training and (isinstance(layer, (Dropout, Recurrent, TimeDistributed))):
        raise ValueError(f"{layer.title} is called with training=True; a stepper drops nothing")


class _Chain:
    """The operations of the layers so far, and what comes out of them.

    Attributes:
        features: columns of x; None if x holds ids.
        columns: of what comes out, None while it is ids.
        masked: whether steps may be masked there.
    """

    def __init__(self, shape: tuple[int | None, ...]) -> None:
        if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] is None):
            raise ValueError(
                f"a stepper needs inputs (batch, time, features), or (batch, time) of ids; they are {shape}"
            )
        self.operations: list[Operation] = []
        self.features = self.columns = shape[2] if len(shape) == 3 else None
        self.masked, self.dtype = False, ""

    def add(self, layer: Layer) -> None:
        """Appends the operations of a layer."""
        if self.columns is None and not isinstance(layer, Embedding):
            raise ValueError(f"{layer.title} has no time axis in its input, (batch, features); {SUPPORTED}")
        if self.dtype and layer.dtype != self.dtype:
            raise ValueError(
                f"{layer.title} is of {layer.dtype}, layers before it of {self.dtype}; a stepper has one dtype"
            )
        self.dtype = layer.dtype
        for kind, operations_of in KINDS.items():
            if isinstance(layer, kind) and type(layer).forward is kind.forward:
                return operations_of(self, layer)
        raise ValueError(f"{layer.title} cannot be taken step by step; {SUPPORTED}")

    def finish(self) -> list[Operation]:
        """The whole list. x is read by some operation that leaves its result elsewhere."""
        if all(o.kind == "mask" for o in self.operations):
            self.put("activate", self.columns, "input")
        return self.operations

    def put(self, kind: str, columns: Any, name: str, **options: Any) -> None:
        self.operations.append(Operation(kind, columns, name, **options))
        self.columns = columns

    def activate(self, activation: Any, name: str) -> None:
        """Appends what is left of an activation that is not part of the operation before it."""
        if getattr(activation, "axis", -1) not in (-1, 2):
            raise ValueError(f"{name}: {activation.name} along axis {activation.axis} mixes steps or rows; {SUPPORTED}")
        if in_c(activation):
            self.put("activate", self.columns, name, activation=activation.name)
        elif type(activation) is activations.Softmax:
            self.put("softmax", self.columns, name)
        else:
            self.put("call", self.columns, name, function=activation.forward)

    def call(self, layer: Layer, columns: Any) -> None:
        """Appends a layer that NumPy computes, on (batch, 1, columns)."""
        context = Context()
        self.put("call", columns, layer.title, function=lambda x: layer.forward(x[:, None], None, context)[0][:, 0])


def in_c(activation: Any) -> bool:
    """Whether the kernels compute it (and `forward` lets them do it)."""
    return type(activation) in IN_C and activation.name in kernels.activations


def _recurrent(chain: _Chain, layer: Recurrent) -> None:
    if layer.go_backwards or type(layer).run is not Recurrent.run:
        raise ValueError(f"{layer.title} goes backwards, from the end of the sequence; {SUPPORTED}")
    skipped = None if not chain.masked else "zero" if layer.zero_output_for_mask else "repeat"
    chain.put(
        "cell",
        layer.units,
        layer.title,
        weights=lambda: layer.packed(False),
        **layer._activation_names,
        states=layer.cell.states,
        skipped=skipped,
    )
    chain.masked = chain.masked and layer.return_sequences


def _embedding(chain: _Chain, layer: Embedding) -> None:
    if chain.columns is not None:
        raise ValueError(f"{layer.title} does not stand at the beginning, or its ids are not of shape (batch, time)")
    chain.masked = layer.mask_zero
    chain.put(
        "embed", layer.output_dim, layer.title, weights=lambda: layer.embeddings.values, mask_zero=layer.mask_zero
    )


class _DenseWeights:
    """The packed weights of a Dense layer, packed anew when they have changed."""

    def __init__(self, layer: Dense) -> None:
        self.layer = layer
        self.version: tuple[int, ...] = ()
        self.packed: Any = None

    def __call__(self) -> Any:
        version = tuple(w.version for w in self.layer.weights)
        if version != self.version:
            bias = None if self.layer.bias is None else self.layer.bias.values
            self.version, self.packed = version, kernels.pack_dense(self.layer.kernel.values, bias)
        return self.packed


def _dense(chain: _Chain, layer: Dense) -> None:
    fused = in_c(layer.activation)
    name = layer.activation.name if fused else "linear"
    chain.put("dense", layer.units, layer.title, weights=_DenseWeights(layer), activation=name)
    if not fused:
        chain.activate(layer.activation, layer.title)


def _masking(chain: _Chain, layer: Masking) -> None:
    chain.put("mask", chain.columns, layer.title, mask_value=float(layer.mask_value))
    chain.masked = True


def _time_distributed(chain: _Chain, layer: TimeDistributed) -> None:
    inner = layer.layer
    if isinstance(inner, PER_STEP) and type(inner).forward in {kind.forward for kind in PER_STEP}:
        chain.add(inner)
        return
    shape = layer.output_shape((None, None, chain.columns))
    if isinstance(shape, list) or len(shape) != 3 or shape[-1] is None:
        raise ValueError(f"{layer.title} gives {shape}, not (batch, time, features); {SUPPORTED}")
    chain.call(layer, shape[-1])


PER_STEP = Dense, Activation, ReLU, Affine, Power, Dropout
KINDS: dict[type[Layer], Callable[[_Chain, Any], None]] = {
    Recurrent: _recurrent,
    Embedding: _embedding,
    Dense: _dense,
    Activation: lambda chain, layer: chain.activate(layer.activation, layer.title),
    Dropout: lambda chain, layer: None,
    Masking: _masking,
    ReLU: lambda chain, layer: chain.call(layer, chain.columns),
    Affine: lambda chain, layer: chain.call(layer, chain.columns),
    Power: lambda chain, layer: chain.call(layer, chain.columns),
    TimeDistributed: _time_distributed,
}
