"""What the kernels compute, in NumPy and float64, written to be read.

The cells come first, each with its equations: `forward` does one time step, and `backward`, right below it, takes that
step back. Then comes the loop over time, again forward above backward: states, masks, direction and dropout are said
there once, for every cell.

Shapes: B batch, T time, D features, H units, G gates. A cell works on gates as the leading axis: its `kernel` is
(G, D, H), not Keras' (D, G*H), so that ``z = x @ kernel`` is (G, B, H) and gate g is ``z[g]``.

A gradient is written ``d`` + name: ``dh`` is the derivative of the loss with respect to ``h``. Backpropagation through
time is the chain rule, read from the last step to the first; the one thing to keep in mind is that a value that is used
twice (h is an output of this step *and* an input of the next) receives the sum of two gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray
States = tuple[Array, ...]


# Activations: y = f(x), and f'(x) as a function of y.


@dataclass(frozen=True)
class Activation:
    of: Callable[[Array], Array]
    slope: Callable[[Array], Array]

    def __call__(self, x: Array) -> Array:
        return self.of(x)


ALPHA, SCALE = 1.6732632423543772, 1.0507009873554805  # of selu (Klambauer et al. 2017)

ACTIVATIONS = {
    "tanh": Activation(np.tanh, lambda y: 1 - y * y),
    "sigmoid": Activation(
        lambda x: np.where(x < 0, np.exp(-np.abs(x)), 1.0) / (1 + np.exp(-np.abs(x))), lambda y: y * (1 - y)
    ),
    "relu": Activation(lambda x: np.maximum(x, 0), lambda y: np.where(y > 0, 1.0, 0.0)),
    "linear": Activation(lambda x: x, np.ones_like),
    "hard_sigmoid": Activation(lambda x: np.clip(x / 6 + 0.5, 0, 1), lambda y: np.where((y > 0) & (y < 1), 1 / 6, 0.0)),
    "softsign": Activation(lambda x: x / (1 + np.abs(x)), lambda y: (1 - np.abs(y)) ** 2),
    "elu": Activation(lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), lambda y: np.where(y > 0, 1.0, y + 1)),
    "selu": Activation(
        lambda x: SCALE * np.where(x > 0, x, ALPHA * np.expm1(np.minimum(x, 0))),
        lambda y: np.where(y > 0, SCALE, y + SCALE * ALPHA),
    ),
    "softplus": Activation(lambda x: np.logaddexp(0, x), lambda y: -np.expm1(-y)),
    "exponential": Activation(np.exp, lambda y: y),
}


# Cells: one step in time.


class Cell:
    """Weights cut into gates, their gradients, and the two activations.

    forward(x, h_in, state) -> state, saved
        x: (1, B, D), or (G, B, D) if dropout shows each gate another x.
        h_in: (G, B, H), the h each gate sees: the old h after recurrent dropout.
        state: the old state as it was, `(h,)` or `(h, c)`, each (B, H).
        saved: whatever `backward` needs.
    backward(saved, dstate) -> dx, dh_in, dstate
        Adds into `dkernel`, `drecurrent_kernel`, `dbias`. The new dstate holds only what reached the old state
        directly; what came by way of `h_in` is apart, because dropout lies in between.
    """

    gates: str
    states = 1
    bias_rows = 1

    def __init__(
        self, kernel: Array, recurrent_kernel: Array, bias: Array | None, act: str, recurrent_act: str
    ) -> None:
        G, H = len(self.gates), len(recurrent_kernel)
        self.kernel = as_gates(kernel, G)
        self.recurrent_kernel = as_gates(recurrent_kernel, G)
        self.bias = np.zeros((self.bias_rows, G, 1, H))
        if bias is not None:
            self.bias[:] = np.reshape(bias, self.bias.shape)
        self.dkernel = np.zeros_like(self.kernel)
        self.drecurrent_kernel = np.zeros_like(self.recurrent_kernel)
        self.dbias = np.zeros_like(self.bias)
        self.act, self.sigma = ACTIVATIONS[act], ACTIVATIONS[recurrent_act]


class SimpleRNN(Cell):
    """h' = act(x W + h U + b)"""

    gates = "h"

    def forward(self, x: Array, h_in: Array, state: States) -> tuple[States, Any]:
        z = x @ self.kernel + h_in @ self.recurrent_kernel + self.bias[0]
        h = self.act(z[0])
        return (h,), (x, h_in, h)

    def backward(self, saved: Any, dstate: States) -> tuple[Array, Array, States]:
        x, h_in, h = saved
        (dh,) = dstate

        dz = np.stack([dh * self.act.slope(h)])

        self.dkernel += transpose(x) @ dz
        self.drecurrent_kernel += transpose(h_in) @ dz
        self.dbias[0] += total(dz)
        return dz @ transpose(self.kernel), dz @ transpose(self.recurrent_kernel), (np.zeros_like(dh),)


