"""A recurrent layer in both directions."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, replace
from typing import Any, ClassVar

import numpy as np

from .. import threads
from .._core import kernels
from ..graph import as_list
from ..registry import register, replays
from ..states import Context
from .layer import Array, Layer
from .recurrent import Recurrent, as_shapes, first

MERGE_MODES = ("concat", "sum", "ave", "mul", None)


@register("layer")
@dataclass(eq=False, repr=False)
class Bidirectional(Layer):
    """Two recurrent layers over one sequence, one in each direction, and their outputs merged.

        y = merge(forward(x), backward(x))

    With `return_sequences` the backward layer's outputs are brought into the order of x first, and masked steps give
    zeros. Otherwise the last output of each is merged: after the last step, and after the first.

    Shapes: x (batch, time, features); y (batch, time, 2 * units) or (batch, 2 * units), half as wide for sum, ave and
    mul. With `return_state` the output is a list: y, the states of the forward layer, those of the backward layer.

    Args:
        layer: a recurrent layer; it serves as a pattern, from which new ones are made.
        merge_mode: "concat", "sum", "ave" (mean), "mul", or None for a list of both outputs.
        weights: first values of the weights, those of the forward layer first.
        backward_layer: the layer for the other direction, if it is to differ from `layer`; it is used itself.

    Raises:
        ValueError: if a layer is not recurrent, the merge mode is unknown, both layers go the same way, or they differ
            in `stateful`, `return_sequences`, `return_state`, dtype, or (unless concatenated or listed) units.

    Source: Schuster & Paliwal 1997, "Bidirectional recurrent neural networks".
    """

    layer: Any
    merge_mode: str | None = "concat"
    weights: InitVar[Any] = None
    backward_layer: Any = None

    expects: ClassVar[str] = "(batch, time, features)"
    takes_states: ClassVar[bool] = True

    def __post_init__(self, weights: Any) -> None:
        pattern = self.layer
        for argument in ("layer", "backward_layer"):
            value = getattr(self, argument)
            if not isinstance(value, Recurrent) and (value is not None or argument == "layer"):
                raise ValueError(f"Bidirectional: {argument} must be a recurrent layer; received {value!r}")
        if self.merge_mode not in MERGE_MODES:
            raise ValueError(f"Bidirectional: merge_mode must be one of {MERGE_MODES}; received {self.merge_mode!r}")
        self.dtype = self.dtype or pattern.dtype
        super().__post_init__()
        self.layer = self.forward_layer = replace(pattern, name=f"forward_{pattern.name.removeprefix('forward_')}")
        if self.backward_layer is None:
            name = f"backward_{pattern.name.removeprefix('backward_')}"
            self.backward_layer = replace(pattern, name=name, go_backwards=True)
        self._lift_activity_regularizer()
        self._check_directions()
        for layer in self.directions:
            layer.zero_output_for_mask = layer.return_sequences
        self._initial_weights = weights

    def _lift_activity_regularizer(self) -> None:
        """A penalty on the output of both layers is one on their outputs side by side."""
        forward, backward = (layer.activity_regularizer for layer in self.directions)
        if forward is None and backward is None:
            return
        if repr(forward) != repr(backward) or self.activity_regularizer or self.merge_mode not in ("concat", None):
            raise ValueError("Bidirectional: give the activity_regularizer to Bidirectional, not to the layers in it")
        self.activity_regularizer = forward
        for layer in self.directions:
            layer.activity_regularizer = None

    def _check_directions(self) -> None:
        forward, backward = self.directions
        if forward.go_backwards == backward.go_backwards:
            raise ValueError(
                "Bidirectional: layer and backward_layer must differ in go_backwards; received "
                f"go_backwards={forward.go_backwards} for both"
            )
        same = ["stateful", "return_sequences", "return_state", "dtype"]
        if self.merge_mode not in ("concat", None):
            same.append("units")
        for name in same:
            ours, theirs = getattr(forward, name), getattr(backward, name)
            if ours != theirs:
                raise ValueError(
                    f"Bidirectional: layer and backward_layer must agree in {name}; received {ours!r} and {theirs!r}"
                )
        if self.dtype != forward.dtype:
            raise ValueError(f"Bidirectional: dtype {self.dtype!r} is not that of its layer, {forward.dtype!r}")

    @property
    def directions(self) -> tuple[Recurrent, Recurrent]:
        return self.forward_layer, self.backward_layer

    @property
    def return_sequences(self) -> bool:
        return self.forward_layer.return_sequences

    @property
    def return_state(self) -> bool:
        return self.forward_layer.return_state

    @property
    def stateful(self) -> bool:  # type: ignore[override]
        return self.forward_layer.stateful

    def build(self, shape: Any) -> None:
        x = as_shapes(shape)[0]
        for layer in self.directions:
            layer.build(x)
        if self._initial_weights is not None:
            self.set_weights(self._initial_weights)
            self._initial_weights = None

    def label(self, prefix: str = "") -> None:
        """The layers inside are called by their direction: "bidirectional/forward/kernel"."""
        super().label(prefix)
        for direction, layer in zip(("forward", "backward"), self.directions, strict=True):
            layer.path = f"{self.path}/{direction}"
            for weight in layer.weights:
                weight.path = f"{layer.path}/{weight.name}"

    def reset_states(self) -> None:
        """The same as `reset_state`."""
        self.reset_state()

    # shapes and masks

    def check_shape(self, shape: Any) -> None:
        super().check_shape(shape)
        x, *states = as_shapes(shape)
        wanted = sum(layer.cell.states for layer in self.directions)
        if len(states) not in (0, wanted):
            raise ValueError(f"{self.title} has {wanted} states; received {len(states)} initial states")
        for layer, own in zip(self.directions, self._halves(states), strict=True):
            layer.check_shape([x, *own])

    def output_shape(self, shape: Any) -> Any:
        shapes = [as_shapes(layer.output_shape(shape)) for layer in self.directions]
        (y, *forward_states), (z, *backward_states) = shapes
        if self.merge_mode == "concat":
            y = (*y[:-1], y[-1] + z[-1])
        return self._output(y, z, forward_states, backward_states)

    def output_mask(self, x: Any, mask: Any) -> Any:
        mask = first(self.forward_layer.output_mask(x, mask))
        none = [[None] * layer.cell.states for layer in self.directions]
        return self._output(mask, mask, *none)

    def _output(self, y: Any, z: Any, forward_states: Any, backward_states: Any) -> Any:
        """What the layer gives: the merged output y, or y and z if they are not merged; with the states if wanted."""
        outputs = [y] if self.merge_mode else [y, z]
        if self.return_state:
            outputs += [*forward_states, *backward_states]
        return outputs if len(outputs) > 1 else y

    def _halves(self, states: Any) -> tuple[Any, Any]:
        """States given for both layers: those of the forward layer, those of the backward layer."""
        half = self.forward_layer.cell.states
        return states[:half], states[half:]

    # forward and backward

    @property
    def replays(self) -> bool:  # type: ignore[override]
        return all(map(replays, self.directions))

    def forward(self, x: Any, mask: Any, context: Context) -> tuple[Any, Any]:
        x, *states = as_list(x)
        merged, *outs = self._place_for(x)
        calls = [
            layer.prepare(x, first(mask), own, context, original_time=True, out=out)
            for layer, own, out in zip(self.directions, self._halves(states), outs, strict=True)
        ]
        kernels.run_forward(*calls, threads=threads.get_num_threads())
        runs = [layer.finish(call, context) for layer, call in zip(self.directions, calls, strict=True)]
        y, z = (self._turned(sequence) if self.return_sequences else last for sequence, last, _, _ in runs)
        (_, _, forward_states, forward_saved), (_, _, backward_states, backward_saved) = runs
        saved = (forward_saved, backward_saved), (y, z) if self.merge_mode == "mul" else None, bool(states)
        y = self._merge(y, z) if merged is None else merged
        return self._output(y, z, forward_states, backward_states), saved

    def backward(self, saved: Any, dy: Any) -> Any:
        saved, outputs, had_initial_state = saved
        dy = as_list(dy) if self.merge_mode is None or self.return_state else [dy]
        count = 1 if self.merge_mode else 2
        gradients = self._unmerge(dy[0], outputs) if self.merge_mode else dy[:2]
        dstates = self._halves(dy[count:])
        calls = [
            layer.prepare_backward(own, self._turned(gradient), None, dfinal)
            if self.return_sequences
            else layer.prepare_backward(own, None, gradient, dfinal)
            for layer, own, gradient, dfinal in zip(self.directions, saved, gradients, dstates, strict=True)
        ]
        kernels.run_backward(*calls, threads=threads.get_num_threads())
        dx, other = (call.dx for call in calls)
        if dx is not None:
            kernels.in_numpy(np.add, dx, other, out=dx)
        return [dx, *calls[0].dinitial, *calls[1].dinitial] if had_initial_state else dx

    def _place_for(self, x: Array) -> tuple[Array | None, Array | None, Array | None]:
        """Where both sequences are to be written so that they come out concatenated: the whole and its two halves."""
        if self.merge_mode != "concat" or not self.return_sequences or self.forward_layer.go_backwards:
            return None, None, None
        units = self.forward_layer.units
        whole = np.empty((*x.shape[:2], units + self.backward_layer.units), x.dtype)
        return whole, whole[..., :units], whole[..., units:]

    def _turned(self, sequence: Any) -> Any:
        """From the order of x to the forward layer's own: another one if it is the one that goes backwards; or back."""
        if sequence is None or not self.forward_layer.go_backwards:
            return sequence
        return np.ascontiguousarray(sequence[:, ::-1])

    def _merge(self, y: Array, z: Array) -> Array:
        if self.merge_mode == "concat":
            both = np.empty((*y.shape[:-1], y.shape[-1] + z.shape[-1]), y.dtype)
            return kernels.in_numpy(_concatenate, y, z, out=both)
        if self.merge_mode == "sum":
            return y + z
        if self.merge_mode == "ave":
            return (y + z) / 2
        return y * z if self.merge_mode == "mul" else y

    def _unmerge(self, dy: Array | None, outputs: Any) -> tuple[Any, Any]:
        """The gradients for y and z from that for what `_merge` made of them."""
        if dy is None:
            return None, None
        if self.merge_mode == "concat":
            units = self.forward_layer.units
            return dy[..., :units], dy[..., units:]
        if self.merge_mode == "sum":
            return dy, dy
        if self.merge_mode == "ave":
            return dy / 2, dy / 2
        y, z = outputs
        return dy * z, dy * y


def _concatenate(y: Array, z: Array, out: Array) -> None:
    np.concatenate([y, z], axis=-1, out=out)


del Bidirectional.weights  # the constructor's argument; the attribute is Layer.weights
