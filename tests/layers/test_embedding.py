"""Embedding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastrnn import layers
from fastrnn.states import Context

TABLE = np.arange(12.0).reshape(4, 3)


def built(**options: Any) -> layers.Embedding:
    layer = layers.Embedding(4, 3, weights=[TABLE], name="words", **options)
    layer.build((None, None))
    return layer


def test_ids_pick_rows() -> None:
    assert built()([[1, 3], [0, 1]]).tolist() == TABLE[[[1, 3], [0, 1]]].tolist()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint64", "float32", "float64", "bool"])
def test_ids_may_have_any_type_if_they_are_whole(dtype: str) -> None:
    assert built()(np.array([[0, 1, 1]], dtype)).tolist() == TABLE[[[0, 1, 1]]].tolist()


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[0, 4]], r"Embedding 'words' expects ids in \[0, input_dim = 4\); received 4"),
        ([[2, -1]], r"Embedding 'words' expects ids in .*; received -1"),
        ([[0.5, 1]], "Embedding 'words' expects whole numbers as ids; received 0.5"),
        ([[np.nan, 1]], "received nan"),
    ],
)
def test_wrong_ids_are_named(ids: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        built()(np.array(ids))


def test_gradients_of_repeated_ids_add_up() -> None:
    layer = built()
    _, saved = layer.forward(np.array([[1, 1], [1, 3]]), None, Context(record=True))
    assert layer.backward(saved, np.ones((2, 2, 3), "float32")) is None
    assert layer.embeddings.gradient[:, 0].tolist() == [0, 3, 0, 1]


def test_frozen_table_gathers_no_gradient() -> None:
    layer = built(trainable=False)
    _, saved = layer.forward(np.array([[1]]), None, Context(record=True))
    layer.backward(saved, np.ones((1, 1, 3), "float32"))
    assert not layer.embeddings.gradient.any()


def test_mask_zero_marks_padding() -> None:
    ids = np.array([[1, 0], [0, 3]])
    assert built(mask_zero=True).output_mask(ids, None).tolist() == [[True, False], [False, True]]
    assert built().output_mask(ids, None) is None


@pytest.mark.parametrize("sizes", [(0, 3), (4, 0), (4.0, 3), (True, 3)])
def test_sizes_must_be_positive_integers(sizes: Any) -> None:
    with pytest.raises(ValueError, match="must be a positive integer"):
        layers.Embedding(*sizes)


def test_initial_weights_must_fit() -> None:
    with pytest.raises(ValueError, match="'words/embeddings' has shape"):
        layers.Embedding(4, 3, weights=[TABLE[:3]], name="words")([[1]])


def test_input_length_warns() -> None:
    with pytest.warns(UserWarning, match="input_length has no effect"):
        layers.Embedding(4, 3, input_length=10)


def test_default_values_are_uniform_and_small() -> None:
    values = layers.Embedding(1000, 20)
    values.build((None, 2))
    assert 0.049 < np.abs(values.embeddings.values).max() <= 0.05
