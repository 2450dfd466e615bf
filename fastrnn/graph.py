"""The graph of a functional model: symbolic tensors, and the nodes (calls of layers) between them.

Calling a layer on symbolic tensors makes a `Node`; the tensors it gives remember it. Nothing is computed. This module
knows no layer: arithmetic on tensors (`a + b`, `a[:, -1]`) is handed to whoever has entered it in `operators`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Shape = tuple[int | None, ...]

operators: dict[str, Callable[..., Any]] = {}


class SymbolicTensor:
    """A place for an array in a graph: what will stand there is known only by shape and dtype.

    Attributes:
        shape: sizes of the axes, batch first; None where any size will do.
        dtype: "float32", "float64", or an integer or bool type.
        node: the call that gives it.
        index: which of the node's outputs it is.
        name: of the layer that gives it; its input's name for an input.
    """

    __slots__ = ("dtype", "index", "name", "node", "shape")
    __array_ufunc__ = None

    def __init__(self, shape: Shape, dtype: str, node: Node, index: int, name: str) -> None:
        self.shape, self.dtype, self.node, self.index, self.name = tuple(shape), dtype, node, index, name

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __repr__(self) -> str:
        return f"<SymbolicTensor {self.name} shape={self.shape} dtype={self.dtype}>"

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"{self!r} stands for an array in a graph and has no values; layers take it, NumPy does not")

    def __bool__(self) -> bool:
        raise TypeError(f"{self!r} has no values, so it is neither true nor false")

    def __iter__(self) -> Any:
        raise TypeError(f"{self!r} cannot be iterated over")

    def __len__(self) -> int:
        raise TypeError(f"{self!r} has no length; its shape is {self.shape}")

    def __add__(self, other: Any) -> Any:
        return operators["add"](self, other)

    def __radd__(self, other: Any) -> Any:
        return operators["add"](other, self)

    def __sub__(self, other: Any) -> Any:
        return operators["subtract"](self, other)

    def __rsub__(self, other: Any) -> Any:
        return operators["subtract"](other, self)

    def __mul__(self, other: Any) -> Any:
        return operators["multiply"](self, other)

    def __rmul__(self, other: Any) -> Any:
        return operators["multiply"](other, self)

    def __truediv__(self, other: Any) -> Any:
        return operators["divide"](self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return operators["divide"](other, self)

    def __pow__(self, other: Any) -> Any:
        return operators["power"](self, other)

    def __neg__(self) -> Any:
        return operators["multiply"](self, -1)

    def __getitem__(self, index: Any) -> Any:
        return operators["slice"](self, index)


class Node:
    """One call of a layer on symbolic tensors.

    Attributes:
        layer: what was called.
        inputs: what it was called on: a tensor, a list of them, or an empty list (inputs of the graph).
        outputs: what came back: a tensor or a list, as the layer's `output_shape` has it.
        mask: the mask given with the call: a tensor, a list like `inputs`, or None (then masks travel by themselves).
        training: the `training` given with the call; None leaves it to the run of the graph.
    """

    __slots__ = ("inputs", "layer", "mask", "outputs", "training")

    def __init__(
        self, layer: Any, inputs: Any, shapes: Any, dtype: str, *, mask: Any = None, training: bool | None = None
    ) -> None:
        self.layer, self.inputs, self.mask, self.training = layer, inputs, mask, training
        if isinstance(shapes, list):
            self.outputs: Any = [SymbolicTensor(s, dtype, self, i, layer.name) for i, s in enumerate(shapes)]
        else:
            self.outputs = SymbolicTensor(shapes, dtype, self, 0, layer.name)

    @property
    def parents(self) -> list[Node]:
        """The nodes whose outputs this one needs."""
        return [t.node for t in as_list(self.inputs) + as_list(self.mask) if t is not None]

    def __repr__(self) -> str:
        return f"<Node {self.layer.name}: {as_list(self.inputs)} -> {as_list(self.outputs)}>"


def as_list(value: Any) -> list[Any]:
    """What `value` holds if it is a list or tuple; nothing for None; else the one value."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def is_symbolic(value: Any) -> bool:
    return isinstance(value, SymbolicTensor)


def topological(outputs: Iterable[SymbolicTensor], inputs: Iterable[SymbolicTensor] = ()) -> list[Node]:
    """The nodes that `outputs` depend on, each after those it needs.

    Args:
        outputs: where to start.
        inputs: where to stop: nothing above the nodes of these tensors is visited. Those nodes are in the result.
    """
    stop = {t.node for t in inputs}
    order: dict[Node, None] = {}
    waiting = [t.node for t in reversed(list(outputs))]
    while waiting:
        node = waiting[-1]
        missing = [] if node in stop else [p for p in node.parents if p not in order]
        if missing:
            waiting.extend(reversed(missing))
        else:
            order[waiting.pop()] = None
    return list(order)
