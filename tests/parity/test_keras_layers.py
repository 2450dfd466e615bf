"""Recurrent layers against Keras (on its torch backend): outputs and every gradient, for every option and mask."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from fastrnn import layers
from fastrnn.states import Context, StateStore

BATCH, TIME, FEATURES, UNITS = 4, 6, 5, 3
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
MASKS = {
    "no_mask": None,
    "all_valid": [[1, 1, 1, 1, 1, 1]] * 4,
    "right_padding": [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0]],
    "left_padding": [[1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 1]],
    "holes": [[1, 0, 1, 1, 0, 1], [1, 1, 0, 0, 1, 1], [1, 1, 1, 1, 1, 1], [1, 0, 0, 1, 0, 1]],
    "holes_at_the_ends": [[0, 1, 0, 1, 1, 0], [0, 0, 1, 0, 1, 1], [1, 0, 1, 0, 1, 0], [0, 1, 1, 1, 1, 0]],
    "rows_all_masked": [[0, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0], [0, 1, 0, 1, 0, 0]],
}
CELLS = {
    "lstm": ("LSTM", {}),
    "gru": ("GRU", {}),
    "gru_reset_before": ("GRU", {"reset_after": False}),
    "simple_rnn": ("SimpleRNN", {}),
}
OPTIONS = {
    "many_to_one": {},
    "return_sequences": {"return_sequences": True},
    "return_state": {"return_state": True},
    "sequences_and_state": {"return_sequences": True, "return_state": True},
    "go_backwards": {"go_backwards": True, "return_state": True},
    "go_backwards_sequences": {"go_backwards": True, "return_sequences": True, "return_state": True},
    "zero_output": {"zero_output_for_mask": True, "return_sequences": True, "return_state": True},
    "zero_output_backwards": {"zero_output_for_mask": True, "return_sequences": True, "go_backwards": True},
    "zero_output_many_to_one": {"zero_output_for_mask": True},
    "no_bias": {"use_bias": False, "return_sequences": True},
}


class Pair:
    """One layer of ours and one of Keras with the same weights, and what each makes of the same arrays."""

    def __init__(self, torch, keras, ours, theirs, dtype, random):
        self.torch, self.ours, self.theirs, self.dtype, self.random = torch, ours, theirs, dtype, random
        ours.build((None, None, FEATURES))
        theirs.build((BATCH, TIME, FEATURES))
        weights = [random.normal(0, 0.5, w.shape).astype(dtype) for w in ours.weights]
        assert [tuple(w.shape) for w in theirs.weights] == [w.shape for w in ours.weights]
        ours.set_weights(weights)
        theirs.set_weights(weights)

    def check(self, mask, initial_states=0, training=False, tolerance=None):
        torch, random = self.torch, self.random
        self.tolerance = tolerance or TOLERANCE[self.dtype]
        x = random.normal(size=(BATCH, TIME, FEATURES)).astype(self.dtype)
        states = [random.normal(size=(BATCH, UNITS)).astype(self.dtype) for _ in range(initial_states)]
        mask = None if mask is None else np.array(mask, dtype=bool)
        tensors = [torch.tensor(a, requires_grad=True) for a in (x, *states)]
        y = self.theirs(
            tensors[0],
            mask=None if mask is None else torch.tensor(mask),
            initial_state=tensors[1:] or None,
            training=training,
        )
        y = list(y) if isinstance(y, (list, tuple)) else [y]
        dy = [random.normal(size=tuple(t.shape)).astype(self.dtype) for t in y]
        wanted = tensors + [v.value for v in self.theirs.trainable_weights]
        gradients = torch.autograd.grad(y, wanted, [torch.tensor(d) for d in dy], allow_unused=True)

        context = Context(training=training, record=True, store=StateStore())
        several = bool(states)
        our_mask = [mask] + [None] * len(states) if several else mask
        our_y, saved = self.ours.forward([x, *states] if several else x, our_mask, context)
        listed = isinstance(our_y, (list, tuple))
        our_dx = self.ours.backward(saved, dy if listed else dy[0])
        our_gradients = [*(our_dx if several else [our_dx]), *(w.gradient for w in self.ours.weights)]

        for name, ours, theirs in zip(
            [f"output {i}" for i in range(len(y))], list(our_y) if listed else [our_y], y, strict=True
        ):
            self.close(name, ours, theirs)
        names = ["dx", *(f"dstate{i}" for i in range(len(states))), *(w.path for w in self.ours.weights)]
        for name, ours, theirs in zip(names, our_gradients, gradients, strict=True):
            self.close(name, ours, torch.zeros(ours.shape) if theirs is None else theirs)

    def close(self, name, ours, theirs):
        theirs = theirs.detach().numpy()
        assert ours.shape == theirs.shape, name
        assert ours.dtype == np.dtype(self.dtype), name
        error = np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max())
        assert error <= self.tolerance, f"{name} differs by {error:.2e}"


def _pair(torch, keras, cell, options, dtype="float64", wrap=None):
    """`wrap`: the arguments of a Bidirectional around the layer, or None."""
    name, own = CELLS[cell]
    options = {**own, **options}
    ours = getattr(layers, name)(UNITS, dtype=dtype, **options)
    theirs = getattr(keras.layers, name)(UNITS, dtype=dtype, **options)
    if wrap is not None:
        ours = layers.Bidirectional(ours, dtype=dtype, **wrap)
        theirs = keras.layers.Bidirectional(theirs, dtype=dtype, **wrap)
    return Pair(torch, keras, ours, theirs, dtype, np.random.default_rng(len(cell) + len(options)))


@pytest.mark.parametrize("name", ["LSTM", "GRU", "SimpleRNN", "Bidirectional"])
def test_arguments_stand_in_keras_order_with_keras_defaults(keras, name):
    ours, theirs = (
        [p for p in inspect.signature(getattr(module, name)).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        for module in (layers, keras.layers)
    )
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_every_option_under_every_mask(torch, keras, cell, options, mask):
    _pair(torch, keras, cell, OPTIONS[options]).check(MASKS[mask])


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("options", ["many_to_one", "sequences_and_state", "go_backwards_sequences", "zero_output"])
@pytest.mark.parametrize("cell", CELLS)
def test_initial_state_and_its_gradient(torch, keras, cell, options, mask):
    _pair(torch, keras, cell, OPTIONS[options]).check(MASKS[mask], initial_states=2 if cell == "lstm" else 1)


@pytest.mark.parametrize("mask", ["no_mask", "holes_at_the_ends"])
@pytest.mark.parametrize("cell", CELLS)
def test_float32_to_1e_5(torch, keras, cell, mask):
    pair = _pair(torch, keras, cell, OPTIONS["sequences_and_state"], "float32")
    pair.check(MASKS[mask], initial_states=2 if cell == "lstm" else 1)


@pytest.mark.parametrize(
    "name", ["relu", "linear", "hard_sigmoid", "softsign", "elu", "selu", "softplus", "exponential", "sigmoid", None]
)
@pytest.mark.parametrize("cell", CELLS)
def test_activations_inside_cells(torch, keras, cell, name):
    """The slope of hard_sigmoid, 1/6, is a float32 in Keras."""
    options = {"activation": name, "return_sequences": True}
    if cell != "simple_rnn":
        options["recurrent_activation"] = "hard_sigmoid" if name == "relu" else "tanh"
    pair = _pair(torch, keras, cell, options)
    small = [0.2 * w for w in pair.ours.get_weights()]
    pair.ours.set_weights(small)
    pair.theirs.set_weights(small)
    pair.check(MASKS["holes"], tolerance=1e-7 if "hard_sigmoid" in options.values() else None)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("options", ["many_to_one", "sequences_and_state"])
@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave", None])
@pytest.mark.parametrize("cell", ["lstm", "gru_reset_before"])
def test_bidirectional_merges_as_keras_does(torch, keras, cell, merge_mode, options, mask):
    _pair(torch, keras, cell, OPTIONS[options], wrap={"merge_mode": merge_mode}).check(MASKS[mask])


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("cell", CELLS)
def test_bidirectional_initial_state_is_split_in_halves(torch, keras, cell, mask):
    pair = _pair(torch, keras, cell, OPTIONS["sequences_and_state"], wrap={})
    pair.check(MASKS[mask], initial_states=4 if cell == "lstm" else 2)


@pytest.mark.parametrize("mask", ["no_mask", "right_padding", "holes_at_the_ends"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward_first", "backward_first"])
def test_bidirectional_with_a_backward_layer_of_its_own(torch, keras, reverse, mask):
    def build(module):
        first = module.LSTM(UNITS, return_sequences=True, go_backwards=reverse, dtype="float64")
        second = module.GRU(UNITS, return_sequences=True, go_backwards=not reverse, dtype="float64")
        return module.Bidirectional(first, backward_layer=second, merge_mode="sum", dtype="float64")

    ours, theirs = build(layers), build(keras.layers)
    Pair(torch, keras, ours, theirs, "float64", np.random.default_rng(3)).check(MASKS[mask])


@pytest.mark.parametrize("mask", ["no_mask", "right_padding", "holes_at_the_ends"])
@pytest.mark.parametrize("rates", [(0.4, 0.0), (0.0, 0.4), (0.3, 0.5)], ids=["input", "recurrent", "both"])
@pytest.mark.parametrize("cell", CELLS)
def test_dropout_masks_are_used_as_keras_uses_them(torch, keras, cell, rates, mask):
    """Keras' cell is handed the masks our layer draws: how many, how large and what they multiply must agree."""
    dropout, recurrent_dropout = rates
    pair = _pair(
        torch,
        keras,
        cell,
        {"dropout": dropout, "recurrent_dropout": recurrent_dropout, "return_sequences": True, "seed": 7},
    )
    drawn = pair.ours.dropout_masks(BATCH, Context(training=True, record=True, store=StateStore()))
    one_each = cell == "simple_rnn" or recurrent_dropout == 0
    for attribute, masks in zip(["_dropout_mask", "_recurrent_dropout_mask"], drawn, strict=True):
        if masks is not None:
            tensors = [torch.tensor(m) for m in masks]
            assert len(tensors) == 1 if one_each else len(tensors) == {"lstm": 4}.get(cell, 3)
            ones = torch.ones(tensors[0].shape, dtype=torch.float64)
            own = getattr(pair.theirs.cell, f"get{attribute}")(ones)
            own = np.stack([t.numpy() for t in ([own] if one_each else own)])
            assert own.shape == masks.shape
            assert np.allclose(own.max(), masks.max())
            setattr(pair.theirs.cell, attribute, tensors[0] if one_each else tensors)
    pair.check(MASKS[mask], training=True)
