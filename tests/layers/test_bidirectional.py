"""Bidirectional: two directions, their merging, masks and states."""

from __future__ import annotations

import numpy as np
import pytest
from contract import check_layer

from fastrnn.layers import GRU, LSTM, Bidirectional, Dense, Input, SimpleRNN
from fastrnn.states import Context, StateStore

BATCH, TIME, FEATURES, UNITS = 3, 5, 4, 2
MERGE = {
    "concat": lambda y, z: np.concatenate([y, z], axis=-1),
    "sum": lambda y, z: y + z,
    "ave": lambda y, z: (y + z) / 2,
    "mul": lambda y, z: y * z,
}
HOLES = np.array([[1, 1, 0, 0, 1], [0, 1, 1, 0, 1], [1, 0, 1, 0, 0]], bool)


@pytest.fixture
def x():
    return np.random.default_rng(1).normal(size=(BATCH, TIME, FEATURES))


def make(cls=LSTM, merge_mode="concat", **options):
    layer = Bidirectional(cls(UNITS, dtype="float64", name="inner", **options), merge_mode)
    layer.build((None, None, FEATURES))
    random = np.random.default_rng(0)
    layer.set_weights([random.normal(0, 0.7, w.shape) for w in layer.weights])
    return layer


def alone(layer, cls=LSTM, **options):
    """Layers of the weights of each direction, the second one to be called on the reversed sequence."""
    halves = layer.get_weights()[:3], layer.get_weights()[3:]
    layers = []
    for half in halves:
        one = cls(UNITS, dtype="float64", **options)
        one.build((None, None, FEATURES))
        one.set_weights(half)
        layers.append(one)
    return layers


# what comes out


@pytest.mark.parametrize("mask", [None, HOLES], ids=["no_mask", "masked"])
@pytest.mark.parametrize("merge_mode", MERGE)
@pytest.mark.parametrize("cls", [LSTM, GRU, SimpleRNN])
def test_a_sequence_is_merged_step_by_step_in_the_order_of_x(cls, merge_mode, mask, x):
    layer = make(cls, merge_mode, return_sequences=True)
    forward, backward = alone(layer, cls, return_sequences=True, zero_output_for_mask=True)
    turned = None if mask is None else mask[:, ::-1]
    expected = MERGE[merge_mode](forward(x, mask=mask), backward(x[:, ::-1], mask=turned)[:, ::-1])
    assert np.array_equal(layer(x, mask=mask), expected)


@pytest.mark.parametrize("mask", [None, HOLES], ids=["no_mask", "masked"])
@pytest.mark.parametrize("merge_mode", MERGE)
def test_single_outputs_are_the_last_of_each_direction(merge_mode, mask, x):
    layer = make(LSTM, merge_mode)
    forward, backward = alone(layer)
    turned = None if mask is None else mask[:, ::-1]
    expected = MERGE[merge_mode](forward(x, mask=mask), backward(x[:, ::-1], mask=turned))
    assert np.array_equal(layer(x, mask=mask), expected)


@pytest.mark.parametrize("return_sequences", [False, True])
def test_without_merging_both_outputs_are_listed(return_sequences, x):
    y, z = make(merge_mode=None, return_sequences=return_sequences)(x)
    assert np.array_equal(np.concatenate([y, z], axis=-1), make(return_sequences=return_sequences)(x))


def test_masked_steps_give_zeros_in_a_sequence(x):
    assert not make(return_sequences=True)(x, mask=HOLES)[~HOLES].any()


def test_states_come_forward_first(x):
    layer = make(return_state=True, return_sequences=True)
    forward, backward = alone(layer, return_state=True)
    _, *states = layer(x)
    expected = [*forward(x)[1:], *backward(x[:, ::-1])[1:]]
    assert all(np.array_equal(a, b) for a, b in zip(states, expected, strict=True))
    y, z, *unmerged = make(merge_mode=None, return_state=True)(x)
    assert y.shape == z.shape == (BATCH, UNITS)
    assert all(np.array_equal(a, b) for a, b in zip(unmerged, expected, strict=True))


def test_initial_states_are_split_in_halves(x):
    layer = make(return_sequences=True)
    start = [np.random.default_rng(i).normal(size=(BATCH, UNITS)) for i in range(4)]
    forward, backward = alone(layer, return_sequences=True)
    expected = np.concatenate(
        [forward(x, initial_state=start[:2]), backward(x[:, ::-1], initial_state=start[2:])[:, ::-1]], axis=-1
    )
    assert np.array_equal(layer(x, initial_state=start), expected)
    for wrong in (start[:2], start[:3]):
        with pytest.raises(ValueError, match=f"has 4 states; received {len(wrong)}"):
            layer(x, initial_state=wrong)


