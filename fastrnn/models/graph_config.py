"""A graph in numbers, and back: what configurations and copies of models hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..graph import Node, SymbolicTensor, as_list
from ..layers.input import Input, InputLayer
from ..layers.layer import Layer
from .network import Network
from .ports import flatten, pack


def from_inputs(inputs: Any, outputs: Any) -> tuple[Any, Any]:
    """The same graph, with an `Input` of its own wherever it starts inside another graph."""
    tensors = flatten(inputs)
    inner = [t for t in tensors if as_list(t.node.inputs)]
    if not inner:
        return inputs, outputs
    network = Network(tensors, flatten(outputs))
    known = {t: Input(batch_shape=t.shape, dtype=t.dtype) if t in inner else t for t in tensors}
    for node in network.nodes:
        if not any(t in known for t in as_list(node.outputs)):
            made = _call(
                node.layer, _map(node.inputs, known.__getitem__), _map(node.mask, known.__getitem__), node.training
            )
            known.update(zip(as_list(node.outputs), made, strict=True))
    return (pack(s, iter([known[t] for t in flatten(s)])) for s in (inputs, outputs))  # type: ignore[return-value]


def _map(value: Any, function: Callable[[Any], Any]) -> Any:
    """`function` of each tensor of a node's inputs or mask, in the same form."""
    if isinstance(value, (list, tuple)):
        return [None if v is None else function(v) for v in value]
    return None if value is None else function(value)


def _call(layer: Layer, inputs: Any, mask: Any, training: bool | None) -> list[SymbolicTensor]:
    return flatten(layer(inputs, mask=mask, training=training))


def describe(nodes: list[Node], layers: list[Layer], inputs: Any, outputs: Any) -> dict[str, Any]:
    """The graph in numbers: a tensor is [its node, its place among the node's outputs]."""
    number = {node: i for i, node in enumerate(nodes)}
    of_layer = {layer: i for i, layer in enumerate(layers)}

    def place(t: SymbolicTensor) -> list[int]:
        return [number[t.node], t.index]

    return {
        "nodes": [
            {
                "layer": of_layer[n.layer],
                "inputs": _map(n.inputs, place),
                "mask": _map(n.mask, place),
                "training": n.training,
            }
            for n in nodes
        ],
        "inputs": pack(inputs, iter([place(t) for t in flatten(inputs)])),
        "outputs": pack(outputs, iter([place(t) for t in flatten(outputs)])),
    }


def replay(description: Mapping[str, Any], layers: list[Layer]) -> tuple[Any, Any]:
    """Calls `layers` as described; gives inputs and outputs. Input layers are made anew."""
    made: list[list[SymbolicTensor]] = []

    def tensor(place: Any) -> SymbolicTensor:
        return made[place[0]][place[1]]

    def structure(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: structure(v) for k, v in value.items()}
        return tensor(value) if isinstance(value[0], int) else [None if v is None else structure(v) for v in value]

    for node in description["nodes"]:
        layer = layers[node["layer"]]
        if isinstance(layer, InputLayer):
            made.append([InputLayer.from_config(layer.get_config()).output])
        else:
            mask = None if node["mask"] is None else structure(node["mask"])
            made.append(_call(layer, structure(node["inputs"]), mask, node["training"]))
    return structure(description["inputs"]), structure(description["outputs"])
