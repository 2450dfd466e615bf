"""OpenVINO, from the ONNX models that onnxruntime runs, with its settings for latency, in float32. Forward only."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np
import onnx_models
from cases import Case, Data, Work

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # or a thread of it calls home


def version() -> str:
    return importlib.import_module("openvino").__version__.split("-")[0]


def _request(model: bytes, threads: int) -> Any:
    openvino = importlib.import_module("openvino")
    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
    }
    return core.compile_model(core.read_model(model), "CPU", settings).create_infer_request()


def forward(case: Case, data: Data, threads: int) -> Work:
    request = _request(onnx_models.sequence(case, data), threads)
    tensor = importlib.import_module("openvino").Tensor
    for name, array in onnx_models.sequence_inputs(data).items():
        request.set_tensor(name, tensor(array))

    def results() -> list[np.ndarray]:
        request.infer()
        return [onnx_models.batch_first(np.array(request.get_output_tensor(0).data))]

    return Work(request.infer, results)


def step(case: Case, data: Data, threads: int) -> Work:
    """One `infer` a step; the states are copied from the outputs' tensors to those of the inputs."""
    request = _request(onnx_models.sequence(case, data, steps=True), threads)
    inputs, names = onnx_models.step_inputs(data), onnx_models.state_names(case)
    x, *states = (request.get_tensor(name).data for name in ("X", *names))
    outputs = [request.get_tensor(f"{name}_out").data for name in names]

    def run() -> None:
        request.infer()
        for state, output in zip(states, outputs, strict=True):
            state[:] = output

    def results() -> list[np.ndarray]:
        rows = []
        for state in states:
            state[:] = 0
        for x_t in inputs:
            x[:] = x_t
            run()
            rows.append(states[0][0].copy())
        return [np.stack(rows, axis=1)]

    x[:] = inputs[0]
    return Work(run, results)
