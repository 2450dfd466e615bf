"""The battery of tests/contract.py over every layer that is not recurrent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from contract import check_layer

from fastrnn import layers, registry
from fastrnn.layers.arithmetic import Affine, Power, Slice
from fastrnn.layers.layer import Layer
from fastrnn.layers.merging import Divide

SEQUENCE = (3, 5, 4)

CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "dense": (lambda **o: layers.Dense(3, **o), (4, 5), {}),
    "dense one of each": (lambda **o: layers.Dense(1, **o), (1, 1), {}),
    "dense without bias": (lambda **o: layers.Dense(3, use_bias=False, **o), (4, 5), {}),
    "dense tanh": (lambda **o: layers.Dense(3, activation="tanh", **o), (4, 5), {}),
    "dense gelu": (lambda **o: layers.Dense(3, activation="gelu", **o), (4, 5), {}),
    "dense softmax on sequences": (lambda **o: layers.Dense(3, activation="softmax", **o), SEQUENCE, {"masked": True}),
    "dense on four axes": (lambda **o: layers.Dense(3, **o), (2, 3, 2, 4), {}),
    "dense wide": (lambda **o: layers.Dense(33, activation="sigmoid", **o), (7, 17), {}),
    "dense regularized": (
        lambda **o: layers.Dense(3, kernel_regularizer="l2", bias_constraint="non_neg", activity_regularizer="l1", **o),
        (4, 5),
        {},
    ),
    "embedding": (lambda **o: layers.Embedding(7, 3, **o), (4, 5), {"integers": 7}),
    "embedding with mask": (lambda **o: layers.Embedding(4, 3, mask_zero=True, **o), (4, 5), {"integers": 4}),
    "embedding of one id a row": (lambda **o: layers.Embedding(7, 3, **o), (4,), {"integers": 7}),
    "masking": (lambda **o: layers.Masking(**o), SEQUENCE, {}),
    "dropout": (lambda **o: layers.Dropout(0.4, seed=5, **o), SEQUENCE, {"training": True, "masked": True}),
    "dropout, not training": (lambda **o: layers.Dropout(0.4, **o), SEQUENCE, {}),
    "dropout, one mask a step": (
        lambda **o: layers.Dropout(0.4, noise_shape=(None, None, 1), **o),
        SEQUENCE,
        {"training": True},
    ),
    "spatial dropout": (lambda **o: layers.SpatialDropout1D(0.4, **o), SEQUENCE, {"training": True}),
    "activation": (lambda **o: layers.Activation("tanh", **o), SEQUENCE, {"masked": True, "padding": "nothing"}),
    "activation of its input": (lambda **o: layers.Activation("silu", **o), (4, 5), {}),
    "softmax": (lambda **o: layers.Softmax(**o), (4, 5), {}),
    "softmax over time": (lambda **o: layers.Softmax(axis=1, **o), SEQUENCE, {}),
    "relu": (lambda **o: layers.ReLU(max_value=0.7, negative_slope=0.1, **o), (4, 5), {}),
    "relu with threshold": (lambda **o: layers.ReLU(threshold=0.05, negative_slope=0.1, **o), (4, 5), {}),
    "leaky relu": (lambda **o: layers.LeakyReLU(**o), (4, 5), {}),
    "elu": (lambda **o: layers.ELU(0.5, **o), (4, 5), {}),
    "flatten": (lambda **o: layers.Flatten(**o), SEQUENCE, {}),
    "flatten of nothing to flatten": (lambda **o: layers.Flatten(**o), (4,), {}),
    "flatten integers": (lambda **o: layers.Flatten(**o), (3, 4), {"integers": 9}),
    "reshape": (lambda **o: layers.Reshape((2, -1), **o), (3, 4, 5), {}),
    "reshape to one axis": (lambda **o: layers.Reshape(20, **o), (3, 4, 5), {}),
    "permute": (lambda **o: layers.Permute((3, 1, 2), **o), (2, 3, 4, 5), {}),
    "repeat vector": (lambda **o: layers.RepeatVector(3, **o), (4, 5), {}),
    "add": (lambda **o: layers.Add(**o), [SEQUENCE, SEQUENCE, SEQUENCE], {"masked": True}),
    "add, stretched": (lambda **o: layers.Add(**o), [SEQUENCE, (3, 1, 4), (3, 4)], {}),
    "subtract": (lambda **o: layers.Subtract(**o), [(3, 4), (3, 4)], {}),
    "subtract, stretched": (lambda **o: layers.Subtract(**o), [(3, 1), (3, 4)], {}),
    "multiply": (lambda **o: layers.Multiply(**o), [SEQUENCE, SEQUENCE, (3, 5, 1)], {}),
    "average": (lambda **o: layers.Average(**o), [SEQUENCE, SEQUENCE], {"masked": True}),
    "maximum": (lambda **o: layers.Maximum(**o), [(3, 4), (3, 4), (3, 4)], {}),
    "minimum": (lambda **o: layers.Minimum(**o), [(3, 4), (3, 4)], {}),
    "divide": (lambda **o: Divide(**o), [(3, 4), (3, 4)], {}),
    "concatenate": (lambda **o: layers.Concatenate(**o), [SEQUENCE, (3, 5, 2)], {"masked": True}),
    "concatenate in time": (lambda **o: layers.Concatenate(axis=1, **o), [SEQUENCE, (3, 2, 4)], {"masked": True}),
    "concatenate integers": (lambda **o: layers.Concatenate(axis=1, **o), [(3, 2), (3, 4)], {"integers": 9}),
    "affine": (lambda **o: Affine(-0.5, 2.0, **o), SEQUENCE, {"masked": True, "padding": "valid"}),
    "power": (lambda **o: Power(-2.0, **o), (3, 4), {}),
    "slice": (lambda **o: Slice((slice(None), slice(1, None)), **o), SEQUENCE, {"masked": True}),
    "slice backwards": (lambda **o: Slice((slice(None), slice(None, None, -1)), **o), SEQUENCE, {"masked": True}),
    "slice of the last step": (lambda **o: Slice((slice(None), -1), **o), SEQUENCE, {}),
    "slice of a feature": (lambda **o: Slice((Ellipsis, slice(0, 1)), **o), SEQUENCE, {"masked": True}),
    "time distributed dense": (
        lambda **o: layers.TimeDistributed(layers.Dense(3, activation="tanh", name="inner", dtype=o["dtype"]), **o),
        SEQUENCE,
        {"masked": True},
    ),
    "time distributed flatten": (
        lambda **o: layers.TimeDistributed(layers.Flatten(name="inner", dtype=o["dtype"]), **o),
        (2, 3, 2, 4),
        {"masked": True},
    ),
    "time distributed average": (
        lambda **o: layers.TimeDistributed(layers.GlobalAveragePooling1D(name="inner", dtype=o["dtype"]), **o),
        (2, 3, 4, 2),
        {"masked": True},
    ),
    "time distributed dropout": (
        lambda **o: layers.TimeDistributed(layers.Dropout(0.5, name="inner", dtype=o["dtype"]), **o),
        SEQUENCE,
        {"training": True},
    ),
    "time distributed embedding": (
        lambda **o: layers.TimeDistributed(layers.Embedding(6, 2, mask_zero=True, name="inner", dtype=o["dtype"]), **o),
        (3, 4, 5),
        {"integers": 6},
    ),
    "global average": (
        lambda **o: layers.GlobalAveragePooling1D(**o),
        SEQUENCE,
        {"masked": True, "padding": "everything"},
    ),
    "global average, axis kept": (lambda **o: layers.GlobalAveragePooling1D(keepdims=True, **o), SEQUENCE, {}),
    "global maximum": (lambda **o: layers.GlobalMaxPooling1D(**o), SEQUENCE, {}),
    "global maximum, axis kept": (lambda **o: layers.GlobalMaxPooling1D(keepdims=True, **o), SEQUENCE, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_layer_keeps_the_contract(name: str) -> None:
    factory, shapes, options = CASES[name]
    check_layer(factory, shapes, **options)


def test_every_layer_is_in_the_table() -> None:
    recurrent = {"Bidirectional", "GRU", "LSTM", "RNN", "SimpleRNN"}
    made = {type(factory(name="layer", dtype="float32")).__name__ for factory, _, _ in CASES.values()}
    known = {registry.lookup("layer", n) for n in registry.names("layer")}
    public = {c.__name__ for c in known if c.__module__.startswith("fastrnn.layers.")}
    assert public - recurrent - made == {"Layer", "InputLayer"}


@dataclass(eq=False, repr=False)
class Gate(Layer):
    """A user's layer: y = x * w + b * mean(x)"""

    bias: float = 0.5

    def build(self, shape: Any) -> None:
        self.w = self.add_weight("w", shape[-1:], initializer="ones")

    def forward(self, x: Any, mask: Any, context: Any) -> Any:
        return x * self.w.values + self.bias * x.mean(axis=-1, keepdims=True), x

    def backward(self, saved: Any, dy: Any) -> Any:
        self.w.gradient += (saved * dy).reshape(-1, self.w.size).sum(axis=0)
        return dy * self.w.values + self.bias * dy.sum(axis=-1, keepdims=True) / self.w.size


