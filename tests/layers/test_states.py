"""The store of states and random streams."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from fastrnn import layers, rng
from fastrnn.states import Context, StateStore

STATES = (np.arange(3.0), np.ones(2))


def test_store_keeps_states_by_layer() -> None:
    store, a, b = StateStore(), layers.Dense(1), layers.Dense(1)
    assert store.states(a) is None
    store.set_states(a, STATES)
    assert store.states(a) is STATES and store.states(b) is None
    store.reset(a)
    assert store.states(a) is None
    store.set_states(a, STATES)
    store.set_states(b, STATES)
    store.reset()
    assert store.states(a) is None and store.states(b) is None


def test_random_stream_depends_on_seed_and_call_alone() -> None:
    layer, other = layers.Dropout(0.5, seed=4), layers.Dropout(0.5, seed=5)
    for one in (layer, other):
        one.build((2, 3))
    store, again = StateStore(), StateStore()
    draws = [store.random(layer).random() for _ in range(3)]
    assert len(set(draws)) == 3
    again.random(other)
    assert [again.random(layer).random() for _ in range(3)] == draws
    store.reset()
    assert store.random(layer).random() not in draws


def test_saved_state_continues_streams_and_states_in_other_layers_of_the_same_paths() -> None:
    def stack() -> tuple[layers.Dropout, layers.TimeDistributed]:
        rng.set_random_seed(len(made))
        pair = layers.Dropout(0.5, name="a"), layers.TimeDistributed(layers.Dropout(0.5, name="b"), name="c")
        for layer in pair:
            layer.build((2, 3, 4))
        made.append(pair)
        return pair

    made: list = []
    (a, c), (x, z) = stack(), stack()
    store, resumed = StateStore(), StateStore()
    store.random(a)
    store.random(c.layer)
    store.set_states(c.layer, STATES)
    saved = pickle.loads(pickle.dumps(store.get_state([a, c, c.layer])))
    assert saved.keys() == {"a", "c/b"}
    resumed.random(z)
    resumed.set_state(saved, [x, z, z.layer])
    assert resumed.random(x).random() == store.random(a).random()
    assert resumed.random(z.layer).random() == store.random(c.layer).random()
    assert all((p == q).all() for p, q in zip(resumed.states(z.layer), STATES, strict=True))


def test_saved_state_of_other_layers_changes_nothing() -> None:
    store, layer = StateStore(), layers.Dense(1, name="a")
    store.set_states(layer, STATES)
    with pytest.raises(KeyError):
        store.set_state({"b": {"calls": 1, "seed": 1, "states": None}}, [layer])
    assert store.states(layer) is STATES


def test_states_that_were_reset_are_not_saved() -> None:
    store, layer = StateStore(), layers.Dense(1, name="a")
    store.set_states(layer, STATES)
    layer.reset_state()
    assert store.get_state([layer])["a"]["states"] is None


def test_copies_of_store_and_layer_keep_states_apart() -> None:
    layer = layers.Dropout(0.5, seed=1)
    layer.build((2, 3))
    layer._store.set_states(layer, STATES)
    layer._store.random(layer)
    for twin in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert (twin._store.states(twin)[0] == STATES[0]).all()
        assert twin._store.random(twin).random() == rng.generator(1, 2).random()
        twin.reset_state()
        assert twin._store.states(twin) is None and layer._store.states(layer) is STATES


def test_context_hands_out_the_streams_of_its_store() -> None:
    layer, store = layers.Dropout(0.5, seed=1), StateStore()
    layer.build((2, 3))
    first = Context(store=store).random(layer).random()
    assert Context(store=store).random(layer).random() != first == Context().random(layer).random()
