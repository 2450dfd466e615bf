"""The layer protocol: what every layer is, and what calling one does.

A layer is its configuration (dataclass fields), its weights, and four functions of shapes and arrays:

    build(shape)                          declares the weights
    output_shape(shape)                   shape of what comes out
    forward(x, mask, context) -> y, saved
    backward(saved, dy)       -> dx       adds the gradients of the weights into `Parameter.gradient`

`saved` is whatever backward needs. Nothing of a call stays on the layer: it may be called twice before going backward,
shared by several models, and run in several threads at once.

An array goes with a mask of shape (batch, time) or None. A layer of several inputs gets lists x = [x, h, c],
mask = [mask, None, None], and gives dx as a list; one of several outputs gives y and takes dy as lists, in which None
stands for "no gradient".

Losses that are fused with the last activation (softmax with crossentropy) hand backward a `BeforeActivation` instead of
dy: the gradient of what went into the activation. Layers that take it say so by `final_activation`. If the context says
`early`, such a layer may in turn give the loss a `BeforeActivation` for y; it is written over.
"""

from __future__ import annotations

import inspect
import itertools
from collections import defaultdict
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

import numpy as np

from .. import config, graph, initializers, masks, registry
from ..params import FLOAT_DTYPES, Parameter, trainable_changed, unique
from ..registry import Watched, register, snake_case
from ..states import Context, StateStore
from . import building

Array = np.ndarray
Shape = tuple[int | None, ...]
DTYPES = {name: np.dtype(name) for name in FLOAT_DTYPES}
INPUT_ARGUMENTS = ("input_shape", "batch_input_shape", "input_dim", "input_length")  # of older Keras, for any layer

_numbers: defaultdict[str, Any] = defaultdict(itertools.count)


def clear_session() -> None:
    """Starts the automatic names ("dense", "dense_1", ...) anew."""
    _numbers.clear()


def unique_name(prefix: str) -> str:
    """`prefix` for the first who asks, then `prefix_1`, `prefix_2`, ..."""
    number = next(_numbers[prefix])
    return f"{prefix}_{number}" if number else prefix


@dataclass(slots=True)
class BeforeActivation:
    """The input of a layer's final activation in place of its output, or the gradient of that input."""

    values: Array