def test_the_mask_passes_with_sequences(x):
    states = [None] * 4
    assert make(return_sequences=True).output_mask(x, HOLES) is HOLES
    assert make().output_mask(x, HOLES) is None
    assert make(merge_mode=None).output_mask(x, HOLES) == [None, None]
    one, other = make(merge_mode=None, return_sequences=True).output_mask(x, HOLES)
    assert one is HOLES and other is HOLES
    first, *rest = make(return_sequences=True, return_state=True, stateful=True).output_mask(x, HOLES)
    assert first is HOLES and rest == states


def test_shapes_are_declared():
    def shapes(**options):
        result = Bidirectional(LSTM(UNITS, **{k: v for k, v in options.items() if k != "merge_mode"}),
                               merge_mode=options.get("merge_mode", "concat"))(Input((7, FEATURES)))  # fmt: skip
        return [t.shape for t in result] if isinstance(result, list) else result.shape

    assert shapes() == (None, 4)
    assert shapes(return_sequences=True) == (None, 7, 4)
    assert shapes(return_sequences=True, merge_mode="sum") == (None, 7, 2)
    assert shapes(merge_mode=None) == [(None, 2)] * 2
    assert shapes(return_state=True) == [(None, 4)] + [(None, 2)] * 4
    assert shapes(return_state=True, merge_mode=None) == [(None, 2)] * 6


# the layers inside


def test_the_layer_given_is_a_pattern(x):
    pattern = LSTM(UNITS, name="lstm")
    layer = Bidirectional(pattern, name="both")
    layer(x)
    assert not pattern.built
    assert pattern.zero_output_for_mask is False
    assert [d.name for d in layer.directions] == ["forward_lstm", "backward_lstm"]
    assert [d.go_backwards for d in layer.directions] == [False, True]
    parts = ["kernel", "recurrent_kernel", "bias"]
    assert [w.path for w in layer.weights] == [f"both/{d}/{p}" for d in ("forward", "backward") for p in parts]


def test_weights_are_forward_then_backward_and_may_be_given(x):
    values = make().get_weights()
    layer = Bidirectional(LSTM(UNITS, dtype="float64"), weights=values)
    assert np.array_equal(layer(x), make()(x))
    assert all(np.array_equal(a, b) for a, b in zip(layer.get_weights(), values, strict=True))
    with pytest.raises(ValueError, match=r"6 weights; received 3"):
        Bidirectional(LSTM(UNITS), weights=values[:3])(x)


def test_the_backward_layer_may_be_another(x):
    backward = GRU(3, go_backwards=True, return_sequences=True)
    layer = Bidirectional(LSTM(UNITS, return_sequences=True), backward_layer=backward)
    assert layer(x).shape == (BATCH, TIME, UNITS + 3)
    assert layer.backward_layer is backward
    assert backward.zero_output_for_mask


def test_outputs_are_in_the_order_of_the_forward_layer_if_that_goes_backwards(x):
    """As Keras has it: it turns round what the second layer gives, whichever way that went."""

    def both(reverse, merge_mode):
        layer = Bidirectional(
            GRU(UNITS, return_sequences=True, go_backwards=reverse, dtype="float64"),
            merge_mode,
            backward_layer=GRU(UNITS, return_sequences=True, go_backwards=not reverse, dtype="float64"),
        )
        layer.build((None, None, FEATURES))
        return layer

    for merge_mode in ("sum", None):
        first, second = both(False, merge_mode), both(True, merge_mode)
        values = make(GRU).get_weights()
        first.set_weights(values)
        second.set_weights([*values[3:], *values[:3]])
        expected = first(x, mask=HOLES)
        expected = expected[:, ::-1] if merge_mode else [z[:, ::-1] for z in reversed(expected)]
        assert np.array_equal(second(x, mask=HOLES), expected)
        masks = second.output_mask(x, HOLES)
        assert np.array_equal(masks if merge_mode else masks[0], HOLES[:, ::-1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": Dense(2)}, "layer must be a recurrent layer"),
        ({"layer": LSTM(2), "backward_layer": Dense(2)}, "backward_layer must be a recurrent layer"),
        ({"layer": LSTM(2), "merge_mode": "max"}, "merge_mode must be one of .*concat.*received 'max'"),
        ({"layer": LSTM(2), "backward_layer": LSTM(2)}, "must differ in go_backwards"),
        ({"layer": LSTM(2, go_backwards=True)}, "must differ in go_backwards"),
        (
            {"layer": LSTM(2, return_sequences=True), "backward_layer": LSTM(2, go_backwards=True)},
            "must agree in return_sequences; received True and False",
        ),
        ({"layer": LSTM(2), "backward_layer": LSTM(2, go_backwards=True, stateful=True)}, "must agree in stateful"),
        ({"layer": LSTM(2), "backward_layer": LSTM(2, go_backwards=True, return_state=True)}, "agree in return_state"),
        ({"layer": LSTM(2), "backward_layer": LSTM(3, go_backwards=True), "merge_mode": "sum"}, "agree in units"),
        ({"layer": LSTM(2), "backward_layer": LSTM(2, go_backwards=True, dtype="float64")}, "must agree in dtype"),
        ({"layer": LSTM(2), "dtype": "float64"}, "dtype 'float64' is not that of its layer"),
    ],
)
def test_what_does_not_fit_together_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Bidirectional(**options)


