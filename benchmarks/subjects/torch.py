"""PyTorch's modules (oneDNN for LSTM, its own loop for GRU and RNN)."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import numpy as np
from cases import Case


def _torch():
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


def _module(case: Case, data: dict[str, np.ndarray], threads: int):
    torch = _torch()
    torch.set_num_threads(threads)
    module = {"LSTM": torch.nn.LSTM, "GRU": torch.nn.GRU, "SimpleRNN": torch.nn.RNN}[case.cell](
        case.sizes[2], case.sizes[3], batch_first=True
    )
    bias = np.atleast_2d(data["bias"])
    rows = [bias[0], bias[1] if len(bias) == 2 else np.zeros_like(bias[0])]
    values = [_to_torch(case.cell, a) for a in (data["kernel"], data["recurrent_kernel"], *rows)]
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), values, strict=True):
            parameter.copy_(torch.from_numpy(value))
    return module


def forward(case: Case, data: dict[str, np.ndarray], threads: int) -> Callable[[], list[np.ndarray]]:
    torch, module = _torch(), _module(case, data, threads)
    x = torch.from_numpy(data["x"])

    def step() -> list[np.ndarray]:
        with torch.inference_mode():
            return [module(x)[0].numpy()]

    return step


def training(case: Case, data: dict[str, np.ndarray], threads: int) -> Callable[[], list[np.ndarray]]:
    torch, module = _torch(), _module(case, data, threads)
    x, dy = torch.from_numpy(data["x"]).requires_grad_(), torch.from_numpy(data["dy"])

    def step() -> list[np.ndarray]:
        module.zero_grad()
        x.grad = None
        y = module(x)[0]
        y.backward(dy)
        w, u, b, c = (parameter.grad for parameter in module.parameters())
        return [y.detach(), x.grad, w, u, b, c]

    step.keras_layout = (
        lambda out: [  # type: ignore[attr-defined]
            np.asarray(out[0]),
            np.asarray(out[1]),
            _from_torch(case.cell, np.asarray(out[2])),
            _from_torch(case.cell, np.asarray(out[3])),
            _biases(case, [_from_torch(case.cell, np.asarray(b)) for b in out[4:]]),
        ]
    )
    return step


def _biases(case: Case, rows: list[np.ndarray]) -> np.ndarray:
    return np.stack(rows) if case.cell == "GRU" else rows[0]
