"""Models of every shape of graph, built by name, with data that fit them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastrnn import Input, Model, Sequential, layers

BATCH, TIME, FEATURES = 6, 5, 3


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def tokens(*shape: int, vocabulary: int = 7, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, vocabulary, shape)


def sequential() -> Sequential:
    return Sequential(
        [
            Input((None, FEATURES)),
            layers.LSTM(4, return_sequences=True, dropout=0.3, recurrent_dropout=0.3),
            layers.Dropout(0.2),
            layers.GRU(3, reset_after=False, kernel_regularizer="l2", recurrent_constraint="max_norm"),
            layers.Dense(2, activation="tanh", name="head"),
        ],
        name="stack",
    )


def built_by_data() -> Sequential:
    model = Sequential([layers.SimpleRNN(4), layers.Dense(2)])
    model(floats(BATCH, TIME, FEATURES))
    return model


def masked() -> Sequential:
    return Sequential(
        [
            Input((None,), dtype="int32"),
            layers.Embedding(7, 4, mask_zero=True),
            layers.Bidirectional(layers.LSTM(3, return_sequences=True), merge_mode="sum"),
            layers.TimeDistributed(layers.Dense(3, activation="relu")),
            layers.GRU(2),
        ]
    )


def other_direction() -> Sequential:
    backward = layers.GRU(3, go_backwards=True, name="mirror")
    return Sequential(
        [Input((TIME, FEATURES)), layers.Bidirectional(layers.GRU(2), backward_layer=backward), layers.Dense(2)]
    )


def shared() -> Model:
    a, b = Input((TIME, FEATURES), name="left"), Input((TIME, FEATURES), name="right")
    encoder, again = layers.LSTM(4, name="encoder"), layers.Dense(4)
    x, y = encoder(a), encoder(b)
    return Model([a, b], layers.Dense(2)(layers.Concatenate()([again(x), again(again(y)), x * 2.0 + y])))


def several_outputs() -> Model:
    x = Input((TIME, FEATURES))
    sequence, h, c = layers.LSTM(4, return_sequences=True, return_state=True)(x)
    return Model({"x": x}, [layers.Dense(1, name="last")(h), layers.Dense(2, name="every")(sequence[:, 1:]), c])


def nested() -> Model:
    inner = Sequential([Input((None, FEATURES)), layers.LSTM(4), layers.Dense(3)], name="inner")
    x = Input((TIME, FEATURES))
    middle_in = Input((TIME, FEATURES))
    middle = Model(middle_in, layers.Dense(2, name="dense")(inner(middle_in)), name="middle")
    return Model(x, layers.Add()([middle(x), layers.Dense(2, name="dense")(inner(x))]), name="outer")


def encoder_decoder() -> Model:
    source, target = Input((None, FEATURES)), Input((None, FEATURES))
    _, h, c = layers.LSTM(4, return_state=True)(source)
    decoded = layers.LSTM(4, return_sequences=True)(target, initial_state=[h, c])
    return Model([source, target], layers.Dense(2)(decoded))


def float64() -> Sequential:
    return Sequential([Input((TIME, FEATURES), dtype="float64"), layers.GRU(3, dtype="float64"), layers.Dense(2)])


def stateful() -> Sequential:
    return Sequential([Input(batch_shape=(BATCH, TIME, FEATURES)), layers.LSTM(4, stateful=True), layers.Dense(2)])


def inputs_of(model: Any) -> Any:
    """Arrays for the model's inputs, in the form of the inputs."""
    made = []
    for i, tensor in enumerate(model.inputs):
        shape = tuple(n or size for n, size in zip(tensor.shape, (BATCH, TIME, FEATURES), strict=False))
        made.append(tokens(*shape, seed=i) if tensor.dtype.startswith("int") else floats(*shape, seed=i))
    return (
        dict(zip(model.input, made, strict=True))
        if isinstance(model.input, dict)
        else made
        if len(made) > 1
        else made[0]
    )


def outputs_of(model: Any) -> list[np.ndarray]:
    found = model.predict(inputs_of(model), verbose=0)
    return list(found) if isinstance(found, list) else [found]


def targets_of(model: Any) -> Any:
    made = [np.tanh(floats(*np.shape(y), seed=9)) for y in outputs_of(model)]
    return made if len(made) > 1 else made[0]


ZOO: dict[str, Callable[[], Any]] = {
    f.__name__: f
    for f in (
        sequential,
        built_by_data,
        masked,
        other_direction,
        shared,
        several_outputs,
        nested,
        encoder_decoder,
        float64,
        stateful,
    )
}


def small(**compile_arguments):
    made = Sequential([Input((None, 3)), layers.LSTM(4), layers.Dense(2)])
    if compile_arguments:
        made.compile(**compile_arguments)
    return made


def trained(made, optimizer="adam"):
    made.compile(optimizer, "mse")
    made.train_on_batch(inputs_of(made), targets_of(made))
    return made


def same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)
