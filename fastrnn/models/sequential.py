"""`Sequential`: a stack of layers, each taking what the one before it gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .. import graph, registry
from ..graph import SymbolicTensor
from ..layers.input import Input, InputLayer
from ..layers.layer import Layer
from ..registry import register
from .compiling import NO_PLANS
from .model import Layout, Model
from .ports import as_array, is_array


@register("model")
class Sequential(Model):
    """A stack of layers of one input and one output each.

        model = Sequential([Input((None, 8)), LSTM(32), Dense(1)])

    With an `Input` first, weights exist at once. Without, the stack is built by `build(shape)` or by the first data it
    is called on or trained with.

    Args:
        layers: the layers, from the input on.
        trainable: False freezes them.
        name: of the model.

    Raises:
        ValueError: if a layer does not fit on the one before it, or two have the same name.
    """

    def __init__(self, layers: Iterable[Any] | None = None, trainable: bool = True, name: str | None = None) -> None:
        Layer.__init__(self, name=name)
        self._start_training_state()
        self._stack: list[Layer] = []
        self._top: SymbolicTensor | None = None
        self._layout: Layout | None = None
        for layer in layers or ():
            self.add(layer)
        if not trainable:
            self.trainable = False

    def add(self, layer: Any, rebuild: bool = True) -> None:
        """Puts a layer, or an `Input`, on top.

        Raises:
            TypeError: if it is neither.
            ValueError: if it does not fit, or its name is taken; the stack is as it was then.
        """
        if graph.is_symbolic(layer) and isinstance(layer.node.layer, InputLayer):
            layer = layer.node.layer
        if not isinstance(layer, Layer):
            hint = f"; write {layer.__name__}(...)" if isinstance(layer, type) else ""
            raise TypeError(f"model {self.name!r} is made of layers; received {layer!r}{hint}")
        if any(other.name == layer.name for other in self._stack):
            raise ValueError(f"model {self.name!r} has a layer {layer.name!r} already; give the new one another name")
        if isinstance(layer, InputLayer) and self._stack:
            raise ValueError(f"model {self.name!r} has layers already: Input comes first")
        self._refuse_if_used("add")
        start = layer.output if isinstance(layer, InputLayer) else self._top
        if start is None and not self._stack and isinstance(layer, Model) and layer.built:
            start = Input(batch_shape=layer.inputs[0].shape, dtype=layer.inputs[0].dtype)
            self._stack.append(start.node.layer)
        self._top = start if start is None or isinstance(layer, InputLayer) else _one(layer, layer(start))
        self._stack.append(layer)
        self._changed()

    def pop(self, rebuild: bool = True) -> Layer:
        """Takes the top layer off and returns it.

        Raises:
            ValueError: if there is none.
        """
        if not self.layers:
            raise ValueError(f"model {self.name!r} has no layers to take off")
        self._refuse_if_used("pop")
        layer = self._stack.pop()
        if self._top is not None:
            self._top = self._top.node.inputs
        self._changed()
        return layer

    def _refuse_if_used(self, method: str) -> None:
        if self._nodes:
            raise ValueError(
                f"model {self.name!r} is part of another model's graph: {method} comes before it is called"
            )

    def _changed(self) -> None:
        self._layout = None
        self._forget_plans()
        self.built = self._top is not None and bool(self.layers)

    def build(self, shape: Any = None) -> None:
        """Builds the stack for inputs of `shape`, (batch, ...) with None where any size will do."""
        if not self._stack:
            raise ValueError(f"model {self.name!r} has no layers: add some first")
        if self._top is not None:
            return
        if not isinstance(shape, (tuple, list)) or not shape:
            raise ValueError(
                f"model {self.name!r} must be built with the shape of its input, (batch, ...); received {shape!r}"
            )
        self._stand_on(Input(batch_shape=tuple(shape)))

    def _stand_on(self, start: SymbolicTensor) -> None:
        """Calls all layers, one on the other, from `start` on; all or none."""
        top, calls = start, [len(layer._nodes) for layer in self._stack]
        try:
            for layer in self._stack:
                top = _one(layer, layer(top))
        except BaseException:
            for layer, count in zip(self._stack, calls, strict=True):
                del layer._nodes[count:]
            raise
        self._stack.insert(0, start.node.layer)
        self._top = top
        self._changed()

    def _build_for(self, inputs: Any) -> None:
        """Builds for data: with any batch size, and for any number of steps if the layers allow that."""
        if self._top is not None:
            return
        if isinstance(inputs, Mapping) or (
            isinstance(inputs, (list, tuple)) and len(inputs) == 1 and is_array(inputs[0])
        ):
            inputs = next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs[0]
        array = as_array(inputs, f"the input of model {self.name!r}")
        if array.ndim == 0 or array.size == 0:
            raise ValueError(f"the input of model {self.name!r} is empty: received shape {array.shape}")
        exact = (None, *array.shape[1:]) if array.ndim > 1 else (None, 1)
        try:
            self._stand_on(Input(batch_shape=(None, None, *exact[2:])))
        except ValueError:
            self._stand_on(Input(batch_shape=exact))

    def _lay_out(self) -> Layout:
        if not self.built:
            what = "is not built yet: add an Input first, or call it on data" if self.layers else "has no layers yet"
            raise ValueError(f"model {self.name!r} {what}")
        return super()._lay_out()

    @property
    def layers(self) -> list[Layer]:
        """The layers of the stack, without the `Input`."""
        return self._stack[1:] if self._stack and isinstance(self._stack[0], InputLayer) else list(self._stack)

    @property
    def sublayers(self) -> list[Layer]:
        return self.layers if hasattr(self, "_stack") else []

    @property
    def input(self) -> SymbolicTensor:
        if self._top is None:
            raise AttributeError(f"model {self.name!r} has no input yet: add an Input first, or call it on data")
        return self._stack[0].output

    @property
    def output(self) -> SymbolicTensor:
        if self._top is None:
            raise AttributeError(f"model {self.name!r} has no output yet: add an Input first, or call it on data")
        return self._top

    def get_config(self) -> dict[str, Any]:
        with registry.sharing():
            layers = [registry.serialize(layer) for layer in self._stack]
        return {"name": self.name, "trainable": self.trainable, "layers": layers}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Any:
        with registry.sharing():
            layers = [registry.deserialize(c, custom_objects) for c in config["layers"]]
        model = cls(layers, name=config["name"])
        if not config["trainable"]:
            model.trainable = False
        return model

    def __getstate__(self) -> dict[str, Any]:
        state = Layer.__getstate__(self)
        state.update(NO_PLANS, _layout=None, _top=None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._stack and isinstance(self._stack[0], InputLayer):
            start = InputLayer.from_config(self._stack.pop(0).get_config())
            self._stand_on(start.output)


def _one(layer: Layer, made: Any) -> SymbolicTensor:
    if not graph.is_symbolic(made):
        raise ValueError(
            f"{layer.title} gives several outputs, which do not fit in a Sequential; Model(inputs, outputs) takes them"
        )
    return made
