"""Everything a recurrent layer does that does not depend on its cell: arguments, weights, dropout masks, states.

The work is one pair, `run` and `run_backward`, of which many-to-one and many-to-many, `return_state`, `stateful`, the
encoder-decoder and `Bidirectional` are views. The cell, its gates and the loop over time are the kernels'.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np

from .. import activations, constraints, initializers, regularizers, threads
from .._core import kernels
from ..graph import as_list
from ..params import Parameter
from ..states import Context
from .layer import Array, Layer

States = tuple[Array, ...]
C = TypeVar("C", bound=type)
WEIGHT_OPTIONS = {"initializer": initializers, "regularizer": regularizers, "constraint": constraints}


class Saved(NamedTuple):
    """What `run_backward` needs of a call of `run`."""

    packed: Any
    tape: Any
    input_gradient: bool


@dataclass(eq=False, repr=False)
class Recurrent(Layer):
    """A layer that walks over time with a cell of the kernels. A subclass names the cell and adds the cell's options.

    Shapes: x (batch, time, features); sequence (batch, time, units); last output and every state (batch, units).

    Args:
        units: width of the output and of each state.
        activation: of the candidate and of the output; None is linear.
        use_bias: whether the gates have biases.
        kernel_initializer, recurrent_initializer, bias_initializer: first values of the weights.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: penalties on the weights.
        activity_regularizer: penalty on the output, divided by the batch size.
        kernel_constraint, recurrent_constraint, bias_constraint: what is done to the weights after each update.
        dropout: fraction of the inputs dropped in training, the same ones at every step.
        recurrent_dropout: fraction of the units of the state dropped before the recurrent product, the same ones at
            every step. If it is above zero, every gate has masks of its own, for the state and for the input.
        seed: of the dropout masks; None draws one.
        return_sequences: the output is that of every step instead of the last.
        return_state: the output is a list `[output, *states]`.
        go_backwards: steps are taken from the last to the first; the sequence is returned in that order.
        stateful: every call starts, row by row, from the states in which the last one ended, until `reset_state()`.
        unroll: without effect.
        zero_output_for_mask: the output of a masked step is zero instead of the output before it.

    Raises:
        ValueError: if `units` is not a positive integer, a rate lies outside [0, 1), or an activation cannot stand in
            a cell, where its derivative must follow from its output.

    Source: the dropout of recurrent layers is Gal & Ghahramani 2016, "A theoretically grounded application of dropout
    in recurrent neural networks".
    """

    units: int
    activation: Any = "tanh"
    _: KW_ONLY
    use_bias: bool = True
    kernel_initializer: Any = "glorot_uniform"
    recurrent_initializer: Any = "orthogonal"
    bias_initializer: Any = "zeros"
    kernel_regularizer: Any = None
    recurrent_regularizer: Any = None
    bias_regularizer: Any = None
    kernel_constraint: Any = None
    recurrent_constraint: Any = None
    bias_constraint: Any = None
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    seed: int | None = None
    return_sequences: bool = False
    return_state: bool = False
    go_backwards: bool = False
    stateful: bool = False  # type: ignore[misc]
    unroll: bool = False
    zero_output_for_mask: bool = False

    expects: ClassVar[str] = "(batch, time, features)"
    takes_states: ClassVar[bool] = True
    cell_name: ClassVar[str]
    inner_activations: ClassVar[tuple[str, ...]] = ("activation",)

    def __post_init__(self) -> None:
        super().__post_init__()
        who = type(self).__name__
        if isinstance(self.units, bool) or not isinstance(self.units, (int, np.integer)) or self.units <= 0:
            raise ValueError(f"{who}: units must be a positive integer; received {self.units!r}")
        self.units = int(self.units)
        for rate in ("dropout", "recurrent_dropout"):
            value = getattr(self, rate)
            if not isinstance(value, (int, float, np.number)) or not 0 <= value < 1:
                raise ValueError(f"{who}: {rate} must be a number in [0, 1); received {value!r}")
        for weight in ("kernel", "recurrent", "bias"):
            for kind, module in WEIGHT_OPTIONS.items():
                argument = f"{weight}_{kind}"
                setattr(self, argument, module.get(getattr(self, argument)))
        self._activation_names = {argument: self._inner_activation(argument) for argument in self.inner_activations}
        self._packed: tuple[Any, ...] = ()

    def _inner_activation(self, argument: str) -> str:
        activation, known = activations.get(getattr(self, argument)), self.cell.activations
        if activation.name not in known:
            raise ValueError(
                f"{type(self).__name__}: {argument} stands inside the cell, where the derivative must follow from the "
                f"output; known are {', '.join(known)}; received {activation.name!r}"
            )
        setattr(self, argument, activation)
        return activation.name

    @property
    def cell(self) -> Any:
        """What the kernels know of the cell: its gates, in the order of the weights' columns, its number of states."""
        return kernels.cells[self.cell_name]

    # weights

    def build(self, shape: Any) -> None:
        cell, features = self.cell, as_shapes(shape)[0][-1]
        columns = len(cell.gates) * self.units
        self.kernel = self.add_weight(
            "kernel",
            (features, columns),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.recurrent_kernel = self.add_weight(
            "recurrent_kernel",
            (self.units, columns),
            initializer=self.recurrent_initializer,
            regularizer=self.recurrent_regularizer,
            constraint=self.recurrent_constraint,
        )
        self.bias: Parameter | None = None
        if self.use_bias:
            self.bias = self.add_weight(
                "bias",
                (columns,) if cell.bias_rows == 1 else (cell.bias_rows, columns),
                initializer=self.initial_bias,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def initial_bias(self, shape: tuple[int, ...], dtype: str) -> Array:
        """First values of the bias; a cell that wants some of them otherwise overrides this."""
        return initializers.initial_values(self.bias_initializer, shape, dtype, what=f"{self.name}/bias")

    def packed(self, backward: bool) -> Any:
        """The weights as the kernels want them, packed anew when they have changed. Several threads may ask at once."""
        version = tuple(w.version for w in self._weights)
        cached = self._packed
        if cached and cached[0] == version and (cached[1] or not backward) and not kernels.is_recorded():
            return cached[2]
        bias = None if self.bias is None else self.bias.values
        packed = kernels.pack(
            self.cell_name,
            self.kernel.values,
            self.recurrent_kernel.values,
            bias,
            backward=backward,
            threads=threads.get_num_threads(),
        )
        self._packed = (version, backward, packed)
        return packed

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_packed": ()}

    # shapes and masks

    def check_shape(self, shape: Any) -> None:
        super().check_shape(shape)
        x, *states = as_shapes(shape)
        if states and len(states) != self.cell.states:
            raise ValueError(f"{self.title} has {self.cell.states} states; received {len(states)} initial states")
        for state in states:
            if len(state) != 2 or state[1] != self.units or (None not in (x[0], state[0]) and state[0] != x[0]):
                raise ValueError(
                    f"{self.title} expects initial states of shape (batch, units) = {(x[0], self.units)}; "
                    f"received {tuple(state)}"
                )

    def output_shape(self, shape: Any) -> Any:
        batch, time, _ = as_shapes(shape)[0]
        y = (batch, time, self.units) if self.return_sequences else (batch, self.units)
        return [y] + [(batch, self.units)] * self.cell.states if self.return_state else y

    def output_mask(self, x: Any, mask: Any) -> Any:
        """The mask of a sequence, in the sequence's order; None for one output and for states."""
        mask = first(mask) if self.return_sequences else None
        if mask is not None and self.go_backwards:
            mask = np.ascontiguousarray(mask[:, ::-1])
        return [mask] + [None] * self.cell.states if self.return_state else mask

    # forward and backward

    @property
    def replays(self) -> bool:  # type: ignore[override]
        return not self.stateful

    def forward(self, x: Any, mask: Any, context: Context) -> tuple[Any, Any]:
        x, *initial_state = as_list(x)
        sequence, last, final_state, saved = self.run(x, first(mask), initial_state, context)
        y = sequence if self.return_sequences else last
        return [y, *final_state] if self.return_state else y, (saved, bool(initial_state))

    def backward(self, saved: Any, dy: Any) -> Any:
        saved, had_initial_state = saved
        dy, *dfinal = dy if self.return_state else [dy]
        dsequence, dlast = (dy, None) if self.return_sequences else (None, dy)
        dx, dinitial = self.run_backward(saved, dsequence, dlast, dfinal)
        return [dx, *dinitial] if had_initial_state else dx

    def run(
        self,
        x: Array,
        mask: Array | None,
        initial_state: Sequence[Array],
        context: Context,
        *,
        original_time: bool = False,
    ) -> tuple[Array | None, Array, States, Saved | None]:
        """The whole sequence.

        Args:
            x: (batch, time, features).
            mask: (batch, time) bool or None. At a masked step states stay as they are and the output is the one
                before it, or zero if there was none.
            initial_state: one (batch, units) array per state. If empty: what a stateful layer has stored, else zeros.
            original_time: the sequence of a layer that goes backwards is in the order of x, not of processing.

        Returns:
            The sequence (None without `return_sequences`), the last output, the final state, and what `run_backward`
            needs. The last output is that of the last step taken, so with `zero_output_for_mask` it may be zero.
        """
        call = self.prepare(x, mask, initial_state, context, original_time=original_time)
        kernels.run_forward(call, threads=threads.get_num_threads())
        return self.finish(call, context)

    def prepare(
        self,
        x: Array,
        mask: Array | None,
        initial_state: Sequence[Array],
        context: Context,
        *,
        original_time: bool = False,
        out: Array | None = None,
    ) -> kernels.Forward:
        """What `run` hands to the kernels; `out` is where the sequence is to be written."""
        if self.stateful and not initial_state:
            initial_state = self._stored_state(len(x), context)
        input_dropout, recurrent_dropout = self.dropout_masks(len(x), context)
        return kernels.Forward(
            self.packed(context.record),
            x,
            tuple(initial_state) or None,
            mask,
            **self._activation_names,
            go_backwards=self.go_backwards,
            original_time=original_time,
            zero_output_for_mask=self.zero_output_for_mask,
            return_sequences=self.return_sequences,
            record=context.record,
            input_dropout=input_dropout,
            recurrent_dropout=recurrent_dropout,
            out=out,
        )

    def finish(self, call: kernels.Forward, context: Context) -> tuple[Array | None, Array, States, Saved | None]:
        """What `run` gives, of a call that the kernels have run."""
        if self.stateful:
            context.store.set_states(self, tuple(s.copy() for s in call.final_state))
        saved = Saved(call.packed, call.tape, context.input_gradient) if context.record else None
        return call.sequence, call.last, call.final_state, saved

    def run_backward(
        self, saved: Saved, dsequence: Array | None, dlast: Array | None, dfinal: Sequence[Array | None]
    ) -> tuple[Array | None, States]:
        """The gradients for x and the initial state from those for what `run` gave; None or empty means no gradient.

        Those of the weights are added up in the parameters, unless the layer is frozen.
        """
        call = self.prepare_backward(saved, dsequence, dlast, dfinal)
        kernels.run_backward(call, threads=threads.get_num_threads())
        return call.dx, call.dinitial

    def prepare_backward(
        self, saved: Saved, dsequence: Array | None, dlast: Array | None, dfinal: Sequence[Array | None]
    ) -> kernels.Backward:
        """What `run_backward` hands to the kernels."""
        dlast, *dfinal = map(_contiguous, (dlast, *dfinal))
        weights = self._weights if self.trainable else []
        blank = all(w.blank for w in weights)
        dweights = {f"d{w.name}": w.lend_gradient(overwritten=blank) for w in weights}
        return kernels.Backward(
            saved.packed,
            saved.tape,
            _rows(dsequence),
            dlast,
            tuple(dfinal) or None,
            **dweights,
            accumulate=not blank,
            input_gradient=saved.input_gradient,
        )

    # dropout and states

    def dropout_masks(self, batch: int, context: Context) -> tuple[Array | None, Array | None]:
        """Factors 0 or 1 / (1 - rate), for x (gates or 1, batch, features) and for the state (gates, batch, units)."""
        if not context.training or not (self.dropout or self.recurrent_dropout):
            return None, None
        stream = context.stream(self)
        gates = len(self.cell.gates) if self.recurrent_dropout else 1
        rates_and_widths = (self.dropout, self.kernel.shape[0]), (self.recurrent_dropout, self.units)
        of_x, of_h = (
            stream.factors((gates, batch, width), self.dtype, rate, draw) if rate else None
            for draw, (rate, width) in enumerate(rates_and_widths)
        )
        return of_x, of_h

    def _stored_state(self, batch: int, context: Context) -> States:
        states = context.store.states(self) or ()
        if states and len(states[0]) != batch:
            raise ValueError(
                f"{self.title} is stateful and holds the states of {len(states[0])} rows; received a batch of {batch}. "
                "Until reset_state() all batches must have the same size"
            )
        return states

    def reset_states(self) -> None:
        """The same as `reset_state`."""
        self.reset_state()


@dataclass(eq=False, repr=False)
class Gated(Recurrent):
    """A recurrent layer whose gates have an activation of their own.

    Args:
        recurrent_activation: of the gates.
        use_cudnn, implementation: without effect.
    """

    recurrent_activation: Any = "sigmoid"
    _: KW_ONLY
    use_cudnn: Any = "auto"
    implementation: int = 2

    inner_activations: ClassVar[tuple[str, ...]] = ("activation", "recurrent_activation")


def positional(*order: str) -> Callable[[C], C]:
    """Class decorator: the constructor takes these arguments also by position, in this order (Keras')."""

    def decorate(cls: C) -> C:
        init = cls.__init__  # type: ignore[misc]

        @functools.wraps(init)
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
            if len(args) > len(order):
                raise TypeError(f"{cls.__name__} takes {len(order)} arguments by position; received {len(args)}")
            init(self, **dict(zip(order, args, strict=False)), **kwargs)

        own = dict(inspect.signature(init).parameters)
        in_place = [own.pop(name).replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("self", *order)]
        by_name = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own.values()]
        __init__.__signature__ = inspect.Signature([*in_place, *by_name])  # type: ignore[attr-defined]
        cls.__init__ = __init__  # type: ignore[misc]
        return cls

    return decorate


def as_shapes(shape: Any) -> list[tuple[Any, ...]]:
    """The shapes of all inputs, the sequence's first."""
    return shape if isinstance(shape, list) else [shape]


def _rows(gradient: Array | None) -> Array | None:
    """The gradient of a sequence as the kernels take it: all of an array, or some columns of it."""
    if gradient is None or gradient.flags.c_contiguous:
        return gradient
    along_batch, along_time, along_units = gradient.strides
    if along_units == gradient.itemsize and along_time > 0 and along_batch == gradient.shape[1] * along_time:
        return gradient
    return np.ascontiguousarray(gradient)


def _contiguous(gradient: Array | None) -> Array | None:
    if gradient is None or gradient.flags.c_contiguous:
        return gradient
    return kernels.in_numpy(np.positive, gradient, out=np.empty(gradient.shape, gradient.dtype))


def first(mask: Any) -> Array | None:
    """The mask of the sequence among the masks of all inputs."""
    return mask[0] if isinstance(mask, (list, tuple)) else mask