class WithInit(Layer):
    """A user's layer that is no dataclass."""

    def __init__(self, factor: float, name: str | None = None, dtype: str | None = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.factor = factor
        self.inner = layers.Dense(2, name="inner", dtype=dtype)

    def build(self, shape: Any) -> None:
        self.inner.build(shape)

    def output_shape(self, shape: Any) -> Any:
        return self.inner.output_shape(shape)

    def forward(self, x: Any, mask: Any, context: Any) -> Any:
        y, saved = self.inner.forward(x, mask, context)
        return y * self.factor, saved

    def backward(self, saved: Any, dy: Any) -> Any:
        return self.inner.backward(saved, dy * self.factor)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype, "factor": self.factor}


def test_users_layers_keep_the_contract() -> None:
    check_layer(lambda **o: Gate(**o), (3, 4), custom_objects={"Gate": Gate})
    check_layer(lambda **o: WithInit(0.5, **o), (3, 4), custom_objects={"WithInit": WithInit})


class Wrong(Gate):
    """One promise broken at a time."""

    how = ""

    def forward(self, x: Any, mask: Any, context: Any) -> Any:
        y, saved = super().forward(x, mask, context)
        if self.how == "writes into its input":
            x += 0.1
        if self.how == "remembers the call":
            self.x = x.copy()
        if self.how == "gives another dtype":
            y = y.astype("float64")
        if self.how == "is imprecise":
            y = y + np.float32(1e-5) if x.dtype == np.float32 else y
        if self.how == "depends on the threads":
            from fastrnn import threads

            y = y * (1 + 1e-15 * threads.get_num_threads())
        return y, saved

    def backward(self, saved: Any, dy: Any) -> Any:
        if self.how == "remembers the call":
            saved = self.x
        if self.how == "sets the gradient":
            self.w.gradient[...] = 0
        if self.how == "writes into dy":
            dy *= 2
        dx = super().backward(saved, dy)
        return dx * 1.00001 if self.how == "has a wrong gradient" else dx

    def output_shape(self, shape: Any) -> Any:
        return (shape[0], 1) if self.how == "declares another shape" else shape

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        if self.how == "forgets an argument":
            del config["bias"]
        return config


FAULTS = [
    "writes into its input",
    "remembers the call",
    "gives another dtype",
    "is imprecise",
    "depends on the threads",
    "sets the gradient",
    "writes into dy",
    "has a wrong gradient",
    "declares another shape",
    "forgets an argument",
]


@pytest.mark.parametrize("how", FAULTS)
def test_contract_finds_a_broken_promise(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Wrong, "how", how)
    with pytest.raises(AssertionError):
        check_layer(lambda **o: Wrong(bias=0.25, **o), (3, 4), custom_objects={"Wrong": Wrong})
    monkeypatch.setattr(Wrong, "how", "")
    check_layer(lambda **o: Wrong(bias=0.25, **o), (3, 4), custom_objects={"Wrong": Wrong})


class Leaking(layers.Dense):
    """Passes its mask on and ignores it."""

    def forward(self, x: Any, mask: Any, context: Any) -> Any:
        return super().forward(x, None, context)


def test_contract_finds_nan_that_leaks() -> None:
    with pytest.raises(AssertionError, match="NaN in padding"):
        check_layer(lambda **o: Leaking(3, **o), SEQUENCE, masked=True, custom_objects={"Leaking": Leaking})
