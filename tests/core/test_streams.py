"""Streams: one step a call, with the bits of a whole sequence, in every build."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from kernel_cases import BUILDS, CELLS, draw, run_forward

from fastrnn._core import kernels

every_build = pytest.mark.parametrize("isa", BUILDS)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def operation(kind: str, columns: int, **options: Any) -> SimpleNamespace:
    defaults = {"activation": "linear", "recurrent_activation": "sigmoid", "skipped": None, "mask_zero": False}
    return SimpleNamespace(kind=kind, columns=columns, name=f"the {kind}", **{**defaults, **options})


def cell_of(case: Any, isa: str, **options: Any) -> SimpleNamespace:
    packed = kernels.pack(case.cell, *case.weights(), isa=isa)
    about = kernels.cells[case.cell]
    return operation("cell", len(case.recurrent_kernel), weights=lambda: packed, states=about.states, **options)


def steps(stream: kernels.Stream, x: np.ndarray) -> np.ndarray:
    return np.stack([stream.step(x[:, t]).copy() for t in range(x.shape[1])], axis=1)


@every_build
@every_dtype
@pytest.mark.parametrize("cell", CELLS)
def test_the_bits_of_a_sequence(cell: str, dtype: str, isa: str) -> None:
    random = np.random.default_rng(4)
    for units in (1, 7, 16, 33, 70, 130):
        whole = draw(random, cell, 9, 4, 1 + units // 3, units).astype(dtype)
        for batch in (1, 2, 3, 5, 9):
            case = whole.with_(
                x=whole.x[:batch].copy(), initial_state=tuple(s[:batch].copy() for s in whole.initial_state)
            )
            stream = kernels.Stream(dtype, batch, case.x.shape[2], [cell_of(case, isa, activation="tanh")], isa=isa)
            stream.state = [case.initial_state]
            y = steps(stream, case.x)
            expected, _ = run_forward(case, kernels.pack(cell, *case.weights(), isa=isa), record=False)
            assert y.tobytes() == expected["sequence"].tobytes(), (units, batch)
            for i, state in enumerate(stream.state[0]):
                assert state.tobytes() == expected[f"final_{i}"].tobytes(), (units, batch, i)


@every_build
@pytest.mark.parametrize("cell", CELLS)
def test_every_activation_inside_a_cell(cell: str, isa: str) -> None:
    for activation in kernels.activations:
        options = {"activation": activation, "recurrent_activation": "hard_sigmoid"}
        case = draw(np.random.default_rng(5), cell, 2, 3, 5, 18, gain=0.3, **options).astype("float32")
        stream = kernels.Stream("float32", 2, 5, [cell_of(case, isa, **options)], isa=isa)
        stream.state = [case.initial_state]
        expected, _ = run_forward(case, kernels.pack(cell, *case.weights(), isa=isa))
        np.testing.assert_array_equal(steps(stream, case.x), expected["sequence"])


@every_build
@every_dtype
@pytest.mark.parametrize("bias", [True, False])
def test_a_dense_layer_has_the_bits_of_a_product(bias: bool, dtype: str, isa: str) -> None:
    random = np.random.default_rng(6)
    for columns in (1, 3, 16, 31, 64, 65, 200):
        for batch in (1, 2, 7):
            x, kernel = random.normal(size=(batch, 37)).astype(dtype), random.normal(size=(37, columns)).astype(dtype)
            b = random.normal(size=columns).astype(dtype) if bias else None
            packed = kernels.pack_dense(kernel, b, isa=isa)
            for activation in kernels.activations:
                dense = operation("dense", columns, weights=lambda packed=packed: packed, activation=activation)
                y = kernels.Stream(dtype, batch, 37, [dense], isa=isa).step(x)
                z = kernels.product(x, kernel, bias=b, isa=isa)
                np.testing.assert_array_equal(y, kernels.activate(activation, z, isa=isa), err_msg=activation)


@every_build
@every_dtype
def test_softmax(dtype: str, isa: str) -> None:
    random = np.random.default_rng(7)
    for columns in (1, 2, 7, 16, 17, 100):
        x = (10 * random.normal(size=(3, columns))).astype(dtype)
        e = np.exp(x.astype("float64") - x.max(axis=1, keepdims=True))
        y = kernels.softmax(x, isa=isa)
        np.testing.assert_allclose(y, e / e.sum(axis=1, keepdims=True), rtol=1e-5 if dtype == "float32" else 1e-13)
        np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-6)
        assert (
            kernels.Stream(dtype, 3, columns, [operation("softmax", columns)], isa=isa).step(x).tobytes() == y.tobytes()
        )
    y = kernels.softmax(np.array([[np.nan, 0, 1], [0, 0, -np.inf]], dtype), isa=isa)
    assert np.isnan(y[0]).all() and y[1].tolist() == [0.5, 0.5, 0]


def test_rows_may_lie_anywhere_and_are_converted() -> None:
    x = np.random.default_rng(8).normal(size=(3, 5, 4)).astype("float32")
    kernel = np.eye(4, 6, dtype="float32")
    packed = kernels.pack_dense(kernel)
    stream = kernels.Stream("float32", 3, 4, [operation("dense", 6, weights=lambda: packed)])
    expected = x[:, 2] @ kernel
    swapped = x[:, 2].astype(">f4")
    for given in (x[:, 2], x[:, 2].astype("float64"), x[:, 2].tolist(), np.asfortranarray(x[:, 2]), swapped):
        np.testing.assert_array_equal(stream.step(given), expected)
    np.testing.assert_array_equal(stream.step(x[::-1, 2]), expected[::-1])
    np.testing.assert_array_equal(stream.step(np.arange(12).reshape(3, 4)), np.arange(12).reshape(3, 4) @ kernel)
    wide = np.repeat(x[:, 2], 2, axis=1)
    np.testing.assert_array_equal(stream.step(wide[:, ::2]), expected)
    np.testing.assert_array_equal(stream.step(wide.astype("float64")[:, ::2]), expected)
    double = kernels.Stream("float64", 3, 4, [operation("activate", 4)])
    np.testing.assert_array_equal(double.step(x[:, 2]), x[:, 2])
    np.testing.assert_array_equal(double.step(x[:, 2].astype("float64").T.copy().T), x[:, 2])
    odd = np.zeros(3 * 4 * 4 + 1, np.uint8)[1:].view("float32").reshape(3, 4)  # not aligned
    odd[...] = x[:, 2]
    np.testing.assert_array_equal(stream.step(odd), expected)


def test_denormal_states_are_flushed_and_the_mode_is_put_back() -> None:
    case = draw(np.random.default_rng(9), "rnn", 1, 1, 1, 8, initial=False).astype("float32")
    case = case.with_(bias=None, recurrent_kernel=np.eye(8, dtype="float32") * np.float32(0.5))
    stream = kernels.Stream("float32", 1, 1, [cell_of(case, kernels.isa, activation="linear")])
    stream.state = [(np.full((1, 8), 2e-38, "float32"),)]
    assert not stream.step([0.0]).any()
    assert np.float32(2e-38) * np.float32(0.5) > 0


def test_weights_of_another_shape_dtype_or_kind_are_refused() -> None:
    case = draw(np.random.default_rng(10), "gru", 1, 1, 3, 4).astype("float32")
    good = cell_of(case, kernels.isa, activation="tanh")
    kernels.Stream("float32", 1, 3, [good])
    dense = kernels.pack_dense(np.ones((3, 4), "float32"))
    for columns, dtype, wrong in (
        (2, "float32", good),
        (3, "float64", good),
        (3, "float32", operation("cell", 5, weights=good.weights, states=1)),
        (3, "float32", operation("cell", 4, weights=lambda: dense, states=1)),
        (3, "float32", operation("dense", 4, weights=good.weights)),
        (3, "float32", operation("dense", 5, weights=lambda: dense)),
        (3, "float32", operation("dense", 4, weights=lambda: None)),
    ):
        with pytest.raises((ValueError, TypeError)):
            kernels.Stream(dtype, 1, columns, [wrong])
    for columns, operations in (
        (3, []),
        (3, [operation("softmax", 4)]),
        (3, [operation("mask", 4)]),
        (None, [operation("activate", 3)]),
        (3, [operation("embed", 4)]),
    ):
        with pytest.raises(ValueError, match=r"does not fit|needs operations"):
            kernels.Stream("float32", 1, columns, operations)
    unmade = kernels.Stream.__new__(kernels.Stream)
    for use in (lambda: unmade.step(np.zeros(0, "float32")), unmade.reset, lambda: unmade.state):
        with pytest.raises(TypeError):
            use()
    with pytest.raises(TypeError):
        kernels.forward(dense, case.x)
