"""LSTM, GRU and SimpleRNN against PyTorch: the same weights give the same outputs and the same gradients.

A PyTorch module of several layers and directions is a stack of ours. Its gates lie in rows (ours in columns), its GRU
has the order r z n (ours z r h), and each of its layers has two biases (ours has one, the GRU's two rows).
"""

from __future__ import annotations

import numpy as np
import pytest

from fastrnn.layers import GRU, LSTM, Bidirectional, SimpleRNN
from fastrnn.states import Context, StateStore

BATCH, TIME, FEATURES, UNITS = 4, 6, 5, 3
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
CELLS = {
    "lstm": (LSTM, {}, "LSTM", {}, 4, 2),
    "gru": (GRU, {}, "GRU", {}, 3, 1),
    "rnn_tanh": (SimpleRNN, {}, "RNN", {}, 1, 1),
    "rnn_relu": (SimpleRNN, {"activation": "relu"}, "RNN", {"nonlinearity": "relu"}, 1, 1),
}


def _gates(array: np.ndarray, gates: int) -> np.ndarray:
    """The rows r z n of a GRU as z r n, or back; other cells have the same order."""
    blocks = array.reshape(gates, UNITS, *array.shape[1:])
    return (blocks[[1, 0, 2]] if gates == 3 else blocks).reshape(array.shape)


def _ours(module, suffix: str, gates: int, read) -> list[np.ndarray]:
    """kernel, recurrent_kernel and bias of one layer and direction; `read` takes values or gradients of a tensor."""
    w_ih, w_hh, b_ih, b_hh = (
        _gates(read(getattr(module, f"{name}_{suffix}")), gates)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    bias = np.stack([b_ih, b_hh]) if gates == 3 else b_ih + b_hh
    return [w_ih.T, w_hh.T, bias]


def _stack(cell: str, layers: int, bidirectional: bool, dtype: str) -> list:
    cls, options, *_ = CELLS[cell]
    stack = []
    for _ in range(layers):
        layer = cls(UNITS, return_sequences=True, return_state=True, dtype=dtype, **options)
        stack.append(Bidirectional(layer, dtype=dtype) if bidirectional else layer)
    return stack


@pytest.mark.parametrize("initial", [False, True], ids=["from_zeros", "initial_state"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both_directions"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", CELLS)
def test_outputs_and_gradients_are_torchs(torch, cell, dtype, layers, bidirectional, initial):
    _, _, torch_name, torch_options, gates, states = CELLS[cell]
    directions = 2 if bidirectional else 1
    random = np.random.default_rng([len(cell), layers, directions, initial])
    module = getattr(torch.nn, torch_name)(
        FEATURES, UNITS, num_layers=layers, batch_first=True, bidirectional=bidirectional, **torch_options
    ).to(getattr(torch, dtype))
    for parameter in module.parameters():
        parameter.data = torch.tensor(random.normal(0, 0.5, tuple(parameter.shape)), dtype=parameter.dtype)

    def tensor(*shape):
        return torch.tensor(random.normal(size=shape), dtype=getattr(torch, dtype), requires_grad=True)

    x = tensor(BATCH, TIME, FEATURES)
    initial_states = [tensor(layers * directions, BATCH, UNITS) for _ in range(states)] if initial else None
    hx = None if initial_states is None else (tuple(initial_states) if states == 2 else initial_states[0])
    y, final = module(x, hx)
    final = list(final) if states == 2 else [final]
    dy, *dfinal = [torch.tensor(random.normal(size=tuple(t.shape)), dtype=t.dtype) for t in (y, *final)]
    torch.autograd.backward([y, *final], [dy, *dfinal])

    stack = _stack(cell, layers, bidirectional, dtype)
    context = Context(training=False, record=True, store=StateStore())
    width, sequence, saved, our_final = FEATURES, x.detach().numpy(), [], []
    for number, layer in enumerate(stack):
        layer.build((None, None, width))
        suffixes = [f"l{number}", f"l{number}_reverse"][:directions]
        layer.set_weights([w for s in suffixes for w in _ours(module, s, gates, lambda t: t.detach().numpy())])
        inputs = sequence
        if initial:
            slots = range(number * directions, (number + 1) * directions)
            inputs = [sequence, *(s.detach().numpy()[slot] for slot in slots for s in initial_states)]
        (sequence, *layer_final), kept = layer.forward(inputs, None, context)
        width = sequence.shape[-1]
        saved.append(kept)
        our_final.append(layer_final)

    def close(ours, theirs):
        theirs = theirs.detach().numpy() if hasattr(theirs, "detach") else theirs
        assert ours.dtype == np.dtype(dtype)
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= TOLERANCE[dtype] * max(1.0, np.abs(theirs).max())

    close(sequence, y)
    dsequence = dy.numpy()
    for number in reversed(range(layers)):
        layer_dfinal = []
        for direction in range(directions):
            slot = number * directions + direction
            for state in range(states):
                close(our_final[number][direction * states + state], final[state][slot])
                layer_dfinal.append(np.ascontiguousarray(dfinal[state].numpy()[slot]))
        gradient = stack[number].backward(saved[number], [dsequence, *layer_dfinal])
        dsequence, dinitial = (gradient[0], gradient[1:]) if initial else (gradient, [])
        for position, dstate in enumerate(dinitial):
            direction, state = divmod(position, states)
            close(dstate, initial_states[state].grad[number * directions + direction])
        for direction, suffix in enumerate([f"l{number}", f"l{number}_reverse"][:directions]):
            expected = _ours(module, suffix, gates, lambda t: t.grad.numpy())
            if gates != 3:
                expected[2] = getattr(module, f"bias_ih_{suffix}").grad.numpy()
            for weight, theirs in zip(stack[number].weights[3 * direction :], expected, strict=False):
                close(weight.gradient, theirs)
    close(dsequence, x.grad)
