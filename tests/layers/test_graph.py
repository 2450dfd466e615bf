"""Symbolic tensors, nodes, and arithmetic on them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from fastrnn import graph, layers, registry
from fastrnn.states import Context

A = np.random.default_rng(0).uniform(0.5, 1.5, (3, 5, 4)).astype("float32")
B = np.random.default_rng(1).uniform(0.5, 1.5, (3, 5, 4)).astype("float32")


def compute(output: graph.SymbolicTensor, values: dict[graph.SymbolicTensor, Any]) -> Any:
    """The value of `output`, every layer rebuilt from its configuration on the way."""
    values = dict(values)
    for node in graph.topological([output], values):
        if node.outputs not in values:
            layer = registry.deserialize(json.loads(json.dumps(registry.serialize(node.layer))))
            given = [values[t] for t in graph.as_list(node.inputs)]
            y, _ = layer.forward(given if isinstance(node.inputs, list) else given[0], None, Context())
            values[node.outputs] = y
    return values[output]


OPERATIONS = {
    "a + b": lambda a, b: a + b,
    "a - b": lambda a, b: a - b,
    "a * b": lambda a, b: a * b,
    "a / b": lambda a, b: a / b,
    "a + 2": lambda a, b: a + 2,
    "2 + a": lambda a, b: 2 + a,
    "a - 2": lambda a, b: a - 2,
    "2 - a": lambda a, b: 2 - a,
    "a * 2": lambda a, b: a * 2,
    "2 * a": lambda a, b: np.float32(2) * a,
    "a / 2": lambda a, b: a / 2,
    "2 / a": lambda a, b: 2 / a,
    "-a": lambda a, b: -a,
    "a ** 2": lambda a, b: a**2,
    "a[:, -1]": lambda a, b: a[:, -1],
    "a[:, 1:]": lambda a, b: a[:, 1:],
    "a[:, ::-1]": lambda a, b: a[:, ::-1],
    "a[..., 0]": lambda a, b: a[..., 0],
    "a[:, 1:-1, ::2]": lambda a, b: a[:, 1:-1, ::2],
    "a[:]": lambda a, b: a[:],
    "a chain": lambda a, b: (a[:, 1:] + 1) * b[:, :-1] / 2 - a[:, :1],
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_arithmetic_makes_layers_that_compute_what_numpy_does(name: str) -> None:
    operation = OPERATIONS[name]
    a, b = layers.Input((5, 4)), layers.Input((5, 4))
    y = operation(a, b)
    expected = operation(A, B)
    np.testing.assert_allclose(compute(y, {a: A, b: B}), expected, rtol=1e-6)
    assert y.shape == (None, *expected.shape[1:]) and y.dtype == "float32"


def test_sizes_that_are_not_known_stay_so() -> None:
    x = layers.Input((None, 4))
    assert (x * 2).shape == (None, None, 4) and x[:, 1:].shape == (None, None, 4) and x[:, -1].shape == (None, 4)


def test_arithmetic_keeps_float64_and_slices_keep_integers() -> None:
    x, ids = layers.Input((5,), dtype="float64"), layers.Input((5,), dtype="int32")
    assert {(x * 2).dtype, (2 - x).dtype, (1 / x).dtype, (x**2).dtype, (x + x).dtype, x[:, 1:].dtype} == {"float64"}
    assert ids[:, 1:].dtype == "int32" and (ids * 2).dtype == "float32"


ALL = slice(None)


@pytest.mark.parametrize("index", [0, (slice(1, None),), None, (ALL, None), (ALL, [0, 1]), (ALL, True)])
def test_other_indices_are_refused(index: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"batch axis must be whole|is indexed by integers"):
        layers.Input((5, 4))[index]


def test_indices_out_of_range_are_refused() -> None:
    x = layers.Input((5, 4))
    with pytest.raises(ValueError, match="has no place 5"):
        x[:, 5]
    with pytest.raises(ValueError, match="leaves nothing"):
        x[:, 5:]
    with pytest.raises(ValueError, match="does not fit an input of 3 axes"):
        x[:, 0, 0, 0]


def test_other_operands_are_refused() -> None:
    x = layers.Input((4,))
    for operation in (lambda: x + "a", lambda: x * np.ones(4), lambda: np.ones(4) * x, lambda: x + None, lambda: x**x):
        with pytest.raises(TypeError, match="symbolic tensor"):
            operation()


def test_symbolic_tensors_have_no_values() -> None:
    x = layers.Input((4,), name="x")
    for operation in (lambda: np.asarray(x), lambda: bool(x), lambda: len(x), lambda: list(x), lambda: np.tanh(x)):
        with pytest.raises(TypeError):
            operation()
    assert repr(x) == "<SymbolicTensor x shape=(None, 4) dtype=float32>"
    assert x == x and x in {x} and x.ndim == 2


def test_slice_cuts_the_mask_with_the_time_axis() -> None:
    mask = np.array([[True, True, False, False, False]] * 3)
    for index, expected in (
        ((slice(None), slice(1, None)), mask[:, 1:]),
        ((slice(None), slice(None, None, -1)), mask[:, ::-1]),
        ((Ellipsis, 0), mask),
        ((slice(None), -1), None),
    ):
        found = layers.layer.registry.lookup("layer", "Slice")(index).output_mask(A, mask)
        assert found is expected is None or (found == expected).all()


def test_topological_order_puts_every_node_after_those_it_needs() -> None:
    a, b = layers.Input((4,)), layers.Input((4,))
    shared = layers.Dense(4)
    c = shared(a) + b
    d = shared(c) * c
    order = graph.topological([d])
    assert len(order) == len(set(order)) == 6
    for node in order:
        assert all(order.index(p) < order.index(node) for p in node.parents)
    assert graph.topological([d], [c])[0] is c.node


def test_deep_graphs_do_not_exhaust_the_stack() -> None:
    x = y = layers.Input((4,))
    for _ in range(5000):
        y = layers.Activation("linear", name="same")(y)
    assert len(graph.topological([y], [x])) == 5001
