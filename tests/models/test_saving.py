"""Models to files and back: what comes back, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
import stat
import warnings
from copy import deepcopy

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from saving_zoo import ZOO, floats, inputs_of, outputs_of, targets_of

from fastrnn import Input, Model, Sequential, initializers, layers, losses, models, optimizers, registry, saving
from fastrnn.models import clone_model, load_model, model_from_json
from fastrnn.saving import SaveError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture(params=ZOO)
def model(request):
    return ZOO[request.param]()


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


def contents(path):
    with safe_open(path, "numpy") as file:
        return json.loads(file.metadata()["fastrnn"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


# round trips


def test_a_model_comes_back_with_weights_names_and_graph(model, path):
    model.save(path)
    again = load_model(path)
    assert type(again) is type(model) and again.name == model.name
    assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
    assert [type(layer) for layer in again.layers] == [type(layer) for layer in model.layers]
    assert again.get_config() == model.get_config()
    same(again.get_weights(), model.get_weights())
    same(outputs_of(again), outputs_of(model))


def test_the_graph_surface_comes_back(model, path):
    model.save(path)
    again = load_model(path)
    assert again.input_names == model.input_names and again.output_names == model.output_names
    assert [t.shape for t in again.inputs + again.outputs] == [t.shape for t in model.inputs + model.outputs]
    for name in [layer.name for layer in model.layers]:
        ours, theirs = again.get_layer(name), model.get_layer(name)
        assert repr(ours.input) == repr(theirs.input) and repr(ours.output) == repr(theirs.output)


def test_training_goes_on_with_the_same_bits(model, path):
    x, y = inputs_of(model), targets_of(model)
    trained(model).save(path)
    again = load_model(path)
    assert again.train_on_batch(x, y) == model.train_on_batch(x, y)
    same(again.get_weights(), model.get_weights())


@pytest.mark.parametrize(
    "copy",
    [lambda m: pickle.loads(pickle.dumps(m)), deepcopy, lambda m: saving.unpack(saving.pack(m))],
    ids=["pickle", "deepcopy", "pack"],
)
def test_copies_go_on_with_the_same_bits_and_share_nothing(model, copy):
    x, y = inputs_of(model), targets_of(model)
    trained(model)
    again = copy(model)
    before = model.get_weights()
    loss = again.train_on_batch(x, y)
    same(model.get_weights(), before)
    assert any((a != b).any() for a, b in zip(again.get_weights(), before, strict=True))
    assert model.train_on_batch(x, y) == loss
    same(again.get_weights(), model.get_weights())


def test_clones_have_the_architecture_and_new_weights(model):
    again = clone_model(model)
    assert [w.shape for w in again.weights] == [w.shape for w in model.weights]
    assert not any(w in model.weights for w in again.weights)
    restored = model_from_json(model.to_json())
    assert restored.get_config() == model.get_config()


def test_shared_layers_are_shared_again(path):
    model = ZOO["shared"]()
    model.save(path)
    again = load_model(path)
    assert len(again.weights) == len(model.weights)
    encoder = again.get_layer("encoder")
    left = [t for node in again.network.nodes if node.layer is encoder for t in [node.inputs.name]]
    assert sorted(left) == ["left", "right"]


def test_inference_models_can_be_made_from_loaded_layers(path):
    ZOO["encoder_decoder"]().save(path)
    model = load_model(path)
    first, second = (layer for layer in model.layers if isinstance(layer, layers.LSTM))
    encoder = Model(model.input[0], first.output[1:])
    x = inputs_of(model)
    states = encoder.predict(x[0], verbose=0)
    sequence = second(x[1], initial_state=list(states))
    dense = model.layers[-1]
    np.testing.assert_allclose(dense(sequence), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)


def test_compilation_comes_back(path):
    schedule = optimizers.schedules.ExponentialDecay(0.01, 10, 0.5)
    loss = losses.Huber(delta=0.25)
    model = small(optimizer=optimizers.SGD(schedule, momentum=0.5, clipnorm=2.0), loss=loss, metrics=["mae", "mse"])
    model.save(path)
    again = load_model(path)
    assert repr(again.optimizer) == repr(model.optimizer)
    assert again.get_compile_config() == model.get_compile_config()
    x, y = floats(8, 5, 3), floats(8, 2)
    assert again.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)


def test_compile_false_leaves_the_optimizer_out(path):
    trained(small()).save(path)
    again = load_model(path, compile=False)
    assert again.optimizer is None and not again.compiled


def test_a_model_that_was_never_compiled_or_trained(path):
    small().save(path)
    assert load_model(path).optimizer is None
    small(optimizer="adam", loss="mse").save(path)
    again = load_model(path)
    assert again.optimizer.iterations == 0
    again.train_on_batch(floats(4, 5, 3), floats(4, 2))


def test_a_stack_that_is_not_built_comes_back_so(path):
    model = Sequential([layers.LSTM(4), layers.Dense(2)])
    model.compile("sgd", "mse")
    model.save(path)
    again = load_model(path)
    assert not again.built
    again.fit(floats(4, 5, 3), floats(4, 2), verbose=0)


def test_learning_rates_set_by_hand_come_back(path):
    model = trained(small())
    model.optimizer.learning_rate = 0.125
    model.save(path)
    assert load_model(path).optimizer.learning_rate == 0.125


def test_layers_frozen_after_training_do_not_lose_their_optimizer_state(path):
    model = trained(small())
    model.layers[0].trainable = False
    model.save(path)
    again = load_model(path)
    assert not again.layers[0].trainable
    slots = {name: value for name, value in model.optimizer.state().items() if "/" in name}
    assert len(slots) == 10
    np.testing.assert_equal(again.optimizer.state(), model.optimizer.state())


def test_large_initial_values_travel_as_an_array(path):
    table = floats(300, 20)
    embedding = layers.Embedding(300, 20, embeddings_initializer=initializers.Constant(table), trainable=False)
    model = Sequential([Input((None,), dtype="int32"), embedding, layers.GRU(2)])
    model.save(path)
    assert path.stat().st_size < 100_000
    again = load_model(path)
    np.testing.assert_array_equal(again.layers[0].get_weights()[0], table)
    assert again.get_config() == model.get_config()


def test_names_in_any_script(path):
    model = Sequential([Input((None, 3)), layers.LSTM(2, name="größe 層")], name="模型")
    model.save(path)
    again = load_model(path)
    assert again.name == "模型" and again.layers[0].name == "größe 層"


# what a file is


def test_a_file_is_plain_safetensors_with_json(path):
    trained(small(), optimizers.SGD(0.01, momentum=0.9)).save(path)
    document, tensors = contents(path)
    assert set(tensors) == {
        *(
            f"weights/{name}"
            for name in ("lstm/kernel", "lstm/recurrent_kernel", "lstm/bias", "dense/kernel", "dense/bias")
        ),
        *(
            f"optimizer/momentum/{name}"
            for name in ("lstm/kernel", "lstm/recurrent_kernel", "lstm/bias", "dense/kernel", "dense/bias")
        ),
        "optimizer/iterations",
        "optimizer/learning_rate",
    }
    assert (
        document["format"] == 1 and document["model"]["class_name"] == "Sequential" and document["optimizer"] == "SGD"
    )


def test_paths_do_not_depend_on_how_many_models_there_were():
    names = [list(saving.weight_paths(ZOO[name]())) for name in ZOO for _ in range(2)]
    assert names[::2] == names[1::2]
    every = {name: list(saving.weight_paths(make())) for name, make in ZOO.items()}
    assert every["sequential"][-1] == "head/bias"
    assert every["masked"][:3] == [
        "embedding/embeddings",
        "bidirectional/forward/kernel",
        "bidirectional/forward/recurrent_kernel",
    ]
    assert "time_distributed/dense/kernel" in every["masked"] and "gru/bias" in every["masked"]
    assert {"inner/lstm/kernel", "middle/dense/kernel", "dense/kernel"} <= set(every["nested"])
    assert [p for p in every["encoder_decoder"] if p.endswith("recurrent_kernel")] == [
        "lstm/recurrent_kernel",
        "lstm_1/recurrent_kernel",
    ]


def test_every_weight_has_one_path(model):
    assert {id(p) for p in saving.weight_paths(model).values()} == {id(p) for p in model.weights}
    assert len(saving.weight_paths(model)) == len(model.weights)


# weights


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


# users' own things


@registry.register("layer")
class Scale(layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight("scale", (shape[-1],), initializer="ones")

    def forward(self, x, mask, context):
        return x * self.scale.values, x

    def backward(self, saved, dy):
        self.scale.gradient[...] += (saved * dy).reshape(-1, self.scale.size).sum(0)
        return dy * self.scale.values


class Unregistered(Scale):
    pass


class PlainLoss:
    def value_and_gradient(self, y_true, y_pred):
        return float(((y_pred - y_true) ** 2).mean()), 2 * (y_pred - y_true) / y_pred.size


def test_registered_classes_of_users_come_back(path):
    model = Sequential([Input((None, 3)), layers.GRU(2), Scale(name="mine")])
    model.layers[1].set_weights([np.array([2.0, 3.0])])
    model.save(path)
    same(load_model(path).get_weights(), model.get_weights())


def test_unknown_classes_are_named_and_can_be_given(path):
    Sequential([Input((None, 3)), Unregistered()]).save(path)
    with pytest.raises(SaveError, match=r"(?s)custom_objects=.*unknown layer 'Unregistered'"):
        load_model(path)
    assert type(load_model(path, custom_objects={"Unregistered": Unregistered}).layers[0]) is Unregistered


def test_functions_of_users_come_back_by_name(path):
    def off_by(y_true, y_pred):
        return np.abs(y_true - y_pred).mean(-1)

    model = small(optimizer="sgd", loss="mse", metrics=[off_by])
    model.save(path)
    with pytest.raises(SaveError, match="unknown function 'off_by'"):
        load_model(path)
    assert load_model(path, compile=False).optimizer is None
    again = load_model(path, custom_objects={"off_by": off_by})
    x, y = floats(4, 5, 3), floats(4, 2)
    assert again.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)


def test_a_loss_without_a_configuration_does_not_prevent_saving(path):
    model = small(optimizer="adam", loss=PlainLoss())
    model.train_on_batch(floats(4, 5, 3), floats(4, 2))
    with pytest.warns(UserWarning, match="saved without its loss and metrics"):
        model.save(path)
    again = load_model(path)
    assert again.optimizer is None
    same(again.get_weights(), model.get_weights())
    again.compile("adam", PlainLoss())
    saving.restore(again, path)
    assert again.optimizer.iterations == 1


def test_models_inside_subclasses_need_their_class(path):
    class Mine(Sequential):
        pass

    Mine([Input((None, 3)), layers.GRU(2)]).save(path)
    with pytest.raises(SaveError, match="unknown model 'Mine'"):
        load_model(path)
    assert type(load_model(path, custom_objects={"Mine": Mine})) is Mine


# restore


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


# paths and files


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.weights.h5", "m", "m.safetensors.bak", "m.SAFETENSORS"])
def test_other_suffixes_are_refused_and_ours_is_named(tmp_path, name):
    model = small()
    target = tmp_path / name
    target.write_bytes(b"old")
    for work in (model.save, model.save_weights, model.load_weights, load_model):
        with pytest.raises(SaveError, match=r"writes and reads \.safetensors files; received '.*m"):
            work(str(target))
    assert target.read_bytes() == b"old" and os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("bad", [None, 3, ["a.safetensors"]])
def test_what_is_no_path_is_a_type_error(bad):
    with pytest.raises(TypeError):
        small().save(bad)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(SaveError, match="nowhere.safetensors cannot be read: No such file"):
        load_model(tmp_path / "nowhere.safetensors")
    with pytest.raises(SaveError, match="there is no folder"):
        small().save(tmp_path / "no" / "m.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(SaveError, match="cannot be read"):
        load_model(tmp_path / "folder.safetensors")
    with pytest.raises(SaveError, match="cannot be written"):
        small().save(tmp_path / "folder.safetensors")
    assert os.listdir(tmp_path) == ["folder.safetensors"]


def test_overwrite_false_keeps_the_old_file(path):
    small().save(path)
    before = path.read_bytes()
    for save in (small().save, small().save_weights):
        with pytest.raises(SaveError, match="exists; pass overwrite=True"):
            save(path, overwrite=False)
    assert path.read_bytes() == before


def test_links_and_permissions_stay(tmp_path):
    target, link = tmp_path / "real.safetensors", tmp_path / "link.safetensors"
    small().save(target)
    target.chmod(0o640)
    link.symlink_to(target.name)
    before = target.read_bytes()
    small().save(link)
    assert link.is_symlink() and target.read_bytes() != before
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_new_files_get_the_usual_permissions(path):
    mask = os.umask(0o027)
    try:
        small().save(path)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_paths_may_be_strings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = small()
    model.save("m.safetensors")
    same(load_model("m.safetensors").get_weights(), model.get_weights())


def test_foreign_files_are_refused(path):
    save_file({"w": floats(2)}, path)
    with pytest.raises(SaveError, match="was not written by fastrnn"):
        load_model(path)
    save_file({"w": floats(2)}, path, {"format": "pt"})
    with pytest.raises(SaveError, match="was not written by fastrnn"):
        small().load_weights(path)
    for junk in (b"", b"x", b"\0" * 8, b"\xff" * 100, b"PK\3\4" + b"0" * 500, pickle.dumps({})):
        path.write_bytes(junk)
        with pytest.raises(SaveError, match=r"is no \.safetensors file, or a damaged one"):
            load_model(path)


def test_a_changed_weight_is_noticed(path):
    small().save(path)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(SaveError, match="is damaged: its checksum is wrong"):
        load_model(path)


def test_newer_formats_are_refused_by_name(path, monkeypatch):
    monkeypatch.setattr(saving, "FORMAT", 2)
    small().save(path)
    monkeypatch.undo()
    with pytest.raises(SaveError, match="has format 2; this version of fastrnn reads formats up to 1"):
        load_model(path)


def test_no_warning_on_the_usual_way(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(small()).save(path)
        load_model(path)
        small(optimizer="adam", loss="mse").load_weights(path)
    assert set(load_file(path)) and models.load_model is load_model
