"""Weights to files and back into other models: what fits, what is refused, what is left alone."""

from __future__ import annotations

import numpy as np
import pytest
from saving_zoo import ZOO, floats, inputs_of, same, small, targets_of, trained

from fastrnn import Input, Sequential, layers, saving
from fastrnn.models import clone_model, load_model
from fastrnn.saving import SaveError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture(params=ZOO)
def model(request):
    return ZOO[request.param]()


def test_weights_load_into_the_same_model_built_again(model, path):
    model.save_weights(path)
    again = clone_model(model)
    again.load_weights(path)
    same(again.get_weights(), model.get_weights())


def test_weights_load_across_batch_sizes(path):
    training = Sequential([Input(batch_shape=(8, 5, 3)), layers.LSTM(4, stateful=True), layers.Dense(2)])
    training.compile("adam", "mse")
    training.train_on_batch(floats(8, 5, 3), floats(8, 2))
    for save in (training.save_weights, training.save):
        save(path)
        writing = Sequential([Input(batch_shape=(1, None, 3)), layers.LSTM(4, stateful=True), layers.Dense(2)])
        writing.load_weights(path)
        same(writing.get_weights(), training.get_weights())
        assert writing.predict(floats(1, 1, 3), verbose=0).shape == (1, 2)


def test_weights_bring_the_state_of_an_optimizer_that_fits(path):
    model = trained(small())
    model.save_weights(path)
    again = small(optimizer="adam", loss="mse")
    again.load_weights(path)
    assert again.optimizer.iterations == 1
    x, y = floats(4, 5, 3), floats(4, 2)
    assert again.train_on_batch(x, y) == model.train_on_batch(x, y)
    same(again.get_weights(), model.get_weights())


def test_another_optimizer_starts_anew_with_a_warning(path):
    model = trained(small())
    model.save_weights(path)
    again = small(optimizer="sgd", loss="mse")
    with pytest.warns(UserWarning, match="not the optimizer's state: it is that of Adam, the model has SGD"):
        again.load_weights(path)
    same(again.get_weights(), model.get_weights())
    assert again.optimizer.iterations == 0


def test_a_file_of_weights_is_no_model(path):
    small().save_weights(path)
    with pytest.raises(SaveError, match="holds weights without a model: build the model and use load_weights"):
        load_model(path)


def test_weights_load_from_a_model_file_and_in_another_precision(path):
    model = small()
    model.save(path)
    double = Sequential(
        [Input((None, 3), dtype="float64"), layers.LSTM(4, dtype="float64"), layers.Dense(2, dtype="float64")]
    )
    double.load_weights(path)
    for a, b in zip(double.get_weights(), model.get_weights(), strict=True):
        assert a.dtype == np.float64 and (a == b).all()


def test_weights_that_do_not_fit_are_refused_whole(path):
    small().save_weights(path)
    wider = Sequential([Input((None, 3)), layers.LSTM(4), layers.Dense(5)])
    before = wider.get_weights()
    with pytest.raises(
        SaveError,
        match=r"model.safetensors does not fit model '.*': weight 'dense/kernel' has shape \(4, 2\), expected \(4, 5\)",
    ):
        wider.load_weights(path)
    same(wider.get_weights(), before)


def test_weights_that_are_missing_or_too_many_are_named(path):
    small().save_weights(path)
    longer = Sequential([Input((None, 3)), layers.LSTM(4), layers.Dense(2), layers.Dense(1)])
    with pytest.raises(SaveError, match="weight 'dense_1/kernel' is missing in the file"):
        longer.load_weights(path)
    shorter = Sequential([Input((None, 3)), layers.LSTM(4)])
    with pytest.raises(SaveError, match="weight 'dense/kernel' is not in the model"):
        shorter.load_weights(path)


def test_skip_mismatch_takes_what_fits_and_says_what_not(path):
    model = trained(small())
    model.save_weights(path)
    wider = Sequential([Input((None, 3)), layers.LSTM(4), layers.Dense(5)])
    with pytest.warns(UserWarning, match="skipped what does not fit .*dense/kernel"):
        wider.load_weights(path, skip_mismatch=True)
    same(wider.layers[0].get_weights(), model.layers[0].get_weights())


def test_a_model_without_weights_says_so(path):
    small().save_weights(path)
    with pytest.raises(SaveError, match="has no weights yet; build it"):
        Sequential([layers.LSTM(4), layers.Dense(2)]).load_weights(path)


def test_restore_brings_a_model_back_to_where_it_was(path):
    model = trained(ZOO["sequential"]())
    saving.save_model(model, path, extra={"epoch": 3, "note": "ü"})
    x, y = inputs_of(model), targets_of(model)
    first = [model.train_on_batch(x, y) for _ in range(3)]
    assert saving.restore(model, path) == {"epoch": 3, "note": "ü"}
    assert [model.train_on_batch(x, y) for _ in range(3)] == first


def test_restore_of_another_model_changes_nothing(path):
    model, other = trained(small()), trained(ZOO["sequential"]())
    model.save(path)
    before, state = other.get_weights(), other.optimizer.state()
    with pytest.raises(SaveError, match="does not fit model 'stack'"):
        saving.restore(other, path)
    same(other.get_weights(), before)
    np.testing.assert_equal(other.optimizer.state(), state)


def test_restore_works_on_the_same_model_built_again(path):
    model = trained(ZOO["sequential"]())
    model.save(path)
    again = ZOO["sequential"]()
    assert again.layers[0].name != model.layers[0].name
    again.compile("adam", "mse")
    saving.restore(again, path)
    x, y = inputs_of(model), targets_of(model)
    assert again.train_on_batch(x, y) == model.train_on_batch(x, y)
    same(again.get_weights(), model.get_weights())


@pytest.mark.parametrize("optimizer", ["sgd", None])
def test_restore_needs_the_same_optimizer_and_takes_nothing_else(path, optimizer):
    trained(small()).save(path)
    model = small()
    if optimizer:
        trained(model, optimizer)
    before, state = model.get_weights(), model.get_training_state()
    with pytest.raises(
        SaveError, match="that of Adam, the model has SGD" if optimizer else "only a compiled model goes"
    ):
        saving.restore(model, path)
    same(model.get_weights(), before)
    np.testing.assert_equal(model.get_training_state(), state)
