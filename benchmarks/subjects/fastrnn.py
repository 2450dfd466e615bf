"""fastrnn, through the layer protocol that models run on. In training the weights count as changed in every step, so
that packing them is part of the time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from cases import Case


def version() -> str:
    import fastrnn

    return fastrnn.__version__


def _layer(case: Case, data: dict[str, np.ndarray], threads: int):
    import fastrnn
    from fastrnn import layers

    fastrnn.set_num_threads(threads)
    layer = getattr(layers, case.cell)(case.sizes[3], return_sequences=True)
    layer.build(data["x"].shape)
    layer.set_weights([data["kernel"], data["recurrent_kernel"], data["bias"]])
    return layer


def forward(case: Case, data: dict[str, np.ndarray], threads: int) -> Callable[[], list[np.ndarray]]:
    from fastrnn.states import Context, StateStore

    layer, context = _layer(case, data, threads), Context(store=StateStore())
    return lambda: [layer.forward(data["x"], None, context)[0]]


def training(case: Case, data: dict[str, np.ndarray], threads: int) -> Callable[[], list[np.ndarray]]:
    from fastrnn import params
    from fastrnn.states import Context, StateStore

    layer = _layer(case, data, threads)
    params.adopt(layer.weights)
    context = Context(training=True, record=True, store=StateStore())
    block = layer.weights[0].block

    def step() -> list[np.ndarray]:
        block.changed()
        block.gradients.fill(0)
        y, saved = layer.forward(data["x"], None, context)
        dx = layer.backward(saved, data["dy"])
        return [y, dx, *(weight.gradient for weight in layer.weights)]

    return step
