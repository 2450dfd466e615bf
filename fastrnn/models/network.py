"""The nodes between some inputs and some outputs, laid out to be run: forward over arrays and masks, and backward.

Every tensor of the graph has a slot, every node a `Step` that reads slots and fills slots. Models inside the model are
laid out flat among the other steps, so that one list says what runs, what is recorded and where gradients stop.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..graph import Node, SymbolicTensor, as_list, topological
from ..registry import replays
from ..states import Context

Array = np.ndarray
MOST_TENSORS = 100_000


class Step:
    """One call of a layer: which slots it reads and fills.

    Attributes:
        input, output: the slot, where there is one; None for a layer that takes, or gives, a list.
        cast: whether what comes in may have another dtype than the layer's.
        mask: slots of masks that were given with the call, None where masks travel by themselves.
        training: given with the call; None leaves it to the run.
        done: slots that nobody reads afterwards.
    """

    __slots__ = ("cast", "done", "input", "inputs", "layer", "mask", "output", "outputs", "training")

    def __init__(
        self,
        layer: Any,
        inputs: list[int],
        outputs: list[int],
        several: tuple[bool, bool],
        cast: bool,
        mask: list[int | None],
        training: bool | None,
    ) -> None:
        self.layer, self.inputs, self.outputs = layer, inputs, outputs
        self.input = None if several[0] else inputs[0]
        self.output = None if several[1] else outputs[0]
        self.cast, self.mask, self.training = cast, mask if any(m is not None for m in mask) else [], training
        self.done: list[int] = []

    @property
    def several(self) -> tuple[bool, bool]:
        """Whether the layer takes a list, and whether it gives one."""
        return self.input is None, self.output is None


# How one kind of run treats each step: its context. Backward passes the steps whose context says `record`.
Plan = list[Context]
# What the tape holds of a step: what its layer saved, the gradients of its activity penalty, and the types its inputs
# had before they were cast to the layer's. None for a step that backward does not pass.
Record = tuple[Any, list[Array] | None, list[np.dtype] | None]


class Run(NamedTuple):
    """What a forward pass gives: one array (a `BeforeActivation` where the plan says `early`) and one mask per output,
    the sum of the activity penalties, the tape."""

    outputs: list[Any]
    masks: list[Array | None]
    penalty: float
    tape: list[Record | None]


class Network:
    """Steps from `inputs` to `outputs`.

    Attributes:
        steps: in an order in which each finds its slots filled.
        nodes: the nodes of the graph in that order, models inside not opened.
        layers: the layers of the nodes, the farthest from the outputs first, as Keras orders `model.layers`.

    Raises:
        ValueError: if an output depends on an input that is not among `inputs`, or two layers have the same name.
    """

    def __init__(self, inputs: Sequence[SymbolicTensor], outputs: Sequence[SymbolicTensor]) -> None:
        self.slots: dict[SymbolicTensor, int] = {}
        self.count = 0
        self.steps: list[Step] = []
        for tensor in inputs:
            if tensor in self.slots:
                raise ValueError(f"the input {tensor.name!r} is given twice")
            self.slots[tensor] = self._slot()
        self._given = set(inputs)
        self.nodes = topological(outputs, inputs)
        for node in self.nodes:
            if not any(tensor in self._given for tensor in as_list(node.outputs)):
                self._add(node)
        for tensor in outputs:
            if tensor not in self.slots:
                raise ValueError(f"the output {tensor!r} cannot be computed from the inputs {_named(inputs)}")
        self.inputs = [self.slots[t] for t in inputs]
        self.outputs = [self.slots[t] for t in outputs]
        self.layers = _ordered(self.nodes, inputs, outputs)
        self._release()

    def _slot(self) -> int:
        if self.count == MOST_TENSORS:
            raise ValueError(f"a model may have at most {MOST_TENSORS} tensors, those of the models in it included")
        self.count += 1
        return self.count - 1

    def _add(self, node: Node) -> None:
        ins, outs = as_list(node.inputs), as_list(node.outputs)
        for tensor in (*ins, *as_list(node.mask)):
            if tensor is not None and tensor not in self.slots:
                raise ValueError(
                    f"layer {node.layer.name!r} needs {tensor!r}, which cannot be computed from the inputs given"
                )
        if not ins:
            raise ValueError(
                f"the outputs depend on the input {node.layer.name!r}, which is not among the inputs of the model"
            )
        inputs = [self.slots[t] for t in ins]
        mask = [None if m is None else self.slots[m] for m in as_list(node.mask)]
        inner = getattr(node.layer, "network", None)
        if isinstance(inner, Network):
            self.slots.update(zip(outs, self._inline(inner, inputs, mask, node.training), strict=True))
            return
        outputs = [self._slot() for _ in outs]
        self.slots.update(zip(outs, outputs, strict=True))
        several = isinstance(node.inputs, (list, tuple)), isinstance(node.outputs, (list, tuple))
        cast = any(t in self._given or t.dtype != node.layer.dtype for t in ins)
        self.steps.append(Step(node.layer, inputs, outputs, several, cast, mask, node.training))

    def _inline(self, inner: Network, inputs: list[int], mask: list[int | None], training: bool | None) -> list[int]:
        """Lays out the steps of a model inside this one; gives the slots of its outputs."""
        place = dict(zip(inner.inputs, inputs, strict=True))
        given = {slot: m for slot, m in zip(inner.inputs, mask, strict=False) if m is not None}

        def slot(i: int) -> int:
            if i not in place:
                place[i] = self._slot()
            return place[i]

        for step in inner.steps:
            own = step.mask + [None] * (len(step.inputs) - len(step.mask))
            masks = [given.get(i) if m is None else slot(m) for i, m in zip(step.inputs, own, strict=True)]
            ins, outs = [slot(i) for i in step.inputs], [slot(i) for i in step.outputs]
            override = training if step.training is None else step.training
            self.steps.append(Step(step.layer, ins, outs, step.several, step.cast, masks, override))
        return [slot(i) for i in inner.outputs]

    def _release(self) -> None:
        """Notes for each step the slots that are read there for the last time."""
        last: dict[int, Step] = {}
        for step in self.steps:
            for slot in (*step.inputs, *step.outputs, *(m for m in step.mask if m is not None)):
                last[slot] = step
        for slot, step in last.items():
            if slot not in self.outputs:
                step.done.append(slot)

    def plan(self, context: Context, before_activation: Collection[int] = ()) -> Plan:
        """How the steps run under `context`, with the layers' present `trainable`.

        Outputs with the numbers `before_activation` may come as a `BeforeActivation`.

        Backward passes a step if something below it is trained: its own weights, weights of the steps that feed it,
        or, with `context.input_gradient`, the inputs of the network.
        """
        contexts: Plan = []
        variants: dict[tuple[bool, ...], Context] = {}
        ends = {self.outputs[i] for i in before_activation}
        wanted = [False] * self.count
        for slot in self.inputs:
            wanted[slot] = context.input_gradient
        for step in self.steps:
            below = any(wanted[slot] for slot in step.inputs)
            passes = context.record and (below or bool(step.layer.trainable_weights))
            for slot in step.outputs:
                wanted[slot] = passes
            training = context.training if step.training is None else step.training
            early = passes and step.output in ends and replays(step.layer)  # layers of users' own know nothing of it
            key = training, passes, below, early
            if key not in variants:
                variants[key] = replace(context, training=training, record=passes, input_gradient=below, early=early)
            contexts.append(variants[key])
        return contexts

    def forward(self, arrays: Sequence[Array], masks: Sequence[Array | None] | None, plan: Plan) -> Run:
        """Runs the steps.

        Args:
            arrays: one per input.
            masks: one per input, or None for no masks.
            plan: see `plan`.
        """
        values: list[Any] = [None] * self.count
        known: list[Array | None] = [None] * self.count
        for i, slot in enumerate(self.inputs):
            values[slot] = arrays[i]
            if masks is not None:
                known[slot] = masks[i]
        penalty = 0.0
        tape: list[Record | None] = []
        x: Any
        mask: Any
        for step, context in zip(self.steps, plan, strict=True):
            layer, one = step.layer, step.input
            if one is not None:
                x, mask = values[one], known[one]
            else:
                x, mask = [values[i] for i in step.inputs], [known[i] for i in step.inputs]
            cast_from = None
            if step.cast:
                if context.record and context.input_gradient:
                    cast_from = [values[i].dtype for i in step.inputs]
                x = layer.cast(x)
            for i, m in enumerate(step.mask):
                if m is not None:
                    mask = values[m] if one is not None else [*mask[:i], values[m], *mask[i + 1 :]]
            y, saved = layer.forward(x, mask, context)
            mask = layer.output_mask(x, mask)
            one = step.output
            if one is not None:
                values[one], known[one] = y, mask
            else:
                for i, slot in enumerate(step.outputs):
                    values[slot] = y[i]
                if mask is not None:
                    for slot, m in zip(step.outputs, mask, strict=True):
                        known[slot] = m
            slopes = None
            if layer.activity_regularizer is not None:
                value, slopes = _activity(layer.activity_regularizer, [values[i] for i in step.outputs])
                penalty += value
            tape.append((saved, slopes, cast_from) if context.record else None)
            for slot in step.done:
                values[slot] = None
        return Run([values[i] for i in self.outputs], [known[i] for i in self.outputs], penalty, tape)

    def backward(self, run: Run, doutputs: Sequence[Array | None]) -> list[Array | None]:
        """Adds the gradients of all weights; gives the gradient for each input, where the plan wants it."""
        gradients: list[Array | None] = [None] * self.count
        for slot, d in zip(self.outputs, doutputs, strict=True):
            _add(gradients, slot, d)
        dy: Any
        for step, record in zip(reversed(self.steps), reversed(run.tape), strict=True):
            if record is None:
                continue
            saved, slopes, cast_from = record
            if slopes is not None:
                for slot, slope in zip(step.outputs, slopes, strict=True):
                    _add(gradients, slot, slope)
            if step.output is not None:
                dy = gradients[step.output]
                gradients[step.output] = None
                if dy is None:
                    continue
            else:
                dy = [gradients[i] for i in step.outputs]
                if all(d is None for d in dy):
                    continue
                for slot in step.outputs:
                    gradients[slot] = None
            dx = step.layer.backward(saved, dy)
            if dx is None:
                continue
            if step.input is not None:
                dx = [dx]
            if cast_from is not None:
                dx = [d if d is None else d.astype(t, copy=False) for d, t in zip(dx, cast_from, strict=True)]
            for slot, d in zip(step.inputs, dx, strict=True):
                _add(gradients, slot, d)
        return [gradients[i] for i in self.inputs]

    def final_activation(self, output: int) -> str | None:
        """The name of the activation (along the last axis) that ends output number `output`, if the layer that gives it
        takes a `BeforeActivation` and nothing else depends on the output."""
        slot = self.outputs[output]
        if self.outputs.count(slot) > 1 or any(slot in step.inputs for step in self.steps):
            return None
        layer = next((step.layer for step in self.steps if step.output == slot), None)
        activation = None if layer is None or layer.activity_regularizer is not None else layer.final_activation
        return activation.name if activation is not None and getattr(activation, "axis", -1) == -1 else None

    def shapes(self, shapes: Sequence[tuple[int | None, ...]]) -> list[tuple[int | None, ...]]:
        """The shapes of the outputs for other shapes of the inputs."""
        known: list[Any] = [None] * self.count
        for slot, shape in zip(self.inputs, shapes, strict=True):
            known[slot] = tuple(shape)
        for step in self.steps:
            ins = [known[i] for i in step.inputs]
            out = step.layer.output_shape(ins if step.input is None else ins[0])
            for slot, shape in zip(step.outputs, out if step.output is None else [out], strict=True):
                known[slot] = tuple(shape)
        return [known[i] for i in self.outputs]


def _add(gradients: list[Array | None], slot: int, d: Array | None) -> None:
    if d is not None:
        before = gradients[slot]
        gradients[slot] = d if before is None else before + d


def _activity(regularizer: Any, outputs: list[Array]) -> tuple[float, list[Array]]:
    """The penalty of a layer's outputs, divided by the batch size, and its gradients."""
    found = [regularizer.value_and_gradient(y) for y in outputs]
    return sum(value / len(y) for (value, _), y in zip(found, outputs, strict=True)), [
        dy / y.dtype.type(len(y)) for (_, dy), y in zip(found, outputs, strict=True)
    ]


