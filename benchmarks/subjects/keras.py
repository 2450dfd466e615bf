"""Keras on TensorFlow: `fit` as it comes; single layers inside a `tf.function`, as Keras compiles its own steps."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from cases import Case, Data, Work

os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3")


def version() -> str:
    import keras
    import tensorflow

    return f"{keras.__version__} on tensorflow {tensorflow.__version__}"


def _libraries(threads: int) -> tuple[Any, Any]:
    import keras
    import tensorflow

    tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
    tensorflow.config.threading.set_inter_op_parallelism_threads(threads)
    return keras, tensorflow


def _layer(keras: Any, case: Case, data: Data) -> Any:
    layer = getattr(keras.layers, case.cell)(
        case.sizes[3], return_sequences=True, zero_output_for_mask=data.lengths is not None
    )
    if case.directions == 2:
        layer = keras.layers.Bidirectional(layer)
    layer.build(data.x.shape)
    layer.set_weights([array for direction in data.weights for array in direction])
    return layer


def _mask(tensorflow: Any, data: Data) -> Any:
    if data.lengths is None:
        return None
    return tensorflow.constant(np.arange(data.x.shape[1]) < data.lengths[:, None])


def forward(case: Case, data: Data, threads: int) -> Work:
    keras, tensorflow = _libraries(threads)
    layer, mask, x = _layer(keras, case, data), _mask(tensorflow, data), tensorflow.constant(data.x)
    call = tensorflow.function(lambda x: layer(x, mask=mask))
    return Work(lambda: call(x).numpy(), lambda: [call(x)])


def training(case: Case, data: Data, threads: int) -> Work:
    keras, tensorflow = _libraries(threads)
    layer, mask = _layer(keras, case, data), _mask(tensorflow, data)
    x, dy = tensorflow.constant(data.x), tensorflow.constant(data.dy)
    weights = [weight.value for weight in layer.trainable_weights]

    @tensorflow.function
    def call(x: Any, dy: Any) -> list[Any]:
        with tensorflow.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, mask=mask, training=True)
        return [y, *tape.gradient(y, [x, *weights], output_gradients=dy)]

    def run() -> list[np.ndarray]:
        return [array.numpy() for array in call(x, dy)]

    return Work(run, run)


def fit(case: Case, data: None, threads: int) -> Work:
    import fitting

    keras, _ = _libraries(threads)
    return fitting.work(keras, case.cell)
