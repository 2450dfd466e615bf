"""`Model`: a graph of layers with named inputs and outputs, that is trained, used, copied and saved as one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import graph, masks, params, registry, saving
from ..graph import Node, SymbolicTensor, as_list
from ..layers.layer import Layer
from ..registry import register
from ..states import Context, StateStore
from .compiling import NO_PLANS
from .graph_config import describe, from_inputs, replay
from .network import Network
from .ports import Ports, flatten, is_array, pack
from .streaming import Stepper, stepper
from .summary import summary
from .training import Trainable

Array = np.ndarray
OVERRIDES = (
    "call",
    "forward",
    "backward",
    "train_step",
    "test_step",
    "predict_step",
    "compute_loss",
    "compute_metrics",
)


class Layout(NamedTuple):
    """The graph of a model, made to be run and to be fed, and all of its layers, those inside others included."""

    network: Network
    everything: list[Layer]
    inputs: Ports
    outputs: Ports


@register("model", "functional")
class Model(Layer, Trainable):
    """Layers between `inputs` and `outputs`.

        x = Input((None, 8))
        y = Dense(1)(LSTM(32)(x))
        model = Model(x, y)

    A model is a layer: it can be called, on arrays or to become part of another model, and shares its layers with every
    other model they are in. Models pickle and deepcopy.

    Args:
        inputs: symbolic tensors: one, a list, or a dict. Tensors from inside a graph give a model of what follows them.
        outputs: symbolic tensors that depend on nothing but `inputs`, in the same forms.
        name: of the model.
        trainable: False freezes all layers.

    Attributes:
        layers: every layer once, the farthest from the outputs first.
        inputs, outputs: symbolic tensors as flat lists; `input`, `output` in the form they were given.
        input_names, output_names: of the layers that give them.

    Raises:
        ValueError: if the outputs need other inputs, or layers have equal names.
        TypeError: if inputs or outputs are no symbolic tensors.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # of a model, only its layers take part in a step

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not cls.__module__.startswith(f"{__package__}."):
            own = [name for name in OVERRIDES if name in vars(cls)]
            if own:
                raise TypeError(
                    f"{cls.__name__} overrides {', '.join(own)}, which models do not offer: build Model(inputs, "
                    "outputs) from layers (a Layer of your own defines forward and backward), and give compile a loss "
                    "of your own"
                )

    def __init__(
        self, inputs: Any = None, outputs: Any = None, name: str | None = None, trainable: bool = True
    ) -> None:
        if inputs is None or outputs is None:
            raise TypeError(
                f"{type(self).__name__} is made of a graph: Model(inputs, outputs); Sequential(layers) is a stack"
            )
        super().__init__(name=name)
        for argument, structure in (("inputs", inputs), ("outputs", outputs)):
            for leaf in flatten(structure):
                if not graph.is_symbolic(leaf):
                    raise TypeError(
                        f"Model: {argument} must be symbolic tensors, as Input() and layers give; received {leaf!r}"
                    )
        self._start_training_state()
        self._connect_graph(*from_inputs(inputs, outputs))
        if not trainable:
            self.trainable = False

    def _connect_graph(self, inputs: Any, outputs: Any) -> None:
        """Takes the graph between `inputs` and `outputs` as the model's."""
        self._inputs, self._outputs = inputs, outputs
        self._layout: Layout | None = None
        self._layout = self._lay_out()
        self.built = True

    def _lay_out(self) -> Layout:
        """Makes the steps of the graph, and gathers those weights in one block that still lie alone."""
        network = Network(self.inputs, self.outputs)
        for layer in network.layers:
            if isinstance(layer, Model):
                layer.label(f"{layer.name}/")
        params.adopt(w for layer in network.layers for w in layer.weights)
        self._forget_plans()
        who = f"model {self.name!r}"
        inputs = Ports(who, "input", self.input, _names(self.input, self.input_names))
        return Layout(
            network,
            _everything(network.layers),
            inputs,
            Ports(who, "target", self.output, _names(self.output, self.output_names)),
        )

    # the graph

    @property
    def layout(self) -> Layout:
        if self._layout is None:
            self._layout = self._lay_out()
        return self._layout

    @property
    def network(self) -> Network:
        """The steps from the inputs to the outputs."""
        return self.layout.network

    @property
    def ports(self) -> tuple[Ports, Ports]:
        """What turns the data of users into arrays: for the inputs, for the targets."""
        return self.layout.inputs, self.layout.outputs

    @property
    def layers(self) -> list[Layer]:
        return list(self.network.layers)

    @property
    def sublayers(self) -> list[Layer]:
        return self.layers if getattr(self, "built", False) else []

    @property
    def input(self) -> Any:
        return self._inputs

    @property
    def output(self) -> Any:
        return self._outputs

    @property
    def inputs(self) -> list[SymbolicTensor]:
        return flatten(self.input)

    @property
    def outputs(self) -> list[SymbolicTensor]:
        return flatten(self.output)

    @property
    def input_names(self) -> list[str]:
        return [t.name for t in self.inputs]

    @property
    def output_names(self) -> list[str]:
        return [t.name for t in self.outputs]

    @property
    def input_shape(self) -> Any:
        return pack(self.input, iter([t.shape for t in self.inputs]))

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """The layer of that name, or number `index` of `layers`.

        Raises:
            ValueError: if there is none, listing those there are.
        """
        layers = self.layers
        if (name is None) == (index is None):
            raise ValueError("get_layer takes either a name or an index")
        if index is not None:
            if not -len(layers) <= index < len(layers):
                raise ValueError(f"model {self.name!r} has {len(layers)} layers; received index={index}")
            return layers[index]
        for layer in layers:
            if layer.name == name:
                return layer
        raise ValueError(
            f"model {self.name!r} has no layer {name!r}; it has {', '.join(str(layer.name) for layer in layers)}"
        )

    def all_layers(self) -> list[Layer]:
        """The layers, those inside them, and so on, each once."""
        return list(self.layout.everything) if self.built else _everything(self.layers)

    # a model as a layer

    def __call__(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Computes on arrays; on symbolic tensors, becomes part of their graph.

        Args:
            inputs: in the form of the model's inputs: one, a list, or a dict by name.
            training: whether dropout drops.
            mask: one, or one per input.
        """
        leaves = [inputs] if is_array(inputs) else flatten(inputs)
        if not any(graph.is_symbolic(leaf) for leaf in leaves):
            return self._compute(inputs, mask, training)
        tensors = [inputs] if not self.built else self.ports[0].match(inputs, "the call")
        if not all(graph.is_symbolic(t) for t in tensors):
            raise TypeError(f"{self.title} was called on symbolic tensors and arrays at once; give it either")
        made = self._connect(tensors if len(tensors) > 1 else tensors[0], mask, training)
        return self.packed(as_list(made))

    def packed(self, outputs: Sequence[Any]) -> Any:
        """One entry per output, in the form of the model's outputs; a list of one is that one."""
        if len(outputs) == 1 and not isinstance(self.output, Mapping):
            return outputs[0]
        return pack(self.output, iter(outputs))

    def _compute(self, inputs: Any, mask: Any, training: bool | None) -> Any:
        self._build_for(inputs)
        arrays = self.ports[0].inputs(inputs)
        if mask is None and not training:
            return self.packed(self._infer(arrays))
        given = [*as_list(mask), *[None] * len(arrays)]
        known = [masks.check(m, a.shape, f"mask of {self.title}") for m, a in zip(given, arrays, strict=False)]
        plan = self.network.plan(Context(training=bool(training), store=self._store))
        return self.packed(self.network.forward(arrays, known, plan).outputs)

    def _build_for(self, inputs: Any) -> None:
        """Builds a model whose inputs are not known yet from data; see `Sequential`."""

    def check_shape(self, shape: Any) -> None:
        if not self.built:
            return
        shapes = shape if isinstance(shape, list) else [shape]
        if len(shapes) != len(self.inputs):
            raise ValueError(
                f"model {self.name!r} has {len(self.inputs)} inputs; received {len(shapes)} of shapes {shapes}"
            )
        for tensor, given in zip(self.inputs, shapes, strict=True):
            fits = len(given) == len(tensor.shape)
            if not fits or any(None not in (n, m) and n != m for n, m in zip(given, tensor.shape, strict=True)):
                raise ValueError(
                    f"input {tensor.name!r} of model {self.name!r} expects shape {tensor.shape}; received {given}"
                )

    def output_shape(self, shape: Any) -> Any:
        shapes = self.network.shapes(shape if isinstance(shape, list) else [shape])
        return shapes if len(shapes) > 1 else shapes[0]

    def output_dtype(self, dtype: Any) -> str:
        return self.outputs[0].dtype

    def cast(self, x: Any) -> Any:
        arrays = [self.as_array(v) for v in as_list(x)]
        return arrays if isinstance(x, (list, tuple)) else arrays[0]

    def forward(self, x: Any, mask: Any, context: Context) -> tuple[Any, Any]:
        run = self.network.forward(as_list(x), as_list(mask) or None, self.network.plan(context))
        return run.outputs if len(run.outputs) > 1 else run.outputs[0], run if context.record else None

    def backward(self, saved: Any, dy: Any) -> Any:
        dx = self.network.backward(saved, dy if isinstance(dy, list) else [dy])
        return dx if len(dx) > 1 else dx[0]

    def output_mask(self, x: Any, mask: Any) -> Any:
        plan = self.network.plan(Context(store=StateStore()))
        found = self.network.forward(as_list(x), as_list(mask) or None, plan).masks
        return found if len(found) > 1 else found[0]

    def stepper(self, batch_size: int = 1) -> Stepper:
        """What takes sequences step by step: for signals that arrive as they are computed on, and for generating.

        For chains of recurrent layers that go forwards, Embedding, Dense, activations, Dropout, Masking, arithmetic
        with numbers, and TimeDistributed around any other layer. See `Stepper`.

        Args:
            batch_size: number of streams that go on together.

        Raises:
            ValueError: if the model cannot be taken step by step, naming the layer, or is not built.
        """
        return stepper(self, batch_size)

    def label(self, prefix: str = "") -> None:
        """Sets the paths of all layers: their names, behind `prefix`, the names of the models and layers around."""
        self.path = prefix.rstrip("/") or str(self.name)
        for layer in self.sublayers:
            layer.label(f"{prefix}{layer.name}/" if isinstance(layer, Model) else prefix)

    def summary(
        self, line_length: int | None = None, positions: Any = None, print_fn: Any = None, **options: Any
    ) -> None:
        """Prints the layers with the shapes of their outputs and their numbers of weights; see `models.summary`."""
        summary(self, line_length, positions, print_fn, **options)

    # files and copies

    def save(self, filepath: Any, overwrite: bool = True) -> None:
        """Writes the whole model to a .safetensors file, from which `models.load_model` brings it back."""
        saving.save_model(self, filepath, overwrite)

    def save_weights(self, filepath: Any, overwrite: bool = True) -> None:
        """Writes the weights to a .safetensors file."""
        saving.save_weights(self, filepath, overwrite)

    def load_weights(self, filepath: Any, skip_mismatch: bool = False) -> None:
        """Takes the weights from a file written by `save` or `save_weights`."""
        saving.load_weights(self, filepath, skip_mismatch)

    def to_json(self, **options: Any) -> str:
        """The configuration as JSON, which `models.model_from_json` makes a model of; `options` go to `json.dumps`."""
        return json.dumps(registry.serialize(self), **options)

    def get_config(self) -> dict[str, Any]:
        layers, nodes = self.layers, self._numbered_nodes()
        with registry.sharing():
            written = [registry.serialize(layer) for layer in layers]
        return {
            "name": self.name,
            "trainable": self.trainable,
            "layers": written,
            **describe(nodes, layers, self.input, self.output),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Any:
        with registry.sharing():
            layers = [registry.deserialize(c, custom_objects) for c in config["layers"]]
        model = cls(*replay(config, layers), name=config["name"])
        if not config["trainable"]:
            model.trainable = False
        return model

    def _numbered_nodes(self) -> list[Node]:
        """The nodes of the graph, inputs that no output needs included."""
        return list(dict.fromkeys([*(t.node for t in self.inputs), *self.network.nodes]))

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        state.update(NO_PLANS, _layout=None, _inputs=None, _outputs=None)
        if self.built:
            layers = self.layers
            state["_copied"] = layers, describe(self._numbered_nodes(), layers, self.input, self.output)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        copied = state.pop("_copied", None)
        self.__dict__.update(state)
        if copied is not None:
            layers, description = copied
            self._connect_graph(*replay(description, layers))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name!r}, {len(self.layers) if self.built else 0} layers>"


def model_from_json(text: str, custom_objects: Mapping[str, Any] | None = None) -> Model:
    """The model that `Model.to_json` described, with new weights."""
    return registry.deserialize(json.loads(text), custom_objects)


def clone_model(model: Model) -> Model:
    """A model of the same configuration with layers and weights of its own, not compiled."""
    return type(model).from_config(model.get_config())


def _everything(layers: Sequence[Layer]) -> list[Layer]:
    found: dict[Layer, None] = {}
    waiting = list(reversed(layers))
    while waiting:
        layer = waiting.pop()
        if layer not in found:
            found[layer] = None
            waiting.extend(reversed(layer.sublayers))
    return list(found)


def _names(structure: Any, layers: list[str]) -> list[str]:
    """What users call the tensors of `structure`: the keys of a dict, else their layers' names, made to differ."""
    if isinstance(structure, Mapping) and len(structure) == len(layers):
        return sorted(structure)
    return [name if name not in layers[:i] else f"{name}_{layers[:i].count(name)}" for i, name in enumerate(layers)]
