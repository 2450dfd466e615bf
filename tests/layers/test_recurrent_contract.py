"""The contract of layers, kept by every recurrent layer under every option."""

from __future__ import annotations

import pytest
from contract import check_layer

from fastrnn.layers import GRU, LSTM, SimpleRNN

BATCH, TIME, FEATURES, UNITS = 3, 4, 3, 2
CELLS = {
    "lstm": (LSTM, {}),
    "gru": (GRU, {}),
    "gru_reset_before": (GRU, {"reset_after": False}),
    "simple_rnn": (SimpleRNN, {}),
}
OPTIONS = {
    "many_to_one": {},
    "many_to_many": {"return_sequences": True},
    "states": {"return_state": True},
    "sequences_and_states": {"return_sequences": True, "return_state": True},
    "backwards": {"go_backwards": True, "return_sequences": True, "return_state": True},
    "backwards_many_to_one": {"go_backwards": True},
    "zero_output": {"zero_output_for_mask": True, "return_sequences": True, "return_state": True},
    "zero_output_many_to_one": {"zero_output_for_mask": True},
    "no_bias": {"use_bias": False, "return_sequences": True},
    "dropout": {"dropout": 0.4, "seed": 3, "return_sequences": True},
    "recurrent_dropout": {"recurrent_dropout": 0.4, "seed": 3, "return_sequences": True},
    "both_dropouts": {"dropout": 0.3, "recurrent_dropout": 0.4, "seed": 3, "return_state": True},
    "linear": {"activation": None, "return_sequences": True},
    "softsign": {"activation": "softsign", "return_state": True},
    "stateful": {"stateful": True, "return_sequences": True},
}


def _check(cell, options, shapes, **arguments):
    cls, own = CELLS[cell]
    chosen = {**own, **OPTIONS[options]}
    training = "dropout" in options
    check_layer(
        lambda **base: cls(UNITS, **chosen, **base), shapes, training=training, padding="everything", **arguments
    )


@pytest.mark.parametrize("masked", [False, True], ids=["no_mask", "masked"])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_every_option_keeps_the_contract(cell, options, masked):
    _check(cell, options, (BATCH, TIME, FEATURES), masked=masked)


@pytest.mark.parametrize("masked", [False, True], ids=["no_mask", "masked"])
@pytest.mark.parametrize("options", ["many_to_one", "sequences_and_states", "backwards", "both_dropouts", "stateful"])
@pytest.mark.parametrize("cell", CELLS)
def test_initial_states_keep_the_contract(cell, options, masked):
    states = [(BATCH, UNITS)] * (2 if cell == "lstm" else 1)
    _check(cell, options, [(BATCH, TIME, FEATURES), *states], masked=masked)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 2), (2, 1, 3), (5, 2, 1)], ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_sizes_of_one_keep_the_contract(cell, shape):
    _check(cell, "sequences_and_states", shape)


@pytest.mark.parametrize("gates", ["sigmoid", "tanh", "softsign", "linear"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "gru_reset_before"])
def test_activations_of_gates_keep_the_contract(cell, gates):
    cls, own = CELLS[cell]
    check_layer(
        lambda **base: cls(UNITS, recurrent_activation=gates, return_state=True, **own, **base),
        (BATCH, TIME, FEATURES),
        masked=True,
        padding="everything",
    )
