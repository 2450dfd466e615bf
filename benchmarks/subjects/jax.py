"""JAX: a jitted `lax.scan`, with x W for all steps as one product before it; gradients by `jax.vjp`.

Time is the leading axis, as `scan` wants it, outside the timed part already.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np
from cases import Case, Data, Unsupported, Work

os.environ["JAX_PLATFORMS"] = "cpu"


def version() -> str:
    return importlib.import_module("jax").__version__


def _step(jax: Any, cell: str, units: int) -> Any:
    """(recurrent_kernel, recurrent bias) -> state, zx -> state, h. Equations and gate orders are Keras'."""
    sigmoid, tanh = jax.nn.sigmoid, jax.numpy.tanh

    def lstm(u: Any, _: Any) -> Any:
        def step(state: Any, zx: Any) -> Any:
            h, c = state
            z = zx + h @ u
            i, f, g, o = (z[:, k * units : (k + 1) * units] for k in range(4))
            c = sigmoid(f) * c + sigmoid(i) * tanh(g)
            h = sigmoid(o) * tanh(c)
            return (h, c), h

        return step

    def gru(u: Any, b: Any) -> Any:
        def step(state: Any, zx: Any) -> Any:
            (h,) = state
            zh = h @ u + b
            z = sigmoid(zx[:, :units] + zh[:, :units])
            r = sigmoid(zx[:, units : 2 * units] + zh[:, units : 2 * units])
            candidate = tanh(zx[:, 2 * units :] + r * zh[:, 2 * units :])
            h = z * h + (1 - z) * candidate
            return (h,), h

        return step

    def rnn(u: Any, _: Any) -> Any:
        def step(state: Any, zx: Any) -> Any:
            h = tanh(zx + state[0] @ u)
            return (h,), h

        return step

    return {"LSTM": lstm, "GRU": gru, "SimpleRNN": rnn}[cell]


def _layer(jax: Any, case: Case) -> Any:
    """A function of the weights of all directions and x (T, B, I) that gives y (T, B, H) or (T, B, 2*H)."""
    units, states = case.sizes[3], 2 if case.cell == "LSTM" else 1
    make = _step(jax, case.cell, units)

    def one(weights: Any, x: Any, reverse: bool) -> Any:
        kernel, recurrent_kernel, bias = weights
        zx = x @ kernel + (bias[0] if case.cell == "GRU" else bias)
        start = (jax.numpy.zeros((x.shape[1], units), x.dtype),) * states
        step = make(recurrent_kernel, bias[1] if case.cell == "GRU" else None)
        return jax.lax.scan(step, start, zx, reverse=reverse)[1]

    def layer(weights: Any, x: Any) -> Any:
        outputs = [one(w, x, reverse=i == 1) for i, w in enumerate(weights)]
        return jax.numpy.concatenate(outputs, axis=-1) if len(outputs) > 1 else outputs[0]

    return layer


def _arrays(jax: Any, case: Case, data: Data) -> tuple[Any, Any, Any]:
    if data.lengths is not None:
        raise Unsupported("row lengths are not written for it")
    x, dy = (jax.numpy.asarray(np.ascontiguousarray(a.swapaxes(0, 1))) for a in (data.x, data.dy))
    return [tuple(map(jax.numpy.asarray, w)) for w in data.weights], x, dy


def forward(case: Case, data: Data, threads: int) -> Work:
    jax = importlib.import_module("jax")
    weights, x, _ = _arrays(jax, case, data)
    call = jax.jit(_layer(jax, case))

    def run() -> Any:
        return call(weights, x).block_until_ready()

    return Work(run, lambda: [np.asarray(run()).swapaxes(0, 1)])


def training(case: Case, data: Data, threads: int) -> Work:
    jax = importlib.import_module("jax")
    weights, x, dy = _arrays(jax, case, data)
    layer = _layer(jax, case)

    @jax.jit
    def call(weights: Any, x: Any, dy: Any) -> Any:
        y, pull_back = jax.vjp(layer, weights, x)
        return y, pull_back(dy)

    def run() -> Any:
        return jax.block_until_ready(call(weights, x, dy))

    def results() -> list[np.ndarray]:
        y, (dweights, dx) = run()
        return [y.swapaxes(0, 1), dx.swapaxes(0, 1), *(array for direction in dweights for array in direction)]

    return Work(run, results)
