"""A plain loop over time in NumPy: what the equations cost when written down as they are. No subject to beat.

A cell is a pair: `forward(state, zx, u, b)` takes one step and keeps what the way back needs; `backward` takes it back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from cases import Case, Data, Unsupported, Work

Array = np.ndarray


def version() -> str:
    return np.__version__


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


class LSTM:
    states = 2

    @staticmethod
    def forward(state: Any, zx: Array, u: Array, b: Any) -> tuple[Any, Any]:
        h, c = state
        i, f, g, o = np.split(zx + h @ u, 4, axis=1)
        i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
        new_c = f * c + i * g
        t = np.tanh(new_c)
        return (o * t, new_c), (h, c, i, f, g, o, t)

    @staticmethod
    def backward(dstate: Any, saved: Any, u: Array) -> tuple[Any, Array, Array]:
        dh, dc = dstate
        _, c, i, f, g, o, t = saved
        dc = dc + dh * o * (1 - t * t)
        dz = np.concatenate(
            [dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g), dh * t * o * (1 - o)], axis=1
        )
        return (dz @ u.T, dc * f), dz, dz


class GRU:
    states = 1

    @staticmethod
    def forward(state: Any, zx: Array, u: Array, b: Any) -> tuple[Any, Any]:
        (h,) = state
        zx_z, zx_r, zx_g = np.split(zx, 3, axis=1)
        zh_z, zh_r, zh_g = np.split(h @ u + b, 3, axis=1)
        z, r = _sigmoid(zx_z + zh_z), _sigmoid(zx_r + zh_r)
        g = np.tanh(zx_g + r * zh_g)
        return (z * h + (1 - z) * g,), (h, z, r, g, zh_g)

    @staticmethod
    def backward(dstate: Any, saved: Any, u: Array) -> tuple[Any, Array, Array]:
        (dh,) = dstate
        h, z, r, g, zh_g = saved
        dg = dh * (1 - z) * (1 - g * g)
        dz, dr = dh * (h - g) * z * (1 - z), dg * zh_g * r * (1 - r)
        dzh = np.concatenate([dz, dr, dg * r], axis=1)
        return (dh * z + dzh @ u.T,), np.concatenate([dz, dr, dg], axis=1), dzh


class SimpleRNN:
    states = 1

    @staticmethod
    def forward(state: Any, zx: Array, u: Array, b: Any) -> tuple[Any, Any]:
        h = np.tanh(zx + state[0] @ u)
        return (h,), (state[0], h)

    @staticmethod
    def backward(dstate: Any, saved: Any, u: Array) -> tuple[Any, Array, Array]:
        dz = dstate[0] * (1 - saved[1] * saved[1])
        return (dz @ u.T,), dz, dz


CELLS: dict[str, Any] = {"LSTM": LSTM, "GRU": GRU, "SimpleRNN": SimpleRNN}


def _check(case: Case, data: Data) -> None:
    if data.lengths is not None or case.directions == 2:
        raise Unsupported("only whole rows in one direction are written for it")


def _sequence(case: Case, data: Data) -> tuple[Array, list[Any]]:
    cell, (kernel, recurrent_kernel, bias) = CELLS[case.cell], data.weights[0]
    b, b_recurrent = bias if bias.ndim == 2 else (bias, None)
    zx = data.x @ kernel + b
    state = (np.zeros((len(zx), case.sizes[3]), np.float32),) * cell.states
    y, kept = np.empty((*zx.shape[:2], case.sizes[3]), np.float32), []
    for t in range(zx.shape[1]):
        state, saved = cell.forward(state, zx[:, t], recurrent_kernel, b_recurrent)
        y[:, t] = state[0]
        kept.append(saved)
    return y, kept


def forward(case: Case, data: Data, threads: int) -> Work:
    _check(case, data)
    return Work(lambda: _sequence(case, data), lambda: [_sequence(case, data)[0]])


def training(case: Case, data: Data, threads: int) -> Work:
    _check(case, data)
    cell, (kernel, recurrent_kernel, bias) = CELLS[case.cell], data.weights[0]
    batch, time, features, units = case.sizes

    def run() -> list[Array]:
        y, kept = _sequence(case, data)
        dzx, dzh = (np.empty((batch, time, kernel.shape[1]), np.float32) for _ in range(2))
        dstate = (np.zeros((batch, units), np.float32),) * cell.states
        for t in reversed(range(time)):
            dstate = (dstate[0] + data.dy[:, t], *dstate[1:])
            dstate, dzx[:, t], dzh[:, t] = cell.backward(dstate, kept[t], recurrent_kernel)
        h = np.concatenate([np.zeros((batch, 1, units), np.float32), y[:, :-1]], axis=1)
        rows_x, rows_h = dzx.reshape(-1, dzx.shape[2]), dzh.reshape(-1, dzh.shape[2])
        db = np.stack([rows_x.sum(0), rows_h.sum(0)]) if bias.ndim == 2 else rows_x.sum(0)
        dw, du = data.x.reshape(-1, features).T @ rows_x, h.reshape(-1, units).T @ rows_h
        return [y, dzx @ kernel.T, dw, du, db]

    return Work(run, run)


def step(case: Case, data: Data, threads: int) -> Work:
    cell, (kernel, recurrent_kernel, bias) = CELLS[case.cell], data.weights[0]
    b, b_recurrent = bias if bias.ndim == 2 else (bias, None)
    inputs = [data.x[:, t] for t in range(data.x.shape[1])]
    zero = (np.zeros((1, case.sizes[3]), np.float32),) * cell.states
    state = [zero]

    def run(x: Array = inputs[0]) -> Array:
        state[0], _ = cell.forward(state[0], x @ kernel + b, recurrent_kernel, b_recurrent)
        return state[0][0]

    def results() -> list[Array]:
        state[0] = zero
        return [np.stack([run(x) for x in inputs], axis=1)]

    return Work(run, results)
