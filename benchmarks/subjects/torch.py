"""PyTorch's modules (oneDNN for LSTM, its own loop for GRU and RNN)."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from cases import Case, Data, Work


def _torch() -> Any:
    return importlib.import_module("torch")


def version() -> str:
    return _torch().__version__


def _to_torch(cell: str, columns: np.ndarray) -> np.ndarray:
    """Keras' gate columns (..., G*H) in PyTorch's order, transposed: GRU swaps update and reset."""
    if cell == "GRU":
        z, r, h = np.split(columns, 3, axis=-1)
        columns = np.concatenate([r, z, h], axis=-1)
    return np.ascontiguousarray(columns.T)


def _from_torch(cell: str, rows: np.ndarray) -> np.ndarray:
    if cell == "GRU":
        r, z, h = np.split(rows, 3, axis=0)
        rows = np.concatenate([z, r, h], axis=0)
    return rows.T


def _module(case: Case, data: Data, threads: int) -> Any:
    torch = _torch()
    torch.set_num_threads(threads)
    module = {"LSTM": torch.nn.LSTM, "GRU": torch.nn.GRU, "SimpleRNN": torch.nn.RNN}[case.cell](
        case.sizes[2], case.sizes[3], batch_first=True, bidirectional=case.directions == 2
    )
    values = []
    for kernel, recurrent_kernel, bias in data.weights:
        rows = bias if bias.ndim == 2 else np.stack([bias, np.zeros_like(bias)])
        values += [_to_torch(case.cell, a) for a in (kernel, recurrent_kernel, *rows)]
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), values, strict=True):
            parameter.copy_(torch.from_numpy(value))
    return module


def _call(module: Any, data: Data) -> Any:
    """The module as a function of x: with row lengths, of a packed sequence, padded again with zeros."""
    if data.lengths is None:
        return lambda x: module(x)[0]
    torch = _torch()
    rnn, lengths, total = torch.nn.utils.rnn, torch.from_numpy(data.lengths), data.x.shape[1]

    def call(x: Any) -> Any:
        packed = rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return rnn.pad_packed_sequence(module(packed)[0], batch_first=True, total_length=total)[0]

    return call


def forward(case: Case, data: Data, threads: int) -> Work:
    torch = _torch()
    call, x = _call(_module(case, data, threads), data), torch.from_numpy(data.x)

    def run() -> np.ndarray:
        with torch.inference_mode():
            return call(x).numpy()

    return Work(run, lambda: [run()])


def training(case: Case, data: Data, threads: int) -> Work:
    torch, module = _torch(), _module(case, data, threads)
    call, x, dy = _call(module, data), torch.from_numpy(data.x).requires_grad_(), torch.from_numpy(data.dy)

    def run() -> Any:
        module.zero_grad()
        x.grad = None
        y = call(x)
        y.backward(dy)
        return y

    def results() -> list[np.ndarray]:
        found = [run().detach().numpy(), x.grad.numpy()]
        gradients = [_from_torch(case.cell, parameter.grad.numpy()) for parameter in module.parameters()]
        for at in range(0, len(gradients), 4):  # of one direction: kernel, recurrent kernel, bias of each
            dw, du, db, db_recurrent = gradients[at : at + 4]
            found += [dw, du, np.stack([db, db_recurrent]) if case.cell == "GRU" else db]
        return found

    return Work(run, results)


def step(case: Case, data: Data, threads: int) -> Work:
    torch, module = _torch(), _module(case, data, threads)
    inputs = [torch.from_numpy(data.x[:, t : t + 1]) for t in range(data.x.shape[1])]
    state: list[Any] = [None]

    def run(x: Any = inputs[0]) -> Any:
        with torch.inference_mode():
            y, state[0] = module(x, state[0])
        return y

    def results() -> list[np.ndarray]:
        state[0] = None
        return [np.concatenate([run(x).numpy() for x in inputs], axis=1)]

    return Work(run, results)