@register("layer")
@dataclass(eq=False, repr=False)
class Layer(Watched):
    """Base class of all layers.

    A layer of one's own overrides `build`, `forward`, `backward` and, if the shape changes, `output_shape`:

        class Scale(Layer):
            def build(self, shape):
                self.scale = self.add_weight("scale", shape[-1:], initializer="ones")

            def forward(self, x, mask, context):
                return x * self.scale.values, x

            def backward(self, saved, dy):
                self.scale.gradient += (saved * dy).reshape(-1, self.scale.size).sum(0)
                return dy * self.scale.values

    With arguments it is a dataclass (`@dataclass(eq=False, repr=False)`, checks in `__post_init__` after the base
    class'), or it has an `__init__` that calls `super().__init__(name=name)` and a `get_config`.

    Args:
        name: unique in a model; by default the class' name in snake case, numbered.
        dtype: "float32" or "float64"; None is `config.floatx()`.
        trainable: whether optimizers change the weights. Setting it later sets it for all sublayers.
        activity_regularizer: penalty on the output, divided by the batch size.

    Attributes:
        expects: the input's axes as users know them, "(batch, time, features)" or "(batch, ..., features)". Other
            ranks are refused. An axis called "features" must be known when the layer is built and the same ever after.
        takes_states: whether states may follow the input, in a list or as `initial_state`.
        keeps_integers: whether integers stay integers; for layers that only move values about.
        stateful: whether calls start from the states in which the last one ended.
        path: the name with the names of the layers around it: "bidirectional/forward".
        random_seed: of the layer's random stream; fixed when the layer is built.
        resets: how often `reset_state` was called.
    """

    _: KW_ONLY
    name: str | None = None
    dtype: Any = field(default=None, repr=False)
    trainable: bool = True
    activity_regularizer: Any = None

    expects: ClassVar[str] = ""
    takes_states: ClassVar[bool] = False
    keeps_integers: ClassVar[bool] = False
    stateful: ClassVar[bool] = False

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Tells those who write `LSTM(32, input_shape=(10, 3))` what to write instead."""
        given = [name for name in INPUT_ARGUMENTS if name in kwargs and name not in inspect.signature(cls).parameters]
        if given:
            raise TypeError(
                f"{cls.__name__} takes no {given[0]}: an Input comes before the layer, as in "
                f"Sequential([Input(shape), {cls.__name__}(...)])"
            )
        return super().__new__(cls)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "build" in vars(cls):
            cls.build = building.once(cls.build)  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        who = type(self).__name__
        if self.name is None:
            self.name = unique_name(snake_case(who))
        if not isinstance(self.name, str) or not self.name or "/" in self.name:
            raise ValueError(f"{who}: name must be a string without '/'; received {self.name!r}")
        self.dtype = config.float_dtype(self.dtype, f"{who}: dtype")
        self.activity_regularizer = registry.get("regularizer", self.activity_regularizer)
        self.path = self.name
        self.built = False
        self.build_shape: Any = None
        self.random_seed: int | None = None
        self.resets = 0
        self._weights: list[Parameter] = []
        self._nodes: list[graph.Node] = []
        self._store = StateStore()

    # what layers define

    def build(self, shape: Any) -> None:
        """Declares the weights with `add_weight`, for inputs of `shape` (a list of shapes for several inputs)."""

    def output_shape(self, shape: Any) -> Any:
        """Shape of the output, or a list of them, from the shape or shapes of the input. Axes may be None."""
        return shape

    def output_dtype(self, dtype: Any) -> str:
        """dtype of the output from that of the input, a string or a list of them."""
        if self.keeps_integers and all(np.dtype(d).kind in "iub" for d in graph.as_list(dtype)):
            return np.result_type(*graph.as_list(dtype)).name
        return self.dtype

    def output_mask(self, x: Any, mask: Any) -> Any:
        """Mask of the output: None, an array, or for several outputs a list. By default one mask passes on."""
        return None if isinstance(mask, list) else mask

    def forward(self, x: Any, mask: Any, context: Context) -> tuple[Any, Any]:
        """The output, and what `backward` needs to know."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(self, x, mask, context) -> (y, saved)")

    def backward(self, saved: Any, dy: Any) -> Any:
        """The gradient for the input; gradients of the weights are added to `Parameter.gradient`."""
        raise NotImplementedError(f"{type(self).__name__} must define backward(self, saved, dy) -> dx to be trained")

    @property
    def final_activation(self) -> Any:
        """The activation that ends the layer, if `backward` takes a `BeforeActivation` for it, else None."""
        return None

    def cast(self, x: Any) -> Any:
        """Inputs as `forward` wants them: C-contiguous, of the layer's dtype, or of integers where it keeps those."""
        if type(x) is np.ndarray and x.dtype is DTYPES[self.dtype] and x.flags.c_contiguous:
            return x
        arrays = [self.as_array(v) for v in (x if isinstance(x, (list, tuple)) else [x])]
        dtype = Layer.output_dtype(self, [a.dtype.name for a in arrays])
        arrays = [np.asarray(a, dtype, order="C") for a in arrays]
        return arrays if isinstance(x, (list, tuple)) else arrays[0]

    def check_shape(self, shape: Any) -> None:
        """Raises ValueError, naming what is expected, if inputs of `shape` do not fit. Part of every call."""
        if isinstance(shape, list):
            if not self.takes_states:
                if self.expects:
                    raise ValueError(f"{self.title} expects one input; received {len(shape)} of shapes {shape}")
                return
            shape = shape[0]
        axes = self.expects.strip("()").split(", ")
        fits = len(shape) >= len(axes) - 1 if "..." in axes else len(shape) == len(axes)
        if self.expects and not fits:
            raise ValueError(f"{self.title} expects input of shape {self.expects}; received {shape}")
        if axes[-1] == "features":
            if shape[-1] is None:
                raise ValueError(f"{self.title} must know the number of features, the last axis; received {shape}")
            built = self.build_shape[0] if isinstance(self.build_shape, list) else self.build_shape
            if self.built and shape[-1] != built[-1]:
                raise ValueError(f"{self.title} was built for {built[-1]} features; received input of shape {shape}")

    # what layers use

    @property
    def title(self) -> str:
        """How errors name the layer: "Dense 'dense_1'"."""
        return f"{type(self).__name__} {self.name!r}"

    def add_weight(
        self,
        name: str,
        shape: tuple[int, ...],
        *,
        initializer: Any = "glorot_uniform",
        regularizer: Any = None,
        constraint: Any = None,
        trainable: bool = True,
        dtype: str | None = None,
    ) -> Parameter:
        """Makes a weight; `weights` lists them in the order in which they were made."""
        if any(w.name == name for w in self._weights):
            raise ValueError(f"{self.title} has a weight {name!r} already")
        dtype = dtype or self.dtype
        weight = Parameter(
            name,
            initializers.initial_values(initializer, shape, dtype, what=f"{self.name}/{name}"),
            dtype,
            path=f"{self.path}/{name}",
            trainable=trainable,
            regularizer=registry.get("regularizer", regularizer),
            constraint=registry.get("constraint", constraint),
        )
        self._weights.append(weight)
        return weight

    def as_array(self, value: Any) -> Array:
        """`value` as an array of numbers. Raises ValueError for text, objects and ragged lists."""
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise ValueError(f"{self.title} received lists of unequal lengths; pad_sequences fills them up") from error
        if array.dtype.kind not in "fiub":
            raise ValueError(f"{self.title} expects numbers; received an array of {array.dtype}")
        return array

    # calling

    def __call__(self, inputs: Any, initial_state: Any = None, *, mask: Any = None, training: Any = None) -> Any:
        """Computes on arrays; on symbolic tensors, makes a node of a graph and returns its symbolic outputs.

        Args:
            inputs: an array, nested lists of numbers, a symbolic tensor, or a list of arrays or of tensors.
            initial_state: a state or a list of states, for layers that take them.
            mask: (batch, time), True where a step counts; for several inputs one mask each, or one for the first.
            training: whether dropout drops. On symbolic tensors None leaves it to the model's run, and so does a mask.

        Raises:
            ValueError: if the inputs do not fit the layer.
            TypeError: if arrays and symbolic tensors are mixed, or the layer takes no states.
        """
        if "_weights" not in vars(self):
            raise RuntimeError(f"{type(self).__name__}.__init__ must call super().__init__()")
        several = _is_several(inputs)
        x = list(inputs) if several else [inputs]
        if initial_state is not None:
            if not self.takes_states:
                raise TypeError(f"{self.title} takes no initial_state")
            x, several = x + (list(initial_state) if _is_several(initial_state) else [initial_state]), True
        x = [v if graph.is_symbolic(v) else self.as_array(v) for v in x]
        if isinstance(mask, (list, tuple)) and all(m is None for m in mask):
            mask = None
        mask = list(mask) if several and _is_several(mask) else [mask] + [None] * (len(x) - 1)
        if len(mask) != len(x):
            raise ValueError(f"{self.title} expects a mask or None for each of {len(x)} inputs; received {len(mask)}")
        symbolic = {graph.is_symbolic(v) for v in x + [m for m in mask if m is not None]}
        if len(symbolic) > 1:
            raise TypeError(f"{self.title} was called on symbolic tensors and arrays at once; give it either")
        call = self._connect if symbolic.pop() else self._compute
        return call(x, mask, training) if several else call(x[0], mask[0], training)

    def _connect(self, inputs: Any, mask: Any, training: bool | None) -> Any:
        several = isinstance(inputs, list)
        shape = [t.shape for t in inputs] if several else inputs.shape
        self.check_shape(shape)
        self.build(shape)
        dtype = self.output_dtype([t.dtype for t in inputs] if several else inputs.dtype)
        mask = None if several and all(m is None for m in mask) else mask
        node = graph.Node(self, inputs, self.output_shape(shape), dtype, mask=mask, training=training)
        self._nodes.append(node)
        return node.outputs

    def _compute(self, inputs: Any, mask: Any, training: bool | None) -> Any:
        x = self.cast(inputs)
        shape: Any = [v.shape for v in x] if isinstance(x, list) else x.shape
        self.check_shape(shape)
        for s in shape if isinstance(x, list) else [shape]:
            if 0 in s:
                raise ValueError(f"{self.title} received an empty array of shape {s}")
        self.build(shape)
        if isinstance(x, list):
            mask = [masks.check(m, s, f"{self.title}: mask") for m, s in zip(mask, shape, strict=True)]
        else:
            mask = masks.check(mask, shape, f"{self.title}: mask")
        y, _ = self.forward(x, mask, Context(training=bool(training), store=self._store))
        return y

    @property
    def input(self) -> Any:
        """The symbolic inputs of the layer's first call in a graph."""
        return self._first_node().inputs

    @property
    def output(self) -> Any:
        """The symbolic outputs of the layer's first call in a graph."""
        return self._first_node().outputs

    def _first_node(self) -> graph.Node:
        if not self._nodes:
            raise AttributeError(f"{self.title} was never called on a symbolic tensor: it has no input or output")
        return self._nodes[0]

    # weights and states

    @property
    def sublayers(self) -> list[Layer]:
        """The layers inside this one: attributes that are layers or lists of layers, in order."""
        held = [v for value in vars(self).values() for v in (value if isinstance(value, (list, tuple)) else [value])]
        return list(dict.fromkeys(v for v in held if isinstance(v, Layer)))

    @property
    def weights(self) -> list[Parameter]:
        """The layer's own weights, in the order they were made, then those of its sublayers."""
        return unique([*self._weights, *(w for layer in self.sublayers for w in layer.weights)])

    @property
    def trainable_weights(self) -> list[Parameter]:
        if not self.trainable:
            return []
        own = [w for w in self._weights if w.trainable]
        return unique([*own, *(w for layer in self.sublayers for w in layer.trainable_weights)])

    @property
    def non_trainable_weights(self) -> list[Parameter]:
        trainable = {id(w) for w in self.trainable_weights}
        return [w for w in self.weights if id(w) not in trainable]

    def get_weights(self) -> list[Array]:
        """Copies of the weights' values, in the order of `weights`."""
        return [w.numpy() for w in self.weights]

    def set_weights(self, values: Any) -> None:
        """Writes all weights, or none.

        Raises:
            ValueError: if number or shapes differ from `weights`.
        """
        arrays, weights = [np.asarray(v) for v in values], self.weights
        if len(arrays) != len(weights):
            raise ValueError(f"{self.title} has {len(weights)} weights; received {len(arrays)} arrays")
        for weight, array in zip(weights, arrays, strict=True):
            if array.shape != weight.shape:
                raise ValueError(f"weight {weight.path!r} has shape {weight.shape}; received shape {array.shape}")
        for weight, array in zip(weights, arrays, strict=True):
            weight.assign(array)

    def count_params(self) -> int:
        """The number of values in all weights."""
        if not self.built:
            raise ValueError(f"{self.title} has no weights yet: call it, or build(shape), first")
        return sum(w.size for w in self.weights)

    def label(self, prefix: str = "") -> None:
        """Sets `path`, of the layer, its weights and its sublayers, by where the layer stands."""
        self.path = f"{prefix}{self.name}"
        for weight in self._weights:
            weight.path = f"{self.path}/{weight.name}"
        for layer in self.sublayers:
            layer.label(f"{self.path}/")

    def reset_state(self) -> None:
        """Makes the next call start from zero states, in whichever model. Sublayers too."""
        self.resets += 1
        for layer in self.sublayers:
            layer.reset_state()

    # configuration and copies

    def get_config(self) -> dict[str, Any]:
        own_init = next(c for c in type(self).__mro__ if "__init__" in vars(c))
        if "__dataclass_params__" not in vars(own_init) and type(self).get_config is Layer.get_config:
            raise NotImplementedError(
                f"{type(self).__name__} has an __init__ of its own: define get_config() that returns its arguments, "
                "{**super().get_config(), 'units': self.units}"
            )
        return super().get_config()

    def __getstate__(self) -> dict[str, Any]:
        """A copy stands in no graph: nodes would drag along every layer before this one."""
        return {**vars(self), "_nodes": []}


def _is_several(value: Any) -> bool:
    """Whether `value` is a list of arrays or of symbolic tensors, not nested lists of numbers."""
    return isinstance(value, (list, tuple)) and any(
        graph.is_symbolic(v) or (hasattr(v, "__array__") and getattr(v, "ndim", 0) > 0) for v in value
    )


def _get_trainable(self: Layer) -> bool:
    return self._trainable  # type: ignore[attr-defined]


def _set_trainable(self: Layer, value: bool) -> None:
    self._trainable = bool(value)
    trainable_changed()
    for layer in self.sublayers:
        layer.trainable = value


Layer.build = building.once(Layer.build)  # type: ignore[method-assign]
Layer.trainable = property(_get_trainable, _set_trainable)  # type: ignore[assignment]