class LSTM(Cell):
    """i, f, o = sigma(x W + h U + b)    the input, forget and output gates
    g         = act(x W + h U + b)      the candidate ("c" in Keras' gate order)
    c' = f c + i g                      the cell keeps a part of itself and takes in a part of the candidate
    h' = o act(c')                      and shows a part of what it holds
    """

    gates = "ifco"
    states = 2

    def forward(self, x: Array, h_in: Array, state: States) -> tuple[States, Any]:
        _, c_old = state
        z = x @ self.kernel + h_in @ self.recurrent_kernel + self.bias[0]
        i, f, g, o = self.sigma(z[0]), self.sigma(z[1]), self.act(z[2]), self.sigma(z[3])
        c = f * c_old + i * g
        a = self.act(c)
        h = o * a
        return (h, c), (x, h_in, c_old, i, f, g, o, a)

    def backward(self, saved: Any, dstate: States) -> tuple[Array, Array, States]:
        x, h_in, c_old, i, f, g, o, a = saved
        dh, dc = dstate

        do, da = dh * a, dh * o
        dc = dc + da * self.act.slope(a)
        df, dc_old = dc * c_old, dc * f
        di, dg = dc * g, dc * i
        dz = np.stack(
            [di * self.sigma.slope(i), df * self.sigma.slope(f), dg * self.act.slope(g), do * self.sigma.slope(o)]
        )

        self.dkernel += transpose(x) @ dz
        self.drecurrent_kernel += transpose(h_in) @ dz
        self.dbias[0] += total(dz)
        return dz @ transpose(self.kernel), dz @ transpose(self.recurrent_kernel), (np.zeros_like(dh), dc_old)


class GRU(Cell):
    """z, r = sigma(x W + b + h U + b')        the update and reset gates
    n    = act(x W + b + r (h U + b'))        the candidate ("h" in Keras' gate order), reset after the product
    h'   = z h + (1 - z) n
    """

    gates = "zrh"
    bias_rows = 2

    def forward(self, x: Array, h_in: Array, state: States) -> tuple[States, Any]:
        (h_old,) = state
        zx = x @ self.kernel + self.bias[0]
        zh = h_in @ self.recurrent_kernel + self.bias[1]
        z, r = self.sigma(zx[0] + zh[0]), self.sigma(zx[1] + zh[1])
        n = self.act(zx[2] + r * zh[2])
        h = z * h_old + (1 - z) * n
        return (h,), (x, h_in, h_old, z, r, n, zh[2])

    def backward(self, saved: Any, dstate: States) -> tuple[Array, Array, States]:
        x, h_in, h_old, z, r, n, zh_n = saved
        (dh,) = dstate

        dz, dn, dh_old = dh * (h_old - n), dh * (1 - z), dh * z
        dn = dn * self.act.slope(n)
        dr = dn * zh_n
        dz, dr = dz * self.sigma.slope(z), dr * self.sigma.slope(r)
        dzx = np.stack([dz, dr, dn])
        dzh = np.stack([dz, dr, dn * r])

        self.dkernel += transpose(x) @ dzx
        self.drecurrent_kernel += transpose(h_in) @ dzh
        self.dbias[0] += total(dzx)
        self.dbias[1] += total(dzh)
        return dzx @ transpose(self.kernel), dzh @ transpose(self.recurrent_kernel), (dh_old,)


