"""onnxruntime: ONNX' own LSTM, GRU and RNN, the weights as initializers, so that it may pack them once. Forward only.

x is (T, B, I), as the operators want it, outside the timed part already.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import onnx_models
from cases import Case, Data, Work


def version() -> str:
    return importlib.import_module("onnxruntime").__version__


def _session(model: bytes, threads: int) -> Any:
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def forward(case: Case, data: Data, threads: int) -> Work:
    session = _session(onnx_models.sequence(case, data), threads)
    feed = onnx_models.sequence_inputs(data)

    def run() -> np.ndarray:
        return session.run(["Y"], feed)[0]

    return Work(run, lambda: [onnx_models.batch_first(run())])


def step(case: Case, data: Data, threads: int) -> Work:
    session = _session(onnx_models.sequence(case, data, steps=True), threads)
    inputs, names = onnx_models.step_inputs(data), onnx_models.state_names(case)
    outputs = [f"{name}_out" for name in names]
    zero = np.zeros((1, 1, case.sizes[3]), np.float32)
    feed = {"X": inputs[0], **dict.fromkeys(names, zero)}

    def run() -> np.ndarray:
        for name, value in zip(names, session.run(outputs, feed), strict=True):
            feed[name] = value
        return feed[names[0]]

    def results() -> list[np.ndarray]:
        feed.update(dict.fromkeys(names, zero))
        rows = []
        for x in inputs:
            feed["X"] = x
            rows.append(run()[0])
        feed["X"] = inputs[0]
        return [np.stack(rows, axis=1)]

    return Work(run, results)