def test_float64_of_the_layer_is_taken_over(x):
    assert Bidirectional(LSTM(2, dtype="float64"))(x).dtype == np.float64


def test_freezing_reaches_both_layers():
    frozen_inside = Bidirectional(LSTM(2, trainable=False))
    frozen_inside.build((None, None, FEATURES))
    assert frozen_inside.trainable_weights == []
    layer = make()
    layer.trainable = False
    assert layer.trainable_weights == [] and len(layer.non_trainable_weights) == 6
    layer.trainable = True
    assert len(layer.trainable_weights) == 6


def test_an_activity_regularizer_of_the_layer_becomes_that_of_the_wrapper():
    layer = Bidirectional(LSTM(2, activity_regularizer="l2"))
    assert type(layer.activity_regularizer).__name__ == "L2"
    assert all(d.activity_regularizer is None for d in layer.directions)
    with pytest.raises(ValueError, match="give the activity_regularizer to Bidirectional"):
        Bidirectional(LSTM(2, activity_regularizer="l2"), "sum")


def test_repr_and_configuration_name_both_layers():
    layer = Bidirectional(LSTM(2, name="lstm"), "sum", name="both")
    twin = Bidirectional.from_config(layer.get_config())
    assert twin.get_config() == layer.get_config()
    assert [d.name for d in twin.directions] == ["forward_lstm", "backward_lstm"]
    assert repr(layer).startswith("Bidirectional(LSTM(2, name='forward_lstm'")


# states over calls


def test_stateful_directions_go_on_where_they_ended(x):
    layer = make(stateful=True, return_sequences=True, return_state=True)
    plain = make(return_sequences=True, return_state=True)
    first = layer(x)
    expected = plain(x, initial_state=plain(x)[1:])
    assert all(np.array_equal(a, b) for a, b in zip(layer(x), expected, strict=True))
    for reset in (layer.reset_state, layer.reset_states):
        reset()
        assert all(np.array_equal(a, b) for a, b in zip(layer(x), first, strict=True))
    with pytest.raises(ValueError, match="stateful"):
        layer(x[:2])


def test_reset_state_of_a_layer_without_states_does_nothing():
    make().reset_state()


def test_directions_drop_different_inputs_unless_they_share_a_seed(x):
    def masks(seed):
        layer = Bidirectional(LSTM(2, dropout=0.5, seed=seed))
        layer.build((None, None, 50))
        context = Context(training=True, store=StateStore())
        return [d.dropout_masks(4, context)[0] for d in layer.directions]

    assert not np.array_equal(*masks(None))
    assert np.array_equal(*masks(3))


# the contract


@pytest.mark.parametrize("masked", [False, True], ids=["no_mask", "masked"])
@pytest.mark.parametrize("options", [{}, {"return_sequences": True}, {"return_state": True, "return_sequences": True}])
@pytest.mark.parametrize("merge_mode", [*MERGE, None])
def test_every_merge_mode_keeps_the_contract(merge_mode, options, masked):
    check_layer(
        lambda name, dtype: Bidirectional(GRU(UNITS, dtype=dtype, **options), merge_mode, name=name),
        (BATCH, TIME, FEATURES),
        masked=masked,
        padding="everything",
    )


@pytest.mark.parametrize("masked", [False, True], ids=["no_mask", "masked"])
@pytest.mark.parametrize("cls", [LSTM, GRU, SimpleRNN])
def test_initial_states_keep_the_contract(cls, masked):
    states = [(BATCH, UNITS)] * (4 if cls is LSTM else 2)
    check_layer(
        lambda name, dtype: Bidirectional(cls(UNITS, dtype=dtype, return_state=True), name=name),
        [(BATCH, TIME, FEATURES), *states],
        masked=masked,
        padding="everything",
    )


def test_dropout_keeps_the_contract():
    check_layer(
        lambda name, dtype: Bidirectional(
            LSTM(UNITS, dropout=0.3, recurrent_dropout=0.3, seed=1, return_sequences=True, dtype=dtype), name=name
        ),
        (BATCH, TIME, FEATURES),
        masked=True,
        training=True,
        padding="everything",
    )


@pytest.mark.parametrize("merge_mode", ["concat", "mul", None])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward_first", "backward_first"])
def test_a_backward_layer_of_ones_own_keeps_the_contract(reverse, merge_mode):
    check_layer(
        lambda name, dtype: Bidirectional(
            LSTM(UNITS, return_sequences=True, go_backwards=reverse, dtype=dtype, name="a"),
            merge_mode,
            backward_layer=GRU(UNITS, return_sequences=True, go_backwards=not reverse, dtype=dtype, name="b"),
            name=name,
        ),
        (BATCH, TIME, FEATURES),
        masked=True,
        padding="everything",
    )
