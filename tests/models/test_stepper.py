"""`model.stepper()`: what `predict` gives, one step a call."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastrnn as keras
from fastrnn import activations, layers, registry
from fastrnn.layers import GRU, LSTM, Dense, Embedding, Input, SimpleRNN
from fastrnn.models import Stepper

CELLS = {
    "lstm": LSTM,
    "gru": GRU,
    "gru_reset_before": lambda *a, **k: GRU(*a, reset_after=False, **k),
    "simple_rnn": SimpleRNN,
}
every_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def stack(*parts: Any, features: int = 5) -> keras.Sequential:
    """A model with weights that are not zero."""
    model = keras.Sequential([Input((None, features)), *parts])
    random = np.random.default_rng(3)
    model.set_weights([random.normal(0, 0.5, w.shape) for w in model.weights])
    return model


def taken(stepper: Stepper, x: np.ndarray) -> np.ndarray:
    return np.stack([stepper.step(x[:, t]).copy() for t in range(x.shape[1])], axis=1)


def assert_steps_are_predictions(model: Any, x: np.ndarray, batch: int | None = None) -> Stepper:
    """Bit by bit."""
    stepper = model.stepper(batch or len(x))
    y, expected = taken(stepper, x), model.predict(x, verbose=0)
    assert y.dtype == expected.dtype
    if expected.ndim == 2:
        y = y[:, -1]
    np.testing.assert_array_equal(y, expected)
    return stepper


# the numbers of predict


@every_cell
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_stacks_of_every_cell(cell: Callable[..., Any], dtype: str) -> None:
    for units in (1, 6, 17, 40):
        parts = [cell(units, return_sequences=True, dtype=dtype), cell(3, return_sequences=True, dtype=dtype)]
        model = stack(*parts, Dense(2, activation="tanh", dtype=dtype))
        for batch in (1, 2, 3, 5):
            x = floats(batch, 6, 5).astype(dtype)
            assert_steps_are_predictions(model, x)


@every_cell
def test_the_last_output_at_every_step(cell: Callable[..., Any]) -> None:
    model, x = stack(cell(4), Dense(3)), floats(2, 6, 5)
    stepper = model.stepper(2)
    for t in range(6):
        np.testing.assert_array_equal(stepper.step(x[:, t]), model.predict(x[:, : t + 1], verbose=0))


@pytest.mark.parametrize("name", sorted({activations.get(n).name for n in registry.names("activation")}))
def test_every_activation(name: str) -> None:
    x = floats(2, 4, 5)
    assert_steps_are_predictions(stack(Dense(7, activation=name), GRU(3, return_sequences=True)), x)
    assert_steps_are_predictions(stack(SimpleRNN(3, return_sequences=True), layers.Activation(name)), x)
    assert_steps_are_predictions(stack(SimpleRNN(3), Dense(6, activation=name)), x)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.ReLU(max_value=0.5, negative_slope=0.1),
        lambda: layers.LeakyReLU(negative_slope=0.2),
        lambda: layers.ELU(alpha=0.7),
        lambda: layers.Softmax(),
        lambda: layers.Softmax(axis=2),
        lambda: layers.Dropout(0.5),
        lambda: layers.SpatialDropout1D(0.5),
        lambda: layers.Masking(7.0),
        lambda: layers.TimeDistributed(Dense(4, activation="sigmoid")),
        lambda: layers.TimeDistributed(layers.Dropout(0.5)),
        lambda: layers.TimeDistributed(layers.Reshape((5,))),
        lambda: layers.TimeDistributed(layers.Flatten()),
    ],
)
def test_layers_of_single_steps(layer: Callable[[], Any]) -> None:
    for batch in (1, 3):
        x = floats(batch, 4, 5)
        assert_steps_are_predictions(stack(layer(), LSTM(5, return_sequences=True), layer()), x)
        assert_steps_are_predictions(stack(layer()), x)


def test_functional_models_arithmetic_and_models_inside() -> None:
    inner = stack(GRU(5, return_sequences=True), Dense(5))
    x = start = Input((None, 5))
    x = 2 * inner(x) - 1
    x = layers.SimpleRNN(4, return_sequences=True, return_state=True)(x)[0] ** 2
    model = keras.Model(start, Dense(2)(x))
    assert_steps_are_predictions(model, floats(3, 5, 5))


def test_ids_go_through_an_embedding() -> None:
    model = keras.Sequential(
        [Input((None,), dtype="int32"), Embedding(11, 6), LSTM(5, return_sequences=True), Dense(11)]
    )
    ids = np.random.default_rng(0).integers(0, 11, (3, 7))
    for dtype in ("int64", "int32", "uint8", "float32"):
        assert_steps_are_predictions(model, ids.astype(dtype))
    stepper, expected = model.stepper(), model.predict(ids[:1], verbose=0)[0]
    for t, given in enumerate(ids[0, :6]):
        for one in (int(given), given, np.array(given), np.array([given]), [int(given)]):
            stepper.reset()
            for before in ids[0, :t]:
                stepper.step(int(before))
            y = stepper.step(one)
            np.testing.assert_array_equal(y.reshape(-1), expected[t])
            assert y.shape == ((11,) if np.ndim(one) == 0 else (1, 11))
    for wrong in (-1, 11, 2**70, np.int32(-3), np.array([11]), np.array([11], "int32"), [np.inf], np.uint64(2**63)):
        with pytest.raises(ValueError, match=r"Embedding 'embedding.*' expects ids in \[0, 11\); received"):
            stepper.step(wrong)
    for wrong in ([0.5], [np.nan]):
        with pytest.raises(ValueError, match=r"ids must be whole numbers; received \["):
            stepper.step(wrong)
    with pytest.raises(ValueError, match=r"x must have shape \(1,\) or \(\); received \(2,\)"):
        stepper.step([1, 2])


@every_cell
@pytest.mark.parametrize("zero", [False, True])
def test_masked_steps_are_skipped_row_by_row(cell: Callable[..., Any], zero: bool) -> None:
    options = {"return_sequences": True, "zero_output_for_mask": zero}
    ids = np.random.default_rng(1).integers(0, 3, (4, 9))
    model = keras.Sequential(
        [
            Input((None,), dtype="int32"),
            Embedding(3, 4, mask_zero=True),
            cell(5, **options),
            cell(3, **options),
            Dense(2),
        ]
    )
    model.set_weights([floats(*w.shape, seed=i) for i, w in enumerate(model.weights)])
    assert_steps_are_predictions(model, ids)
    x = floats(4, 9, 5) * (ids > 0)[..., None]
    assert_steps_are_predictions(stack(layers.Masking(), cell(6, **options), cell(3)), x)
    assert_steps_are_predictions(stack(layers.Masking(), cell(6, **options), cell(3)), x[:1])
    x[ids == 0] = 2
    for parts in ([], [Dense(3)], [Dense(3), cell(4, **options)]):
        assert_steps_are_predictions(stack(layers.Masking(2.0), *parts), x)


def test_dropout_and_regularizers_change_nothing() -> None:
    lstm = LSTM(4, dropout=0.4, recurrent_dropout=0.3, return_sequences=True, activity_regularizer="l2")
    assert_steps_are_predictions(stack(lstm, layers.Dropout(0.9)), floats(2, 5, 5))


def test_stateful_layers_keep_their_states_apart() -> None:
    model, x = stack(LSTM(4, stateful=True, return_sequences=True)), floats(1, 4, 5)
    stepper = model.stepper()
    first = taken(stepper, x)
    np.testing.assert_array_equal(model.predict(x, verbose=0), first)
    np.testing.assert_array_equal(taken(stepper, x), model.predict(x, verbose=0))


# arrays


def test_the_shape_follows_that_of_x() -> None:
    stepper = stack(GRU(4)).stepper()
    assert stepper.step(floats(5)).shape == (4,) and stepper.step(floats(1, 5)).shape == (1, 4)
    assert stack(GRU(4)).stepper(2).step(floats(2, 5)).shape == (2, 4)
    assert repr(stepper) == "<Stepper batch_size=1>" and stepper.batch_size == 1


def test_the_result_is_a_buffer_that_the_next_step_overwrites() -> None:
    stepper = stack(GRU(4)).stepper()
    first = stepper.step(floats(5))
    kept = first.copy()
    second = stepper.step(floats(5, seed=1))
    assert second is first and (second != kept).any()


def test_out_takes_the_result() -> None:
    x = floats(1, 3, 5)
    model = stack(GRU(4, return_sequences=True))
    expected, stepper = model.predict(x, verbose=0), model.stepper()
    out = np.zeros((3, 4), "float32")
    for t in range(3):
        assert stepper.step(x[0, t], out[t]) is not None
    np.testing.assert_array_equal(out, expected[0])
    kept = stepper.step(floats(5)).copy()
    other = stepper.step(floats(5), out=np.zeros(4, "float32"))
    assert (stepper.step(floats(5)) != kept).any() and other.shape == (4,)
    read_only = np.zeros(4, "float32")
    read_only.flags.writeable = False
    state = stepper.state
    for wrong in (
        np.zeros(5, "float32"),
        np.zeros(4),
        np.zeros((1, 4), "float32"),
        np.zeros(8, "float32")[::2],
        read_only,
        [0] * 4,
    ):
        with pytest.raises((ValueError, TypeError), match="stepper: out"):
            stepper.step(floats(5), out=wrong)
    np.testing.assert_array_equal(stepper.state[0][0], state[0][0])


def test_feeding_the_result_back() -> None:
    model = stack(SimpleRNN(5), features=5)
    stepper, x = model.stepper(), floats(1, 1, 5)
    y = stepper.step(x[0, 0])
    for _ in range(4):
        x = np.concatenate([x, y.reshape(1, 1, 5).copy()], axis=1)
        y = stepper.step(y)
        np.testing.assert_array_equal(y, model.predict(x, verbose=0)[0])
    identity = stack(layers.Dropout(0.5)).stepper(2)
    both = floats(3, 5)
    np.testing.assert_array_equal(identity.step(both[:2], out=both[1:]), floats(3, 5)[:2])


@pytest.mark.parametrize(
    ("x", "error", "match"),
    [
        (np.zeros(4), ValueError, r"x must have shape \(1, 5\) or \(5,\); received \(4,\)"),
        (np.zeros((2, 5), "float32"), ValueError, r"received \(2, 5\)"),
        (np.zeros((1, 1, 5)), ValueError, r"received \(1, 1, 5\)"),
        (np.float32(1), ValueError, r"received \(\)"),
        (np.zeros(5, complex), TypeError, "received complex128"),
        (["a"] * 5, TypeError, "must hold numbers"),
        (None, TypeError, "received object"),
        ([[1, 2], [3]], ValueError, "unequal lengths"),
    ],
)
def test_other_arrays_are_refused_and_change_nothing(x: Any, error: type[Exception], match: str) -> None:
    stepper = stack(LSTM(4)).stepper()
    expected = stack(LSTM(4)).stepper().step(np.ones(5)).copy()
    with pytest.raises(error, match=match):
        stepper.step(x)
    np.testing.assert_array_equal(stepper.step(np.ones(5)), expected)
    if getattr(x, "ndim", 0) == 1:
        with pytest.raises(ValueError, match=r"x must have shape \(3, 5\); received"):
            stack(LSTM(4)).stepper(3).step(np.zeros(5))


def test_an_error_in_the_middle_of_a_step_changes_no_state() -> None:
    class Fragile(activations.Activation):
        def forward(self, x: np.ndarray) -> np.ndarray:
            if (x > 1e6).any():
                raise FloatingPointError("too large")
            return x

    model = stack(GRU(4, return_sequences=True), Dense(5, activation=Fragile()), GRU(3))
    stepper, other = model.stepper(), model.stepper()
    x = floats(3, 5)
    np.testing.assert_array_equal(stepper.step(x[0]), other.step(x[0]))
    model.layers[1].bias.assign(np.full(5, 1e7))
    with pytest.raises(FloatingPointError, match="too large"):
        stepper.step(x[1])
    model.layers[1].bias.assign(np.zeros(5))
    np.testing.assert_array_equal(stepper.step(x[1]), other.step(x[1]))


# states


@every_cell
def test_states_can_be_read_set_and_reset(cell: Callable[..., Any]) -> None:
    model, x = stack(cell(4, return_sequences=True), Dense(3), cell(2, return_sequences=True)), floats(3, 6, 5)
    stepper = model.stepper(3)
    whole = taken(stepper, x)
    stepper.reset()
    assert all(not s.any() for states in stepper.state for s in states)
    np.testing.assert_array_equal(taken(stepper, x[:, :2]), whole[:, :2])
    state = stepper.state
    kept = copy.deepcopy(state)
    assert [tuple(s.shape for s in states) for states in state] == [
        ((3, units),) * cell(1).cell.states for units in (4, 2)
    ]
    rest = taken(stepper, x[:, 2:])
    np.testing.assert_array_equal(rest, whole[:, 2:])
    assert all((a == b).all() for s, k in zip(state, kept, strict=True) for a, b in zip(s, k, strict=True))
    for form in (state, [[a.tolist() for a in states] for states in state], pickle.loads(pickle.dumps(state))):
        stepper.state = form
        np.testing.assert_array_equal(taken(stepper, x[:, 2:]), rest)


@pytest.mark.parametrize("rows", [1, [1], np.array([1]), [False, True, False], (1, 1), np.int32(1)])
def test_single_rows_are_reset(rows: Any) -> None:
    model, x = stack(LSTM(4, return_sequences=True)), floats(3, 4, 5)
    stepper = model.stepper(3)
    expected = taken(stepper, np.concatenate([x, x], axis=1))
    stepper.reset()
    taken(stepper, x)
    stepper.reset(rows)
    y = taken(stepper, x)
    np.testing.assert_array_equal(y[1], expected[1, :4])
    np.testing.assert_array_equal(y[[0, 2]], expected[[0, 2], 4:])


def test_bad_rows_and_states_are_refused_whole() -> None:
    stepper = stack(LSTM(4, return_sequences=True), GRU(2)).stepper(3)
    stepper.step(floats(3, 5))
    before = stepper.state
    stepper.reset([])
    for rows in (3, -1, [0, 3], [True, False], 0.5, "0", [[0]]):
        with pytest.raises(ValueError, match="rows are numbers in"):
            stepper.reset(rows)
    h, c, g = np.ones((3, 4)), np.ones((3, 4)), np.ones((3, 2))
    for state, match in (
        ([(h, c)], "2 recurrent layers; received 1 entries"),
        (h, "received ndarray"),
        ([(h, c), g], "tuple of 1 arrays; received ndarray"),
        ([(h,), (g,)], "LSTM 'lstm.*tuple of 2 arrays; received 1"),
        ([(h, c), (np.ones((3, 3)),)], r"GRU 'gru.*shape \(3, 2\); received float64 of shape \(3, 3\)"),
        ([(h, c), (np.full((3, 2), "x"),)], "must hold numbers"),
    ):
        with pytest.raises(ValueError, match=match):
            stepper.state = state
    for states, others in zip(stepper.state, before, strict=True):
        for a, b in zip(states, others, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_model_without_states_has_an_empty_state() -> None:
    stepper = stack(Dense(3)).stepper()
    assert stepper.state == []
    stepper.reset()
    stepper.state = []


# weights


@pytest.mark.parametrize("which", range(6))
def test_new_weights_count_from_the_next_step_on(which: int) -> None:
    model = keras.Sequential([Input((None,), dtype="int32"), Embedding(7, 4), GRU(5, return_sequences=True), Dense(3)])
    stepper, other = model.stepper(), model.stepper()
    for one in (stepper, other):
        one.step(3)
    weight = model.weights[which]
    weight.assign(floats(*weight.shape, seed=5))
    again = keras.models.clone_model(model)
    again.set_weights(model.get_weights())
    fresh = again.stepper()
    fresh.state = stepper.state
    np.testing.assert_array_equal(stepper.step(2), fresh.step(2))
    weight.assign(floats(*weight.shape, seed=6))
    assert (other.step(2) != fresh.step(2)).any() or which == 1


def test_steps_between_batches_of_training() -> None:
    model = stack(LSTM(4, return_sequences=True), Dense(2))
    model.compile("adam", "mse")
    x, stepper = floats(4, 3, 5), model.stepper(4)
    for _ in range(3):
        model.train_on_batch(x, floats(4, 3, 2))
        stepper.reset()
        np.testing.assert_array_equal(taken(stepper, x), model.predict(x, verbose=0))


def test_a_weight_that_moves_to_another_model_is_followed() -> None:
    dense = Dense(3, use_bias=False)
    model = stack(dense)
    stepper = model.stepper()
    keras.Sequential([Input((None, 5)), LSTM(5, return_sequences=True), dense])
    dense.kernel.assign(floats(5, 3, seed=9))
    np.testing.assert_array_equal(stepper.step(np.eye(5)[0]), dense.kernel.numpy()[0])


def test_a_stepper_outlives_its_model() -> None:
    stepper = stack(LSTM(4), Dense(2)).stepper()
    expected = stack(LSTM(4), Dense(2)).predict(floats(1, 1, 5), verbose=0)[0]
    gc.collect()
    np.testing.assert_array_equal(stepper.step(floats(1, 1, 5)[0, 0]), expected)


# what cannot be streamed


def graph(build: Callable[[Any], Any], shape: tuple[int | None, ...] = (None, 4)) -> keras.Model:
    x = Input(shape)
    return keras.Model(x, build(x))


def lstm(*args: Any, **options: Any) -> Any:
    return LSTM(4, *args, return_sequences=True, **options)


class Own(layers.Layer):
    def forward(self, x: Any, mask: Any, context: Any) -> Any:
        return x[:, ::-1], None


class Backwards(LSTM):
    def forward(self, x: Any, mask: Any, context: Any) -> Any:
        return super().forward(x[:, ::-1].copy(), mask, context)


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (lambda: stack(layers.Bidirectional(LSTM(2))), "Bidirectional 'bidirectional.*recurrent ones that go forwards"),
        (lambda: stack(LSTM(2, go_backwards=True)), "LSTM 'lstm.*goes backwards"),
        (lambda: stack(layers.GlobalAveragePooling1D()), "GlobalAveragePooling1D 'global.*step by step"),
        (lambda: stack(LSTM(2), layers.RepeatVector(3)), "RepeatVector 'repeat.*step by step"),
        (lambda: stack(layers.Softmax(axis=1)), "Softmax 'softmax.*axis 1 mixes steps"),
        (lambda: stack(Own()), "Own 'own.*step by step"),
        (lambda: stack(Backwards(3)), "Backwards 'backwards.*step by step"),
        (lambda: stack(Dense(2), Dense(2, dtype="float64")), "Dense 'dense.*of float64, layers before it of float32"),
        (lambda: graph(lambda x: lstm()(x) + x), "Add 'add.*does not follow on the layer before it alone"),
        (lambda: graph(lambda x: x[:, ::-1]), "Slice 'slice.*step by step"),
        (lambda: graph(lambda x: LSTM(2, return_state=True)(x)), "1 inputs and 3 outputs.*`state`"),
        (lambda: graph(lambda x: LSTM(2, return_state=True)(x)[1]), "the output is not that of the last layer"),
        (lambda: graph(lambda x: lstm()(x, initial_state=[x[:, 0], x[:, 1]])), "does not follow|Slice 'slice"),
        (lambda: graph(lambda x: layers.Dropout(0.5)(x, training=True)), "Dropout 'dropout.*training=True"),
        (lambda: graph(lambda x: lstm(dropout=0.5)(x, training=True)), "LSTM 'lstm.*training=True"),
        (lambda: graph(Dense(3), (4,)), r"Dense 'dense.*time axis"),
        (lambda: graph(Dense(3), (None, 3, 4)), r"inputs \(batch, time, features\)"),
        (lambda: graph(Embedding(3, 2), (None, 4)), "Embedding 'embedding.*not stand at the beginning"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_step_by_step_is_named(model: Callable[[], Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        model().stepper()


def test_a_model_that_is_not_built_says_so() -> None:
    with pytest.raises(ValueError, match="not built yet"):
        keras.Sequential([LSTM(3)]).stepper()
    for size in (0, -1, 1.5, True, "2", 2**40):
        with pytest.raises(ValueError, match="batch_size must be a positive integer"):
            stack(LSTM(3)).stepper(size)


def test_steppers_neither_pickle_nor_copy() -> None:
    stepper = stack(LSTM(3)).stepper()
    for make in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="keep its `state` and make another"):
            make(stepper)


# memory, threads, processes


def test_a_step_allocates_nothing() -> None:
    model = keras.Sequential([Input((None, 6)), LSTM(8, return_sequences=True), GRU(9), Dense(3, activation="softmax")])
    stepper, x, out = model.stepper(), floats(6), np.zeros(3, "float32")
    batch, rows = model.stepper(3), floats(3, 6)
    for _ in range(10):
        stepper.step(x), stepper.step(x, out), stepper.step(x, out=out), batch.step(rows)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in range(50_000):
            stepper.step(x)
            stepper.step(x, out=out)
            batch.step(rows)
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert now - before < 1000 and peak - before < 2000


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads the resident size from /proc")
def test_no_leak_over_many_steps_of_any_kind() -> None:
    def resident() -> int:
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    model = stack(layers.Masking(), LSTM(8, return_sequences=True), Dense(4, activation="gelu"), GRU(3))
    stepper, x = model.stepper(2), floats(2, 5).astype("float64")
    words = keras.Sequential([Input((None,), dtype="int32"), Embedding(9, 4), GRU(3)]).stepper()

    def some(n: int) -> None:
        for i in range(n):
            stepper.step(x)
            words.step(i % 9)
            if i % 10 == 0:
                stepper.state = stepper.state
                stepper.reset(1)
                with pytest.raises(ValueError):
                    words.step(9)

    some(2000)
    gc.collect()
    before = resident()
    some(8000)
    gc.collect()
    assert resident() - before < 2_000_000


def run_threads(*bodies: Callable[[], None]) -> list[BaseException]:
    errors: list[BaseException] = []

    def guarded(body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=[body]) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


@pytest.mark.parametrize("units", [8, 600])
def test_steppers_of_one_model_in_several_threads(units: int) -> None:
    model, x = stack(LSTM(units, return_sequences=True), Dense(3)), floats(4, 12, 5)
    expected = model.predict(x, verbose=0)

    def body(row: int) -> Callable[[], None]:
        def run() -> None:
            stepper = model.stepper()
            for _ in range(2):
                stepper.reset()
                np.testing.assert_array_equal(taken(stepper, x[row : row + 1]), expected[row : row + 1])

        return run

    assert not run_threads(*map(body, range(4)))


@pytest.mark.parametrize(
    "parts", [[LSTM(4)], [LSTM(600)], [LSTM(4, return_sequences=True), Dense(4, activation="gelu")]]
)
def test_one_stepper_in_two_threads_does_not_crash(parts: list[Any]) -> None:
    stepper, x = stack(*parts).stepper(), floats(5)

    def run() -> None:
        for _ in range(60):
            try:
                stepper.step(x)
                _ = stepper.state
                stepper.reset()
            except RuntimeError as error:
                assert "in another thread" in str(error)

    assert not run_threads(run, run, run)
    assert np.isfinite(stepper.step(x)).all()


def test_a_stepper_in_the_middle_of_a_step_refuses_other_threads() -> None:
    entered, go_on = threading.Event(), threading.Event()

    class Slow(activations.Activation):
        def forward(self, x: np.ndarray) -> np.ndarray:
            entered.set()
            assert go_on.wait(60)
            return x

    model, x = stack(LSTM(4), Dense(3, activation=Slow())), floats(1, 2, 5)
    stepper, results = model.stepper(), []
    state = stepper.state
    thread = threading.Thread(target=lambda: results.append(stepper.step(x[0, 0]).copy()))
    thread.start()
    assert entered.wait(60)
    for use in (
        lambda: stepper.step(x[0, 0]),
        stepper.reset,
        lambda: stepper.state,
        lambda: setattr(stepper, "state", state),
    ):
        with pytest.raises(RuntimeError, match="a step is under way in another thread"):
            use()
    go_on.set()
    thread.join()
    np.testing.assert_array_equal(results[0], model.predict(x[:, :1], verbose=0)[0])
    np.testing.assert_array_equal(stepper.step(x[0, 1]), model.predict(x, verbose=0)[0])


def test_steps_while_another_thread_trains() -> None:
    model = stack(LSTM(8, return_sequences=True), Dense(2))
    model.compile("sgd", "mse")
    x, stop = floats(4, 6, 5), threading.Event()

    def train() -> None:
        try:
            model.fit(x, floats(4, 6, 2), epochs=30, verbose=0)
        finally:
            stop.set()

    def step() -> None:
        stepper = model.stepper()
        while not stop.is_set():
            assert np.isfinite(stepper.step(x[0, 0])).all()

    assert not run_threads(train, step)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_goes_on_with_a_copy() -> None:
    stepper, x = stack(LSTM(600)).stepper(), floats(3, 5)
    stepper.step(x[0])
    pid = os.fork()
    if pid == 0:
        stepper.step(x[1])
        os._exit(0 if np.isfinite(stepper.step(x[2])).all() else 1)
    y = stepper.step(x[1]).copy()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    np.testing.assert_array_equal(y, stack(LSTM(600)).predict(x[None, :2], verbose=0)[0])
