"""model.summary(): what the table says, and that it fits."""

from __future__ import annotations

import numpy as np
import pytest
from saving_zoo import ZOO, floats, inputs_of, targets_of

from fastrnn import Input, Model, Sequential, layers


def lines_of(model, **arguments):
    found = []
    assert model.summary(print_fn=found.append, **arguments) is None
    return found


def stack():
    return Sequential(
        [Input((None, 3)), layers.LSTM(4, return_sequences=True, name="a"), layers.Dense(2, name="b")], name="stack"
    )


def test_the_table_of_a_stack():
    assert lines_of(stack()) == [
        'Model: "stack"',
        "Layer (type)  Output shape     Params",
        "=====================================",
        "a (LSTM)      (None, None, 4)     128",
        "b (Dense)     (None, None, 2)      10",
        "-------------------------------------",
        "Total params: 138 (552 B)",
        "Trainable params: 138 (552 B)",
        "Non-trainable params: 0 (0 B)",
    ]


def test_it_prints_by_default(capsys):
    stack().summary()
    assert capsys.readouterr().out.splitlines() == lines_of(stack())


def test_a_graph_says_what_is_connected_to_what():
    x = Input((5, 3), name="x")
    y, h, c = layers.LSTM(4, return_sequences=True, return_state=True, name="lstm")(x)
    dense = layers.Dense(2, name="dense")
    z = layers.Add(name="add")([dense(h), dense(c)])
    rows = lines_of(Model(x, [y, z]))[3:7]
    assert rows == [
        "x (InputLayer)  (None, 5, 3)                             0  -",
        "lstm (LSTM)     (None, 5, 4), (None, 4), (None, 4)     128  x",
        "dense (Dense)   (None, 2)                               10  lstm[1], lstm[2]",
        "add (Add)       (None, 2)                                0  dense, dense",
    ]


def test_a_functional_chain_needs_no_connections():
    x = Input((5, 3))
    assert "Connected to" not in lines_of(Model(x, layers.Dense(2)(layers.GRU(2)(x))))[1]
    y, again = layers.GRU(2)(x), layers.Dense(2)
    assert "Connected to" in lines_of(Model(x, again(again(y))))[1]
    assert "Connected to" in lines_of(Model(x, layers.Add()([y, layers.Dense(2)(y)])))[1]


def test_counts_are_those_of_the_model_with_shared_layers_once():
    for make in ZOO.values():
        model = make()
        total = f"Total params: {model.count_params():,} "
        assert any(line.startswith(total) for line in lines_of(model))


def test_frozen_weights_and_their_bytes():
    model = Sequential([Input((3,)), layers.Dense(128, name="a"), layers.Dense(64, dtype="float64", name="b")])
    model.layers[0].trainable = False
    lines = lines_of(model, show_trainable=True)
    assert [line.split()[-1] for line in lines[3:5]] == ["no", "yes"]
    assert lines[-3:] == [
        "Total params: 8,768 (66.50 KB)",
        "Trainable params: 8,256 (64.50 KB)",
        "Non-trainable params: 512 (2.00 KB)",
    ]


def test_the_optimizer_is_counted_apart_once_it_exists():
    model = stack()
    model.compile("adam", "mse")
    assert not any(line.startswith("Optimizer") for line in lines_of(model))
    model.train_on_batch(floats(2, 5, 3), floats(2, 5, 2))
    assert lines_of(model)[-1] == "Optimizer params: 276 (1.08 KB)"


def test_layers_inside_are_listed_on_request():
    model = ZOO["masked"]()
    assert not any("forward" in line for line in lines_of(model))
    rows = [line.split()[0] for line in lines_of(model, expand_nested=True) if line.startswith("   ")]
    assert len(rows) == 3 and rows[0].startswith("forward_lstm") and rows[1].startswith("backward_lstm")
    shapes = [line for line in lines_of(model, expand_nested=True) if line.startswith("   forward")]
    assert "(None, None, 3)" in shapes[0]


def test_models_inside_models_are_indented_by_depth():
    lines = lines_of(ZOO["nested"](), expand_nested=True)
    depth = {line.strip().split()[0]: len(line) - len(line.lstrip()) for line in lines}
    assert depth["middle"] == 0 and max(depth.values()) == 6


def test_layers_that_are_not_built_yet():
    rows = lines_of(Sequential([layers.LSTM(4, name="a"), layers.Dense(2, name="b")]))[3:5]
    assert rows == ["a (LSTM)      ?             0 (unbuilt)", "b (Dense)     ?             0 (unbuilt)"]


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("columns", [40, 60, 100])
def test_no_line_is_wider_than_asked_or_than_the_window(name, columns, monkeypatch):
    model = ZOO[name]()
    table = [line for line in lines_of(model, line_length=columns) if "params:" not in line]
    assert max(map(len, table)) == columns
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = lines_of(model, expand_nested=True, show_trainable=True)
    assert max(len(line) for line in lines if "params:" not in line) <= columns


def test_cut_cells_go_on_below_and_lose_nothing():
    model = ZOO["sequential"]()

    def text(line_length):
        rows = [line for line in lines_of(model, line_length=line_length)[3:] if "params:" not in line]
        return sorted("".join(rows).replace(" ", "").replace("-", ""))

    assert text(100) == text(36)


def test_positions_are_parts_or_characters():
    for positions in ([0.5, 0.8, 1.0], [30, 48, 60]):
        lines = lines_of(stack(), line_length=60, positions=positions)
        assert len(lines[2]) == 60 and lines[1].index("Output") == 32 and lines[1].endswith("Params")
        assert len(lines[1]) == 60


@pytest.mark.parametrize("positions", [[0.5, 1.0], [0.5, 0.5, 1.0], [0.5, 0.8, 0.9, 1.0]])
def test_positions_that_do_not_fit_are_refused(positions):
    with pytest.raises(ValueError, match="positions"):
        stack().summary(line_length=60, positions=positions)


def test_a_range_of_layers():
    names = [f"layer{i}" for i in range(5)]
    model = Sequential([Input((3,)), *(layers.Dense(3, name=name) for name in names)])

    def shown(*layer_range):
        return [line.split()[0] for line in lines_of(model, layer_range=layer_range) if line.startswith("layer")]

    assert shown("layer1", "layer3") == shown("layer3", "layer1") == names[1:4]
    assert shown("layer[3]", ".*") == names[3:]
    with pytest.raises(ValueError, match="no layer matches"):
        shown("layer1", "layer9")
    with pytest.raises(ValueError, match="names of two layers"):
        model.summary(layer_range="layer1")


def test_a_summary_changes_nothing():
    model = ZOO["stateful"]()
    model.compile("adam", "mse")
    model.train_on_batch(inputs_of(model), targets_of(model))
    state = model.get_training_state()
    lines_of(model, expand_nested=True)
    np.testing.assert_equal(model.get_training_state(), state)
