"""Models as graphs: inputs, outputs, layers in order, sharing, nesting, masks, copies, errors."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest

from fastrnn import Input, Model, Sequential, layers, models
from fastrnn.params import segments

rng = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype("float32")


def two_in_two_out() -> Model:
    a, b = Input((3,), name="a"), Input((2,), name="b")
    h = layers.Dense(4, activation="tanh", name="hidden")(layers.Concatenate(name="joined")([a, b]))
    return Model([a, b], [layers.Dense(1, name="first")(h), layers.Dense(5, name="second")(h)])


def dense(layer: layers.Dense, x: np.ndarray) -> np.ndarray:
    kernel, bias = layer.get_weights()
    return x @ kernel + bias


def test_model_computes_its_graph() -> None:
    model, x, z = two_in_two_out(), floats(6, 3), floats(6, 2)
    hidden = np.tanh(dense(model.get_layer("hidden"), np.concatenate([x, z], axis=1)))
    for found in (model([x, z]), model.predict([x, z], verbose=0), model.predict_on_batch([x, z])):
        np.testing.assert_allclose(found[0], dense(model.get_layer("first"), hidden), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found[1], dense(model.get_layer("second"), hidden), rtol=1e-5, atol=1e-6)


def test_inputs_come_as_a_list_or_by_name() -> None:
    model, x, z = two_in_two_out(), floats(6, 3), floats(6, 2)
    expected = model.predict([x, z], verbose=0)
    for given in ((x, z), {"b": z, "a": x}, {"b": z, "a": x, "unused": x}, [x.tolist(), z]):
        for found, wanted in zip(model.predict(given, verbose=0), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_structures_of_dicts_are_kept() -> None:
    a, b = Input((3,), name="a"), Input((2,), name="b")
    model = Model({"b": b, "a": a}, {"y": layers.Dense(2)(a), "x": layers.Dense(1)(b)})
    assert [t.name for t in model.inputs] == ["a", "b"]
    found = model.predict({"a": floats(4, 3), "b": floats(4, 2)}, verbose=0)
    assert {name: v.shape for name, v in found.items()} == {"y": (4, 2), "x": (4, 1)}


def test_one_output_in_a_list_comes_back_as_an_array() -> None:
    a = Input((3,))
    model = Model([a], [layers.Dense(2)(a)])
    assert isinstance(model.predict(floats(4, 3), verbose=0), np.ndarray)
    assert model.input[0] is a and model.output[0].shape == (None, 2)


def test_layers_are_ordered_by_their_distance_to_the_outputs() -> None:
    assert [layer.name for layer in two_in_two_out().layers] == ["a", "b", "joined", "hidden", "first", "second"]
    a, b = Input((3,), name="a"), Input((3,), name="b")
    late = layers.Add(name="sum")([layers.Dense(3, name="d2")(layers.Dense(3, name="d1")(b)), a])
    assert [layer.name for layer in Model([a, b], late).layers] == ["b", "d1", "d2", "a", "sum"]


def test_layers_come_in_keras_order(keras) -> None:
    def build(k, ids):
        a, b, c = (k.Input((4,), name=n) for n in "abc")
        shared = k.layers.Dense(4, name="shared")
        left, right = shared(a), shared(k.layers.Dense(4, name="deep")(shared(b)))
        joined = k.layers.Concatenate(name="joined")([right, left, c])
        return k.Model([a, b, c], [k.layers.Dense(1, name="late")(joined), k.layers.Dense(1, name="early")(left)])

    import fastrnn

    assert [x.name for x in build(fastrnn, 0).layers] == [x.name for x in build(keras, 0).layers]


def test_shared_layer_has_its_weights_once_and_serves_both_calls() -> None:
    a, b = Input((3,)), Input((3,))
    shared = layers.Dense(2)
    model = Model([a, b], layers.Subtract()([shared(a), shared(b)]))
    x, z = floats(5, 3), floats(5, 3)
    assert len(model.weights) == 2 and model.count_params() == 8
    np.testing.assert_allclose(
        model.predict([x, z], verbose=0), (x - z) @ shared.get_weights()[0], rtol=1e-5, atol=1e-6
    )


def test_model_inside_a_model_shares_its_weights() -> None:
    inner = Sequential([Input((None, 3)), layers.LSTM(4, name="rnn"), layers.Dense(2, name="out")], name="inner")
    a, b = Input((None, 3)), Input((None, 3))
    outer = Model([a, b], layers.Add()([inner(a), inner(b)]))
    x, z = floats(5, 6, 3), floats(5, 4, 3)
    np.testing.assert_allclose(
        outer.predict([x, z], verbose=0),
        inner.predict(x, verbose=0) + inner.predict(z, verbose=0),
        rtol=1e-5,
        atol=1e-6,
    )
    assert [w.path for w in outer.weights][::3] == ["inner/rnn/kernel", "inner/out/kernel"]
    assert outer.weights[0] is inner.weights[0]


def test_weights_of_a_model_lie_in_one_piece() -> None:
    model = Sequential([Input((None, 3)), layers.LSTM(4), layers.Dense(2)])
    first = model.get_weights()
    model.predict(floats(1, 2, 3), verbose=0)
    assert len(segments(model.weights)) == 1
    second = Model(model.input, model.layers[0].output)
    assert len(segments(model.weights)) == 1 and second.weights[0] is model.weights[0]
    for before, after in zip(first, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_masks_travel_to_later_layers_and_stop_where_layers_say() -> None:
    ids = np.array([[1, 2, 0, 0], [3, 0, 0, 0]])
    a = Input((None,), dtype="int32")
    embedded = layers.Embedding(5, 3, mask_zero=True)(a)
    model = Model(a, layers.LSTM(4, return_sequences=True)(layers.Dropout(0.5)(embedded)))
    y = model.predict(ids, verbose=0)
    np.testing.assert_array_equal(y[0, 1], y[0, 3])
    assert np.any(y[0, 0] != y[0, 1])
    short = model.predict(ids[:1, :2], verbose=0)
    np.testing.assert_allclose(y[0, 1], short[0, 1], rtol=1e-6)


def test_mask_given_with_a_call_overrides_the_one_that_travels() -> None:
    a, m = Input((None, 2)), Input((None,), dtype="bool")
    model = Model([a, m], layers.GRU(3)(a, mask=m))
    x = floats(2, 5, 2)
    mask = np.array([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]], dtype=bool)
    y = model.predict([x, mask], verbose=0)
    np.testing.assert_allclose(y[0], model.predict([x[:1, :2], mask[:1, :2]], verbose=0)[0], rtol=1e-6)
    inner = Sequential([Input((None, 2)), layers.GRU(3)])
    inner.build(None)
    outer = Model([a, m], inner(a, mask=m))
    outer.set_weights(model.get_weights())
    np.testing.assert_array_equal(outer.predict([x, mask], verbose=0), y)


def test_mask_of_an_eager_call_is_heard() -> None:
    model = Sequential([Input((None, 2)), layers.GRU(3)])
    x = floats(1, 5, 2)
    np.testing.assert_allclose(model(x, mask=np.array([[1, 1, 0, 0, 0]])), model(x[:, :2]), rtol=1e-6)
    with pytest.raises(ValueError, match=r"must have shape \(batch, time\) = \(1, 5\); received \(1, 3\)"):
        model(x, mask=np.ones((1, 3)))


def test_training_given_with_a_call_holds_in_every_run() -> None:
    a = Input((50,))
    drops = Model(a, layers.Dropout(0.5)(a, training=True))
    x = np.ones((4, 50), dtype="float32")
    assert np.any(drops.predict(x, verbose=0) == 0)
    plain = Model(a, layers.Dropout(0.5)(a))
    assert np.all(plain.predict(x, verbose=0) == 1) and np.any(plain(x, training=True) == 0)
    inner = Sequential([Input((50,)), layers.Dropout(0.5)])
    assert np.any(Model(a, inner(a, training=True)).predict(x, verbose=0) == 0)


def test_time_distributed_model_is_applied_to_every_step() -> None:
    inner = Sequential([Input((3,)), layers.Dense(4, activation="relu"), layers.Dense(2)])
    a = Input((None, 3))
    model = Model(a, layers.TimeDistributed(inner)(a))
    x = floats(2, 5, 3)
    np.testing.assert_allclose(
        model.predict(x, verbose=0)[:, 2], inner.predict(x[:, 2], verbose=0), rtol=1e-5, atol=1e-6
    )
    model.compile("sgd", "mse")
    before = inner.get_weights()
    model.train_on_batch(x, np.zeros((2, 5, 2)))
    assert all(np.any(b != w) for b, w in zip(before, inner.get_weights(), strict=True))


def test_part_of_a_graph_makes_a_model_with_an_input_of_its_own() -> None:
    model = two_in_two_out()
    hidden = model.get_layer("hidden")
    tail = Model(hidden.output, model.get_layer("first").output)
    assert [type(layer).__name__ for layer in tail.layers] == ["InputLayer", "Dense"]
    h = floats(3, 4)
    np.testing.assert_allclose(tail.predict(h, verbose=0), dense(model.get_layer("first"), h), rtol=1e-5, atol=1e-6)
    head = Model(model.input, hidden.output)
    x = [floats(3, 3), floats(3, 2)]
    np.testing.assert_allclose(
        tail.predict(head.predict(x, verbose=0), verbose=0), model.predict(x, verbose=0)[0], rtol=1e-6
    )


def test_get_layer_finds_by_name_and_by_index() -> None:
    model = two_in_two_out()
    assert model.get_layer("hidden") is model.layers[3] is model.get_layer(index=3)
    with pytest.raises(ValueError, match="has no layer 'wrong'; it has a, b, joined"):
        model.get_layer("wrong")
    with pytest.raises(ValueError, match="either a name or an index"):
        model.get_layer()


def test_set_weights_writes_all_or_nothing() -> None:
    model = two_in_two_out()
    values = [w + 1 for w in model.get_weights()]
    model.set_weights(values)
    for w, v in zip(model.get_weights(), values, strict=True):
        np.testing.assert_array_equal(w, v)
    with pytest.raises(ValueError, match="has shape"):
        model.set_weights([v * 2 if i else v[:1] for i, v in enumerate(values)])
    np.testing.assert_array_equal(model.get_weights()[1], values[1])


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_the_same_model_and_go_their_own_way(again) -> None:
    model = two_in_two_out()
    model.compile("adam", "mse", metrics=[["mae"], []])
    x, y = [floats(6, 3), floats(6, 2)], [floats(6, 1), floats(6, 5)]
    model.train_on_batch(x, y)
    other = again(model)
    assert other.layers[3].output.node.layer is other.layers[3]
    before = model.get_weights()
    assert model.train_on_batch(x, y) == other.train_on_batch(x, y)
    for w, v in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(w, v)
    other.train_on_batch(x, y)
    assert any(np.any(w != v) for w, v in zip(model.get_weights(), other.get_weights(), strict=True))
    assert any(np.any(w != v) for w, v in zip(before, other.get_weights(), strict=True))
    np.testing.assert_array_equal(*(m.predict(x, verbose=0)[0] for m in (model, again(model))))


def test_a_copy_of_a_trained_model_holds_weights_and_slots_and_no_plans() -> None:
    model = Sequential([Input((None, 20)), layers.LSTM(30), layers.Dense(1)])
    model.compile("adam", "mse")
    model.fit(floats(4, 3, 20), floats(4, 1), verbose=0)
    assert len(pickle.dumps(model)) < 3 * 4 * model.count_params() + 15000


def test_models_copied_together_still_share_their_layers() -> None:
    whole = Sequential([Input((None, 3)), layers.LSTM(4), layers.Dense(2)])
    part = Model(whole.input, whole.layers[0].output)
    whole2, part2 = copy.deepcopy((whole, part))
    assert part2.weights[0] is whole2.weights[0] is not whole.weights[0]


def test_a_deep_stack_pickles() -> None:
    model = Sequential([Input((2,)), *(layers.Dense(2) for _ in range(300))])
    x = floats(1, 2)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(x, verbose=0), model.predict(x, verbose=0))


def test_json_gives_the_same_graph_with_new_weights() -> None:
    a, b = Input((None, 3), name="a"), Input((3,), name="b")
    shared = layers.Dense(4, name="shared")
    inner = Sequential([Input((4,)), layers.Dense(2)], name="inner")
    out, h, c = layers.LSTM(4, return_state=True, name="rnn")(shared(a), initial_state=[shared(b), shared(b)])
    model = Model({"a": a, "b": b}, [inner(out), h * 2 + c, a[:, -1]], name="m")
    other = models.model_from_json(model.to_json())
    json.loads(model.to_json(indent=1))
    assert [x.name for x in other.layers] == [x.name for x in model.layers] and other.get_config() == model.get_config()
    other.set_weights(model.get_weights())
    x = {"a": floats(2, 5, 3), "b": floats(2, 3)}
    for found, wanted in zip(other.predict(x, verbose=0), model.predict(x, verbose=0), strict=True):
        np.testing.assert_array_equal(found, wanted)
    clone = models.clone_model(model)
    assert clone.weights[0] is not model.weights[0] and clone.get_config() == model.get_config()


def test_missing_and_foreign_inputs_are_refused() -> None:
    a, b = Input((3,), name="a"), Input((3,), name="b")
    y = layers.Add()([a, b])
    with pytest.raises(ValueError, match="depend on the input 'b'"):
        Model(a, y)
    with pytest.raises(TypeError, match="Model: outputs must be symbolic tensors"):
        Model(a, np.zeros(3))
    with pytest.raises(TypeError, match=r"Model\(inputs, outputs\)"):
        Model()
    with pytest.raises(ValueError, match="is given twice"):
        Model([a, a], y)


def test_equal_names_of_layers_are_refused() -> None:
    a = Input((3,))
    with pytest.raises(ValueError, match="2 layers of the model are called 'same'"):
        Model(a, layers.Dense(1, name="same")(layers.Dense(2, name="same")(a)))


def test_models_with_a_forward_of_their_own_are_refused() -> None:
    with pytest.raises(TypeError, match="Mine overrides call"):

        class Mine(Model):
            def call(self, x):
                return x


def test_a_subclass_may_add_methods() -> None:
    class Named(Sequential):
        def greet(self) -> str:
            return f"I am {self.name}"

    model = Named([Input((2,)), layers.Dense(1)], name="n")
    assert model.greet() == "I am n" and model.predict(floats(2, 2), verbose=0).shape == (2, 1)


def test_unused_inputs_are_allowed() -> None:
    a, b = Input((3,), name="a"), Input((2,), name="b")
    model = Model([a, b], layers.Dense(1)(a))
    assert {layer.name for layer in model.layers} >= {"a", "b"}
    assert models.model_from_json(model.to_json()).predict([floats(2, 3), floats(2, 2)], verbose=0).shape == (2, 1)


def test_a_model_called_on_other_shapes_gives_its_output_shape_for_them() -> None:
    inner = Sequential([Input((None, 3)), layers.LSTM(4, return_sequences=True)])
    assert inner(Input((7, 3))).shape == (None, 7, 4)
    with pytest.raises(ValueError, match=r"expects shape \(None, None, 3\); received \(None, 7, 2\)"):
        inner(Input((7, 2)))