def _named(tensors: Iterable[SymbolicTensor]) -> str:
    return ", ".join(repr(t.name) for t in tensors)


def _ordered(nodes: list[Node], inputs: Sequence[SymbolicTensor], outputs: Sequence[SymbolicTensor]) -> list[Any]:
    """The layers by their longest distance to an output, and among equals in the order of a walk from the outputs."""
    distance: dict[Node, int] = {}
    of_layer: dict[Any, int] = {}
    inside = set(nodes)
    for node in reversed(nodes):
        d = max(distance.get(node, 0), of_layer.get(node.layer, 0))
        distance[node] = of_layer[node.layer] = d
        for parent in node.parents:
            if parent in inside:
                distance[parent] = max(distance.get(parent, 0), d + 1)
    found: dict[Any, int] = {}
    stop = {t.node for t in inputs}
    for node in _walk(outputs, stop):
        found.setdefault(node.layer, len(found))
    unused = [t.node.layer for t in inputs if t.node not in inside and not as_list(t.node.inputs)]
    for layer in unused:
        of_layer.setdefault(layer, 0)
        found[layer] = -1
    hidden = {t.node.layer for t in inputs if as_list(t.node.inputs)} - {n.layer for n in nodes if n not in stop}
    layers = sorted(
        (layer for layer in of_layer if layer not in hidden), key=lambda layer: (-of_layer[layer], found[layer])
    )
    names = [layer.name for layer in layers]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{names.count(name)} layers of the model are called {name!r}; names must differ")
    return layers


def _walk(outputs: Sequence[SymbolicTensor], stop: set[Node]) -> Iterator[Node]:
    """Every node above `outputs` once: a node, then the nodes it needs, the first of them first."""
    seen: set[Node] = set()
    waiting = [t.node for t in reversed(outputs)]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        yield node
        if node not in stop:
            waiting.extend(reversed(node.parents))
