"""The same model with the same weights and data gives Keras' losses, metrics and weights, in name, order and value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastrnn

rng = np.random.default_rng(8)


def floats(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype("float32")


def masked_tagger(k: Any) -> tuple[Any, Any, Any]:
    model = k.Sequential([
        k.Input((None,), dtype="int32"), k.layers.Embedding(9, 4, mask_zero=True),
        k.layers.GRU(5, return_sequences=True, kernel_regularizer="l2"), k.layers.Dense(4, activation="softmax"),
    ])  # fmt: skip
    model.compile(
        k.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"], weighted_metrics=["accuracy"]
    )
    ids = np.array([[1, 2, 3, 0, 0], [4, 0, 0, 0, 0], [5, 6, 7, 8, 1], [2, 2, 0, 0, 0], [3, 1, 1, 4, 0]])
    return model, ids, np.random.default_rng(0).integers(0, 4, size=(5, 5))


def two_outputs(k: Any) -> tuple[Any, Any, Any]:
    a, b = k.Input((4, 3), name="a"), k.Input((2,), name="b")
    h, state = k.layers.GRU(4, return_state=True, name="rnn")(a)
    h = k.layers.Concatenate(name="joined")([h, b])
    one = k.layers.Dense(1, name="one", activity_regularizer="l2", bias_regularizer="l1")(h)
    two = k.layers.Dense(3, activation="sigmoid", name="two")(state)
    model = k.Model([a, b], [one, two])
    model.compile(
        k.optimizers.Adam(0.01), {"one": "mse", "two": "binary_crossentropy"}, loss_weights={"one": 0.25, "two": 3.0},
        metrics={"one": ["mae", "mse"], "two": ["accuracy"]}, weighted_metrics={"one": ["mae"], "two": []},
    )  # fmt: skip
    g = np.random.default_rng(1)
    x = {"a": g.normal(size=(7, 4, 3)).astype("float32"), "b": g.normal(size=(7, 2)).astype("float32")}
    return model, x, {"one": g.normal(size=(7, 1)), "two": g.integers(0, 2, size=(7, 3))}


def frozen_regression(k: Any) -> tuple[Any, Any, Any]:
    model = k.Sequential(
        [
            k.Input((None, 2)),
            k.layers.LSTM(4, bias_regularizer="l2"),
            k.layers.Dense(3, activation="tanh"),
            k.layers.Dense(1),
        ]
    )
    model.layers[0].trainable = False
    model.compile("rmsprop", "huber", metrics=["mse", "mean_absolute_percentage_error"])
    g = np.random.default_rng(2)
    return model, g.normal(size=(9, 5, 2)).astype("float32"), g.normal(size=(9, 1))


def pairs(keras: Any, build: Any) -> tuple[Any, Any, Any, Any]:
    theirs, x, y = build(keras)
    ours, _, _ = build(fastrnn)
    ours.set_weights([np.asarray(w) for w in theirs.get_weights()])
    return ours, theirs, x, y


def close(found: Any, expected: Any) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-5, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("build", [masked_tagger, two_outputs, frozen_regression], ids=lambda f: f.__name__)
def test_history_and_weights_are_those_of_keras(keras: Any, build: Any) -> None:
    ours, theirs, x, y = pairs(keras, build)
    options: dict[str, Any] = {"batch_size": 3, "epochs": 3, "shuffle": False, "verbose": 0, "validation_data": (x, y)}
    if build is masked_tagger:
        options["sample_weight"] = np.random.default_rng(4).uniform(size=(5, 5)).astype("float32")
    close(ours.fit(x, y, **options).history, theirs.fit(x, y, **options).history)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    close(ours.evaluate(x, y, verbose=0, return_dict=True), theirs.evaluate(x, y, verbose=0, return_dict=True))
    if build is two_outputs:
        np.testing.assert_allclose(
            ours.evaluate(x, y, verbose=0), theirs.evaluate(x, y, verbose=0), rtol=2e-5, atol=1e-6
        )
    close(ours.train_on_batch(x, y, return_dict=True), theirs.train_on_batch(x, y, return_dict=True))
    close(ours.test_on_batch(x, y, return_dict=True), theirs.test_on_batch(x, y, return_dict=True))


def test_class_weights_weigh_as_in_keras(keras: Any) -> None:
    def build(k: Any) -> tuple[Any, Any, Any]:
        model = k.Sequential([k.Input((2,)), k.layers.Dense(3, activation="softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], weighted_metrics=["accuracy"])
        return model, None, None

    ours, theirs, _, _ = pairs(keras, build)
    x, y = floats(8, 2), rng.integers(0, 3, size=(8, 1))
    options: dict[str, Any] = {
        "class_weight": {0: 0.3, 1: 2.0},
        "batch_size": 4,
        "epochs": 2,
        "shuffle": False,
        "verbose": 0,
    }
    close(ours.fit(x, y, **options).history, theirs.fit(x, y, **options).history)


def test_weights_of_steps_and_a_validation_split_as_in_keras(keras: Any) -> None:
    def build(k: Any) -> tuple[Any, Any, Any]:
        model = k.Sequential([k.Input((None, 2)), k.layers.SimpleRNN(3, return_sequences=True), k.layers.Dense(1)])
        model.compile("adam", "mae", metrics=["mse"], weighted_metrics=["mse"])
        return model, None, None

    ours, theirs, _, _ = pairs(keras, build)
    x, y, w = floats(10, 4, 2), floats(10, 4, 1), rng.uniform(size=(10, 4)).astype("float32")
    options: dict[str, Any] = {
        "sample_weight": w,
        "validation_split": 0.25,
        "epochs": 2,
        "shuffle": False,
        "verbose": 0,
    }
    close(ours.fit(x, y, **options).history, theirs.fit(x, y, **options).history)