class GRUResetBefore(Cell):
    """z, r = sigma(x W + h U + b)
    n    = act(x W + (r h) U + b)             reset before the product (Cho et al. 2014)
    h'   = z h + (1 - z) n
    """

    gates = "zrh"

    def forward(self, x: Array, h_in: Array, state: States) -> tuple[States, Any]:
        (h_old,) = state
        zx = x @ self.kernel + self.bias[0]
        zh = h_in[:2] @ self.recurrent_kernel[:2]
        z, r = self.sigma(zx[0] + zh[0]), self.sigma(zx[1] + zh[1])
        n = self.act(zx[2] + (r * h_in[2]) @ self.recurrent_kernel[2])
        h = z * h_old + (1 - z) * n
        return (h,), (x, h_in, h_old, z, r, n)

    def backward(self, saved: Any, dstate: States) -> tuple[Array, Array, States]:
        x, h_in, h_old, z, r, n = saved
        (dh,) = dstate

        dz, dn, dh_old = dh * (h_old - n), dh * (1 - z), dh * z
        dn = dn * self.act.slope(n)
        drh = dn @ self.recurrent_kernel[2].T
        dr, dh_n = drh * h_in[2], drh * r
        dz, dr = dz * self.sigma.slope(z), dr * self.sigma.slope(r)
        dzx = np.stack([dz, dr, dn])

        seen = np.stack([h_in[0], h_in[1], r * h_in[2]])
        self.dkernel += transpose(x) @ dzx
        self.drecurrent_kernel += transpose(seen) @ dzx
        self.dbias[0] += total(dzx)
        dh_in = dzx[:2] @ transpose(self.recurrent_kernel[:2])
        return dzx @ transpose(self.kernel), np.stack([*dh_in, dh_n]), (dh_old,)


CELLS: dict[str, type[Any]] = {"rnn": SimpleRNN, "lstm": LSTM, "gru": GRU, "gru_reset_before": GRUResetBefore}


# The loop over time.


def forward(
    cell: str,
    x: Array,
    kernel: Array,
    recurrent_kernel: Array,
    bias: Array | None = None,
    initial_state: States | None = None,
    mask: Array | None = None,
    *,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    go_backwards: bool = False,
    original_time: bool = False,
    zero_output_for_mask: bool = False,
    input_dropout: Array | None = None,
    recurrent_dropout: Array | None = None,
) -> tuple[Array, States, Array, Tape]:
    """Runs `cell` over the sequences of a batch.

    Args:
        x: (B, T, D).
        kernel, recurrent_kernel, bias: (D, G*H), (H, G*H), (G*H,) in Keras' layout; "gru" has a bias of (2, G*H).
        initial_state: one (B, H) array per state of the cell; zeros if None.
        mask: (B, T), False where a step is padding: what x holds there is never used.
        go_backwards: the last step of x comes first; outputs are in the order of processing, or, with
            `original_time`, in the order of x.
        input_dropout: factors (1, B, D) for all gates or (G, B, D) for each, the same at every time.
        recurrent_dropout: factors (G, B, H).

    Returns:
        The outputs (B, T, H), the final state, the last output (B, H), and the tape for `backward`.

    At a masked step the state stays what it was and the output is the last one once more: zero, if there was none yet.
    With `zero_output_for_mask` the output of every masked step is zero. The last output is that of the last step
    processed, so by default it is the last valid one.
    """
    B, T, D = x.shape
    cell_ = CELLS[cell](kernel, recurrent_kernel, bias, activation, recurrent_activation)
    G, H = len(cell_.gates), len(recurrent_kernel)
    valid = np.ones((B, T), bool) if mask is None else mask
    x = np.where(valid[:, :, None], x, 0.0).astype(float)
    if go_backwards:
        x, valid = x[:, ::-1], valid[:, ::-1]
    x_factor = np.ones((1, B, D)) if input_dropout is None else input_dropout.astype(float)
    h_factor = np.ones((G, B, H)) if recurrent_dropout is None else recurrent_dropout.astype(float)

    state = tuple(np.array(s, float) for s in initial_state or cell_.states * [np.zeros((B, H))])
    output = np.zeros((B, H))
    sequence = np.zeros((B, T, H))
    steps = []
    for t in range(T):
        now = valid[:, t, None]
        new, saved = cell_.forward(x[:, t] * x_factor, state[0] * h_factor, state)
        state = tuple(np.where(now, n, s) for n, s in zip(new, state, strict=True))
        output = np.where(now, new[0], output)
        sequence[:, t] = np.where(now, output, 0.0) if zero_output_for_mask else output
        steps.append(saved)

    flip = go_backwards and original_time
    tape = Tape(cell_, valid, x_factor, h_factor, steps, zero_output_for_mask, go_backwards, flip, bias is not None)
    return sequence[:, ::-1] if flip else sequence, state, sequence[:, -1], tape


