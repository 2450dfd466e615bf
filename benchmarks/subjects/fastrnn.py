"""fastrnn, through the layer protocol that models run on. In training the weights count as changed in every step, so
that packing them is part of the time."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from cases import Case, Data, Work


def version() -> str:
    import fastrnn

    return fastrnn.__version__


def _layer(case: Case, data: Data, threads: int) -> Any:
    import fastrnn
    from fastrnn import layers

    fastrnn.set_num_threads(threads)
    layer = getattr(layers, case.cell)(
        case.sizes[3], return_sequences=True, zero_output_for_mask=data.lengths is not None
    )
    if case.directions == 2:
        layer = layers.Bidirectional(layer)
    layer.build(data.x.shape)
    layer.set_weights([array for direction in data.weights for array in direction])
    return layer


def _mask(data: Data) -> np.ndarray | None:
    return None if data.lengths is None else np.arange(data.x.shape[1]) < data.lengths[:, None]


def forward(case: Case, data: Data, threads: int) -> Work:
    from fastrnn.states import Context, StateStore

    layer, mask, context = _layer(case, data, threads), _mask(data), Context(store=StateStore())

    def run() -> np.ndarray:
        return layer.forward(data.x, mask, context)[0]

    return Work(run, lambda: [run()])


def training(case: Case, data: Data, threads: int) -> Work:
    from fastrnn import params
    from fastrnn.states import Context, StateStore

    layer, mask = _layer(case, data, threads), _mask(data)
    params.adopt(layer.weights)
    context = Context(training=True, record=True, store=StateStore())
    block = layer.weights[0].block

    def run() -> list[np.ndarray]:
        block.changed()
        block.gradients.fill(0)
        y, saved = layer.forward(data.x, mask, context)
        return [y, layer.backward(saved, data.dy)]

    return Work(run, lambda: [*run(), *(weight.gradient for weight in layer.weights)])


def step(case: Case, data: Data, threads: int) -> Work:
    import fastrnn
    from fastrnn import layers

    fastrnn.set_num_threads(threads)
    x = data.x
    model = fastrnn.Sequential(
        [layers.Input((None, x.shape[2])), getattr(layers, case.cell)(case.sizes[3], return_sequences=True)]
    )
    model.set_weights(list(data.weights[0]))
    if not callable(getattr(type(model), "stepper", None)):
        return _step_by_calls(model.layers[-1], x)
    stepper = model.stepper(batch_size=1)
    inputs = [np.ascontiguousarray(x[:, t]) for t in range(x.shape[1])]

    def results() -> list[np.ndarray]:
        stepper.reset()
        return [np.stack([stepper.step(x_t).copy() for x_t in inputs], axis=1)]

    return Work(functools.partial(stepper.step, inputs[0]), results)


def _step_by_calls(layer: Any, x: np.ndarray) -> Work:
    """For versions without `stepper`: a call of the layer with one step and the states of the last."""
    from fastrnn.states import Context, StateStore

    context, state = Context(store=StateStore()), [()]

    def run(t: int = 0) -> np.ndarray:
        _, y, state[0], _ = layer.run(x[:, t : t + 1], None, state[0], context)
        return y

    def results() -> list[np.ndarray]:
        state[0] = ()
        return [np.stack([run(t).copy() for t in range(x.shape[1])], axis=1)]

    return Work(run, results)


def fit(case: Case, data: None, threads: int) -> Work:
    import fitting

    import fastrnn

    fastrnn.set_num_threads(threads)
    return fitting.work(fastrnn, case.cell)
