"""Data in every form, and data that do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fastrnn import Input, Model, Sequential, layers, optimizers, utils
from fastrnn.models.data import ArraySource, Batch, Epochs, Filling
from fastrnn.models.ports import flatten, pack

rng = np.random.default_rng(6)


def floats(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype("float32")


def linear() -> Sequential:
    model = Sequential(
        [Input((2,), name="x"), layers.Dense(1, use_bias=False, kernel_initializer="ones")], name="linear"
    )
    model.compile(optimizers.SGD(0.0), "mse")
    return model


class Batches:
    """A data set as Keras' PyDataset has it."""

    def __init__(self, x: np.ndarray, y: np.ndarray, size: int) -> None:
        self.x, self.y, self.size, self.asked, self.ends = x, y, size, [], 0

    def __len__(self) -> int:
        return -(-len(self.x) // self.size)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        self.asked.append(i)
        rows = slice(i * self.size, (i + 1) * self.size)
        return self.x[rows], self.y[rows]

    def on_epoch_end(self) -> None:
        self.ends += 1


class Again:
    """Batches that can be iterated over again, of unknown number."""

    def __init__(self, *batches: Any) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


def test_every_form_of_data_gives_the_same_epochs() -> None:
    x, y = floats(10, 2), floats(10, 1)
    expected = [np.mean(np.square(x.sum(axis=1, keepdims=True) - y))] * 2

    def batches() -> Iterator[Any]:
        while True:
            for i in range(0, 10, 4):
                yield x[i : i + 4], y[i : i + 4]

    forms: list[tuple[Any, Any, dict[str, Any]]] = [
        (x, y, {}),
        ([x], [y], {}),
        ({"x": x}, y, {}),
        (x.tolist(), y.tolist(), {}),
        (x, y[:, 0], {}),
        (x.astype("float64"), y.astype("float64"), {}),
        (np.asfortranarray(x), y, {}),
        (batches(), None, {"steps_per_epoch": 3}),
        (Batches(x, y, 4), None, {}),
        (Again((x[:4], y[:4]), (x[4:8], y[4:8]), (x[8:], y[8:])), None, {}),
        (Again(({"x": x[:4]}, y[:4]), ([x[4:]], y[4:])), None, {}),
    ]
    for given, target, options in forms:
        model = linear()
        assert model.fit(
            given, target, epochs=2, batch_size=4 if target is not None else None, verbose=0, **options
        ).history["loss"] == pytest.approx(expected, rel=1e-5)
    for given in (
        x,
        [x],
        {"x": x},
        Batches(x, y, 4),
        Again((x[:4],), x[4:]),
        ((x[i : i + 4],) for i in range(0, 10, 4)),
    ):
        np.testing.assert_allclose(
            linear().predict(given, verbose=0), x.sum(axis=1, keepdims=True), rtol=1e-5, atol=1e-6
        )


def test_a_data_set_is_asked_in_mixed_order_each_batch_once() -> None:
    data = Batches(floats(40, 2), floats(40, 1), 2)
    model = linear()
    model.fit(data, epochs=2, verbose=0)
    first, second = data.asked[:20], data.asked[20:]
    assert sorted(first) == sorted(second) == list(range(20)) and first != second and data.ends == 2
    data.asked.clear()
    model.fit(data, shuffle=False, verbose=0)
    assert data.asked == list(range(20))


def test_a_generator_that_ends_ends_training_with_a_warning() -> None:
    x, y = floats(4, 2), floats(4, 1)
    with pytest.warns(UserWarning, match="ran out of data"):
        h = linear().fit(((x, y) for _ in range(3)), epochs=5, verbose=0)
    assert h.epoch == [0]
    with pytest.raises(ValueError, match="gave no batches"), pytest.warns(UserWarning, match="ran out of data"):
        linear().predict(iter([]), verbose=0)


def test_batches_of_other_lengths_are_fine_for_training_and_refused_where_outputs_cannot_be_joined() -> None:
    model = Sequential([Input((None, 2)), layers.GRU(1, return_sequences=True)])
    model.compile("sgd", "mse")
    data = Again((floats(2, 3, 2), floats(2, 3, 1)), (floats(2, 5, 2), floats(2, 5, 1)))
    model.fit(data, verbose=0)
    with pytest.raises(ValueError, match="outputs of different shapes"):
        model.predict(data, verbose=0)


def test_contiguous_batches_are_views_and_mixed_ones_copies() -> None:
    x = floats(10, 2)
    plain = list(ArraySource(Batch([x], None, None, 10), 4, False).batches(None))
    assert [b.size for b in plain] == [4, 4, 2] and all(b.x[0].base is x for b in plain)
    mixed = list(ArraySource(Batch([x], None, None, 10), 4, True).batches(lambda: np.random.default_rng(0)))
    assert all(b.x[0].flags.c_contiguous and not np.shares_memory(b.x[0], x) for b in mixed)
    blocks = list(ArraySource(Batch([x], None, None, 10), 4, "batch").batches(lambda: np.random.default_rng(0)))
    assert sorted(b.size for b in blocks) == [2, 4, 4] and all(b.x[0].base is x for b in blocks)


@pytest.mark.parametrize("kind", ["float32", "float64", ">f4", "float16", "int32", "a view"])
def test_rows_that_are_much_to_move_are_mixed_in_the_same_order(kind: str) -> None:
    x = rng.normal(size=(70, 3, 400, 2)).astype("float32" if kind == "a view" else kind)
    x = x[..., ::2, :] if kind == "a view" else x
    y = rng.normal(size=70)
    batches = list(ArraySource(Batch([x], [y], None, 70), 64, True).batches(lambda: np.random.default_rng(0)))
    order = np.random.default_rng(0).permutation(70)
    assert [b.size for b in batches] == [64, 6] and all(b.x[0].flags.c_contiguous for b in batches)
    np.testing.assert_array_equal(np.concatenate([b.x[0] for b in batches]), x[order])
    np.testing.assert_array_equal(np.concatenate([b.y[0] for b in batches]), y[order])


@pytest.mark.parametrize("kind", ["float32", "float64", ">f4", "float16", "int32", "int64", "a view", "nothing"])
@pytest.mark.parametrize("shuffle", [True, False, "batch"])
def test_batches_are_copied_into_the_same_arrays(kind: str, shuffle: Any) -> None:
    x = (10 * rng.normal(size=(22, 3, 0 if kind == "nothing" else 4, 2))).astype(
        "float32" if kind in ("a view", "nothing") else kind
    )
    x = x[..., ::2, :] if kind == "a view" else x
    y = rng.normal(size=22)
    source = ArraySource(Batch([x, x + 1], [y], None, 22), 4, shuffle)
    wider = "int64" if kind == "int32" else "float32" if kind == "a view" else x.dtype
    own = [np.zeros((4, *x.shape[1:]), wider), np.zeros((4, *x.shape[1:]), wider), np.zeros(4)]
    filling = None
    for batch in source.batches(lambda: np.random.default_rng(0)):
        if batch.size == 4:
            filling = filling or Filling(batch, own)
            filling.fill(batch)
            for to, a in zip(own, (*batch.x, *batch.y), strict=True):
                np.testing.assert_array_equal(to, a)


def test_epochs_of_some_steps_begin_a_new_pass_after_the_last() -> None:
    source = ArraySource(Batch([np.arange(6)], None, None, 6), 2, False)
    epochs = Epochs(source, 3)
    assert [[b.x[0][0] for b in epochs] for _ in range(2)] == [[0, 2, 4]] * 2
    assert epochs.steps == 3 and Epochs(source, None).steps == 3


def test_structures_are_flattened_in_one_order_and_packed_again() -> None:
    structure = {"b": [1, 2], "a": {"d": 3, "c": 4}}
    assert flatten(structure) == [4, 3, 1, 2]
    assert pack(structure, iter(flatten(structure))) == structure


def test_memory_maps_are_not_loaded(tmp_path: Any) -> None:
    x = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype="float64", shape=(8, 2))
    x[:] = floats(8, 2)
    model = linear()
    data = model._reader().read(x, np.zeros(8))
    assert np.shares_memory(data.x[0], x)
    assert model.fit(x, np.zeros(8), batch_size=4, verbose=0).history["loss"] == pytest.approx(
        [np.square(x.sum(axis=1)).mean()], rel=1e-5
    )


