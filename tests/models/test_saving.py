"""Models to files and back: what comes back."""

from __future__ import annotations

import pickle
from copy import deepcopy

import numpy as np
import pytest
from saving_zoo import ZOO, floats, inputs_of, outputs_of, same, small, targets_of, trained

from fastrnn import Input, Model, Sequential, initializers, layers, losses, optimizers, registry, saving
from fastrnn.models import clone_model, load_model, model_from_json
from fastrnn.saving import SaveError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture(params=ZOO)
def model(request):
    return ZOO[request.param]()


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