@dataclass
class Tape:
    """What `forward` leaves for `backward`, in the order of processing."""

    cell: Any
    valid: Array
    x_factor: Array
    h_factor: Array
    steps: list[Any]
    zero_output_for_mask: bool
    go_backwards: bool
    flip: bool
    has_bias: bool


@dataclass
class Gradients:
    """The derivatives of the loss, each of the shape of what it belongs to."""

    x: Array
    initial_state: States
    kernel: Array
    recurrent_kernel: Array
    bias: Array | None


def backward(
    tape: Tape,
    dsequence: Array | None = None,
    dlast: Array | None = None,
    dfinal: tuple[Array | None, ...] | None = None,
) -> Gradients:
    """Backpropagation through time.

    Args:
        dsequence, dlast, dfinal: the gradients for the outputs, the last output, the final state (None: no gradient).

    The loop walks from the last step to the first with `dstate`, the gradient for the state after the step. At a valid
    step the cell turns it into the gradient for the state before; at a masked one, where the state was copied, it is
    handed on as it is. What comes in for an output joins it first, by one of three rules:

    - after the first valid step, the output *is* h (at a masked step: the h of the last valid one): it is added;
    - before the first valid step the output is a constant zero: it is dropped;
    - with `zero_output_for_mask` so is every masked output: it is dropped.
    """
    cell, valid = tape.cell, tape.valid
    B, T = valid.shape
    H = cell.recurrent_kernel.shape[-1]
    started = np.logical_or.accumulate(valid, axis=1)
    shows_h = valid if tape.zero_output_for_mask else started
    dy = np.zeros((B, T, H)) if dsequence is None else dsequence
    dy = np.where(shows_h[:, :, None], dy[:, ::-1] if tape.flip else dy, 0.0)

    dstate = tuple(np.zeros((B, H)) if d is None else np.array(d, float) for d in dfinal or cell.states * [None])
    if dlast is not None:
        dstate = (dstate[0] + np.where(shows_h[:, -1:], dlast, 0.0), *dstate[1:])
    dx = np.zeros((B, T, cell.kernel.shape[1]))
    for t in reversed(range(T)):
        now = valid[:, t, None]
        dstate = (dstate[0] + dy[:, t], *dstate[1:])
        dx_in, dh_in, dold = cell.backward(tape.steps[t], tuple(np.where(now, d, 0.0) for d in dstate))
        dx[:, t] = (dx_in * tape.x_factor).sum(0)
        dold = (dold[0] + (dh_in * tape.h_factor).sum(0), *dold[1:])
        dstate = tuple(np.where(now, old, d) for old, d in zip(dold, dstate, strict=True))

    return Gradients(
        x=dx[:, ::-1] if tape.go_backwards else dx,
        initial_state=dstate,
        kernel=as_columns(cell.dkernel),
        recurrent_kernel=as_columns(cell.drecurrent_kernel),
        bias=as_bias(cell.dbias) if tape.has_bias else None,
    )


# Axes.


def as_gates(weight: Array, gates: int) -> Array:
    """(rows, G*H) -> (G, rows, H)"""
    rows, columns = weight.shape
    return weight.astype(float).reshape(rows, gates, columns // gates).transpose(1, 0, 2)


def as_columns(weight: Array) -> Array:
    """(G, rows, H) -> (rows, G*H), the inverse of `as_gates`."""
    return weight.transpose(1, 0, 2).reshape(weight.shape[1], -1)


def as_bias(bias: Array) -> Array:
    """(rows, G, 1, H) -> (G*H,), or (2, G*H) for two rows."""
    return bias.reshape(-1) if len(bias) == 1 else bias.reshape(len(bias), -1)


def transpose(a: Array) -> Array:
    """The transpose of every gate's matrix."""
    return np.swapaxes(a, -1, -2)


def total(dz: Array) -> Array:
    """(G, B, H) -> (G, 1, H): the bias is added to every row of the batch, so its gradient is the sum over them."""
    return dz.sum(axis=1, keepdims=True)