def test_arrays_of_other_libraries_are_taken(torch: Any) -> None:
    x, y = floats(4, 2), floats(4, 1)
    model = linear()
    assert model.train_on_batch(torch.tensor(x), torch.tensor(y)) == model.train_on_batch(x, y)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y)), batch_size=2)
    assert model.fit(Again(*(tuple(b) for b in loader)), verbose=0).history["loss"] == pytest.approx(
        [model.evaluate(x, y, verbose=0)]
    )
    assert model.fit(loader, verbose=0).history["loss"] == pytest.approx([model.evaluate(x, y, verbose=0)])


def two() -> Model:
    a, b = Input((3,), name="a"), Input((None, 2), name="b")
    model = Model([a, b], [layers.Dense(1, name="one")(a), layers.LSTM(2, name="two")(b)], name="two")
    model.compile("sgd", "mse")
    return model


X, Y = [floats(4, 3), floats(4, 5, 2)], [floats(4, 1), floats(4, 2)]


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X[0], Y, r"x of model 'two' must give 2 inputs \('a', 'b'\); received an array of shape \(4, 3\)"),
        (X[:1], Y, r"must give 2 inputs \('a', 'b'\); received 1 arrays"),
        ([*X, X[0]], Y, "received 3 arrays"),
        ({"a": X[0]}, Y, "must be a dict with the inputs 'a', 'b'; received 'a'"),
        ([floats(4, 2), X[1]], Y, r"input 'a' of model 'two' expects shape \(batch, 3\); received \(4, 2\)"),
        ([X[0], floats(4, 2)], Y, r"input 'b' of model 'two' expects shape \(batch, any, 2\); received \(4, 2\)"),
        ([X[0], floats(4, 0, 2)], Y, r"input 'b' of model 'two' is empty: received shape \(4, 0, 2\)"),
        ([floats(0, 3), floats(0, 5, 2)], [floats(0, 1), floats(0, 2)], r"input 'a' .* is empty"),
        ([floats(5, 3), X[1]], Y, r"same number of samples; received x\[0\]: 5, x\[1\]: 4"),
        (X, [Y[0], floats(3, 2)], r"same number of samples; .* y\[1\]: 3"),
        (X, Y[0], r"y of model 'two' must give 2 targets \('one', 'two'\)"),
        (X, {"one": Y[0], "third": Y[1]}, "must be a dict with the targets 'one', 'two'; received 'one', 'third'"),
        (X, [Y[0], None], "output 'two' has a loss but no targets"),
        (X, None, "output 'one' has a loss but no targets"),
        (X, [Y[0], floats(4, 3)], r"y_true of shape \(4, 3\), y_pred of shape \(4, 2\) \(loss of output 'two'\)"),
        ([np.array([["p", "q", "r"]] * 4), X[1]], Y, "input 'a' of model 'two' must be an array of numbers"),
        ([[[1.0, 2.0, 3.0], [1.0]], X[1]], Y, "input 'a' of model 'two' is ragged"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(x: Any, y: Any, message: str) -> None:
    model = two()
    before = model.get_weights()
    for method in (lambda: model.fit(x, y, verbose=0), lambda: model.train_on_batch(x, y)):
        with pytest.raises(ValueError, match=message):
            method()
    np.testing.assert_equal(model.get_weights(), before)


def test_rows_in_a_list_are_told_to_be_stacked() -> None:
    with pytest.raises(ValueError, match=r"np\.stack makes one array"):
        linear().predict([floats(2), floats(2), floats(2)], verbose=0)


def test_arguments_that_do_not_belong_to_the_data_are_refused() -> None:
    x, y = floats(4, 2), floats(4, 1)
    model = linear()
    with pytest.raises(ValueError, match="y must be None when x is a Batches"):
        model.fit(Batches(x, y, 2), y, verbose=0)
    with pytest.raises(ValueError, match="batch_size must be a positive integer; received 0"):
        model.fit(x, y, batch_size=0, verbose=0)
    with pytest.raises(ValueError, match=r"validation_data must be .*; received one array of shape \(4, 2\)"):
        model.fit(x, y, validation_data=x, verbose=0)
    with pytest.raises(ValueError, match=r"validation_data must be .*; received 4 entries"):
        model.fit(x, y, validation_data=(x, y, None, None), verbose=0)
    with pytest.raises(ValueError, match=r"must give 1 input .*; received None"):
        model.fit(None, y, verbose=0)
    with pytest.raises(ValueError, match="x must be an array"):
        model.fit(3.5, y, verbose=0)
    with pytest.raises(ValueError, match=r"must be \(x,\), \(x, y\) or \(x, y, sample_weight\)"):
        model.fit(iter([(x, y, y, y)]), verbose=0)
    with pytest.raises(ValueError, match="has length 0"):
        model.fit(Batches(x[:0], y[:0], 2), verbose=0)
    with pytest.raises(ValueError, match="class_weight needs a model with one output"):
        two().fit(X, Y, class_weight={0: 1.0}, verbose=0)
    with pytest.raises(ValueError, match=r"sample_weight for several outputs at once must have shape \(batch,\)"):
        two().fit(X, Y, sample_weight=np.ones((4, 2)), verbose=0)


def test_one_sample_weight_counts_for_all_outputs() -> None:
    model, w = two(), np.array([1, 2, 0, 1.0])
    assert model.evaluate(X, Y, sample_weight=w, verbose=0) == model.evaluate(X, Y, sample_weight=[w, w], verbose=0)
    assert model.evaluate(X, Y, sample_weight={"one": w}, verbose=0) != model.evaluate(X, Y, sample_weight=w, verbose=0)


def test_whole_numbers_are_asked_for_where_an_input_is_of_integers() -> None:
    a = Input((None,), dtype="int32")
    model = Model(a, layers.GRU(2)(layers.Embedding(5, 2)(a)))
    ids = np.array([[1, 2, 3]])
    np.testing.assert_array_equal(model.predict(ids.astype("float32"), verbose=0), model.predict(ids, verbose=0))
    with pytest.raises(ValueError, match="whole"):
        model.predict(ids + 0.5, verbose=0)


def test_a_last_axis_of_one_may_be_left_out() -> None:
    model = Sequential([Input((None, 1)), layers.GRU(2)])
    x = floats(3, 4)
    np.testing.assert_array_equal(model.predict(x, verbose=0), model.predict(x[..., None], verbose=0))


def test_predictions_never_share_memory_with_the_data() -> None:
    a = Input((2,))
    model = Model(a, layers.Dropout(0.5)(a))
    x = floats(3, 2)
    assert not np.shares_memory(model.predict(x, verbose=0), x)


def test_memory_may_begin_anywhere() -> None:
    """As that of files and messages does, behind a header of some bytes."""
    raw = np.frombuffer(b"\x00" + floats(40, 6).tobytes(), np.uint8)
    x = raw[1:].view("float32").reshape(40, 6)
    y = np.frombuffer(b"\x00" + floats(40, 2).tobytes(), np.uint8)[1:].view("float32").reshape(40, 2)
    assert not x.flags.aligned and not y.flags.aligned
    found = []
    for inputs, targets in ((x, y), (x.copy(), y.copy())):
        utils.set_random_seed(1)
        model = Sequential([Input((6,)), layers.Dense(2)])
        model.compile("adam", "mse")
        history = model.fit(inputs, targets, batch_size=8, verbose=0).history["loss"]
        found.append((history, model.evaluate(inputs, targets, verbose=0), model.predict(inputs, verbose=0).tolist()))
    assert found[0] == found[1]
