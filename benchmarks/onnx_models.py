"""A cell as an ONNX model of one node, for the subjects that read ONNX.

Layouts of the operators: x (T, B, I), Y (T, directions, B, H), W (directions, G*H, I), R (directions, G*H, H),
B (directions, 2*G*H). Gate orders: LSTM i o f c, GRU z r h with `linear_before_reset`, where Keras has i f c o, z r h.
Source: https://onnx.ai/onnx/operators/onnx__LSTM.html, onnx__GRU.html, onnx__RNN.html
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from cases import Case, Data

OPERATORS = {"LSTM": "LSTM", "GRU": "GRU", "SimpleRNN": "RNN"}


def _gates(cell: str, columns: np.ndarray) -> np.ndarray:
    """Keras' gate columns (..., G*H) in ONNX' order, transposed."""
    if cell == "LSTM":
        i, f, c, o = np.split(columns, 4, axis=-1)
        columns = np.concatenate([i, o, f, c], axis=-1)
    return np.ascontiguousarray(columns.T)


def state_names(case: Case) -> list[str]:
    return ["h", "c"] if case.cell == "LSTM" else ["h"]


def sequence(case: Case, data: Data, steps: bool = False) -> bytes:
    """The model: X and, with row lengths, `lengths` -> Y; with `steps`, X (1, 1, I), h and c -> h_out and c_out."""
    onnx = importlib.import_module("onnx")
    helper, numpy_helper, float32 = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT
    batch, time, features, units = case.sizes
    initializers = {
        "W": np.stack([_gates(case.cell, w.kernel) for w in data.weights]),
        "R": np.stack([_gates(case.cell, w.recurrent_kernel) for w in data.weights]),
        "B": np.stack([_bias(case.cell, w.bias) for w in data.weights]),
    }
    names = state_names(case)
    if steps:
        inputs = [_value(helper, float32, "X", (1, 1, features))]
        inputs += [_value(helper, float32, name, (1, 1, units)) for name in names]
        outputs = [_value(helper, float32, f"{name}_out", (1, 1, units)) for name in names]
        taken, given = ["X", "W", "R", "B", "", *names], ["", *(f"{name}_out" for name in names)]
    else:
        inputs = [_value(helper, float32, "X", (time, batch, features))]
        outputs = [_value(helper, float32, "Y", (time, case.directions, batch, units))]
        taken, given = ["X", "W", "R", "B"], ["Y"]
        if data.lengths is not None:
            inputs.append(_value(helper, onnx.TensorProto.INT32, "lengths", (batch,)))
            taken.append("lengths")
    attributes: dict[str, Any] = {"hidden_size": units}
    if case.directions == 2:
        attributes["direction"] = "bidirectional"
    if case.cell == "GRU":
        attributes["linear_before_reset"] = 1
    node = helper.make_node(OPERATORS[case.cell], taken, given, **attributes)
    graph = helper.make_graph(
        [node],
        case.cell,
        inputs,
        outputs,
        [numpy_helper.from_array(array, name) for name, array in initializers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _value(helper: Any, kind: int, name: str, shape: tuple[int, ...]) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def _bias(cell: str, bias: np.ndarray) -> np.ndarray:
    """(G*H,) or (2, G*H) -> (2*G*H,), the input's part first."""
    rows = bias if bias.ndim == 2 else np.stack([bias, np.zeros_like(bias)])
    return np.concatenate([_gates(cell, row) for row in rows])


def sequence_inputs(data: Data) -> dict[str, np.ndarray]:
    inputs = {"X": np.ascontiguousarray(data.x.swapaxes(0, 1))}
    if data.lengths is not None:
        inputs["lengths"] = data.lengths.astype(np.int32)
    return inputs


def step_inputs(data: Data) -> list[np.ndarray]:
    """x of each step, (1, 1, I)."""
    return [np.ascontiguousarray(data.x[:, t : t + 1]) for t in range(data.x.shape[1])]


def batch_first(y: np.ndarray) -> np.ndarray:
    """Y (T, directions, B, H) as (B, T, directions*H)."""
    time, directions, batch, units = y.shape
    return y.transpose(2, 0, 1, 3).reshape(batch, time, directions * units)
