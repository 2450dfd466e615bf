"""Masks, the default float type, and what Keras scripts import from utils."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fastrnn import config, initializers, losses, masks, utils

MASK = np.array([[True, False, True], [False, False, False]])


@pytest.fixture
def restore_config() -> Iterator[None]:
    before = config.floatx(), config.epsilon()
    yield
    config.set_floatx(before[0])
    config.set_epsilon(before[1])


def test_mask_is_checked_and_made_bool() -> None:
    checked = masks.check([[1, 0, 2], [0, 0, 0]], (2, 3, 5))
    assert checked is not None and checked.dtype == bool and checked.flags.c_contiguous
    np.testing.assert_array_equal(checked, MASK)
    assert masks.check(None, (2, 3)) is None
    for shape in ((2, 3, 1), (3, 2), (2,)):
        with pytest.raises(ValueError, match=r"LSTM: mask must have shape \(batch, time\) = \(2, 3\)"):
            masks.check(np.ones(shape), (2, 3, 5), "LSTM: mask")


def test_masks_combine_by_and() -> None:
    other = np.array([[True, True, False], [True, False, False]])
    combined = masks.combine(MASK, None, other)
    np.testing.assert_array_equal(combined, MASK & other)
    assert masks.combine(None, None) is None and masks.combine(None, MASK) is MASK
    np.testing.assert_array_equal(masks.combine(MASK, other, ~MASK), np.zeros((2, 3), bool))
    with pytest.raises(ValueError, match=r"different shapes meet: \(2, 1\), \(2, 3\)"):
        masks.combine(MASK, MASK[:, :1])


def test_questions_about_masks() -> None:
    assert masks.hides(MASK) and not masks.hides(None) and not masks.hides(MASK | True)
    np.testing.assert_array_equal(masks.all_padding(MASK), [False, True])
    np.testing.assert_array_equal(masks.lengths(MASK), [2, 0])


def test_zeroing_what_is_masked_is_selection() -> None:
    x = np.full((2, 3, 4), np.nan, np.float32)
    x[MASK] = 2
    zeroed = masks.zero_masked(x, MASK)
    assert zeroed.dtype == np.float32 and not zeroed[~MASK].any() and (zeroed[MASK] == 2).all()
    assert masks.zero_masked(x, None) is x


def test_alignment_counts_leading_axes() -> None:
    np.testing.assert_array_equal(masks.align([1, 2], (2, 3), "w"), [[1, 1, 1], [2, 2, 2]])
    np.testing.assert_array_equal(masks.align([[1], [2]], (2, 3), "w"), [[1, 1, 1], [2, 2, 2]])
    np.testing.assert_array_equal(masks.align([[1], [2]], (2,), "w"), [1, 2])
    np.testing.assert_array_equal(masks.align(5, (2,), "w"), [5, 5])
    for bad in (np.ones(3), np.ones(1), np.ones((2, 2)), np.ones((2, 3, 2))):
        with pytest.raises(ValueError, match=r"w must have shape \(2, 3\) or its first axes"):
            masks.align(bad, (2, 3), "w")


def test_weights_are_zero_under_a_mask_whatever_they_were() -> None:
    assert masks.as_weights(None) is None and masks.as_weights(MASK) is MASK
    np.testing.assert_array_equal(masks.as_weights(None, [1, 2]), [1, 2])
    weights = np.where(MASK, 3.0, np.nan)
    np.testing.assert_array_equal(masks.as_weights(MASK, weights), [[3, 0, 3], [0, 0, 0]])
    np.testing.assert_array_equal(masks.as_weights(MASK, [3, 4]), [[3, 0, 3], [0, 0, 0]])


def test_floatx_is_the_default_and_nothing_else_is_a_float(restore_config: None) -> None:
    assert config.floatx() == "float32" and config.float_dtype(np.float64) == "float64"
    config.set_floatx("float64")
    assert initializers.Zeros()((2,)).dtype == np.float64 and config.float_array([1, 2]).dtype == np.float64
    assert config.float_array(np.zeros(2, np.float32)).dtype == np.float32
    for bad in ("float16", "int32", "bfloat16", int, object()):
        with pytest.raises(ValueError, match="floatx must be one of float32, float64"):
            config.set_floatx(bad)
    assert config.floatx() == "float64"


def test_epsilon_clips_probabilities(restore_config: None) -> None:
    config.set_epsilon(1e-3)
    assert losses.BinaryCrossentropy()([[1]], np.zeros((1, 1))) == pytest.approx(-np.log(1e-3))
    for bad in (0, 1, -1e-7, float("nan")):
        with pytest.raises(ValueError, match="epsilon must lie between 0 and 1"):
            config.set_epsilon(bad)


SEQUENCES = [[1, 2, 3], [], [4, 5], [6, 7, 8, 9]]
OPTIONS = [
    {},
    {"maxlen": 2},
    {"maxlen": 5, "padding": "post", "value": -1},
    {"maxlen": 2, "truncating": "post", "dtype": "float32"},
    {"maxlen": 3, "truncating": "post", "padding": "post", "value": 7.5, "dtype": "float64"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_padding_equals_that_of_keras(options: dict[str, Any], keras: Any) -> None:
    for sequences in (SEQUENCES, [np.ones((n, 2)) * n for n in (3, 1, 4)], [s for s in SEQUENCES if s]):
        ours, theirs = utils.pad_sequences(sequences, **options), keras.utils.pad_sequences(sequences, **options)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_padding_fills_and_cuts_in_front() -> None:
    np.testing.assert_array_equal(utils.pad_sequences([[1], [2, 3, 4]], 2), [[0, 1], [3, 4]])
    np.testing.assert_array_equal(
        utils.pad_sequences([[1], [2, 3, 4]], 2, padding="post", truncating="post"), [[1, 0], [2, 3]]
    )
    assert utils.pad_sequences([[1, 2]], maxlen=0).shape == (1, 0) and utils.pad_sequences([]).shape == (0, 0)
    np.testing.assert_array_equal(
        utils.pad_sequences([["a"], ["b", "c"]], dtype=object, value="-"), [["-", "a"], ["b", "c"]]
    )


def test_bad_sequences_are_named() -> None:
    with pytest.raises(ValueError, match="padding must be pre or post; received 'left'"):
        utils.pad_sequences(SEQUENCES, padding="left")
    with pytest.raises(ValueError, match="truncating must be"):
        utils.pad_sequences(SEQUENCES, truncating="")
    with pytest.raises(ValueError, match="expects a list of sequences"):
        utils.pad_sequences([1, 2])
    with pytest.raises(ValueError, match=r"sequence 1 has steps of shape \(3,\), the first of \(2,\)"):
        utils.pad_sequences([np.ones((2, 2)), np.ones((2, 3))])
    with pytest.raises(ValueError, match="strings need dtype=object"):
        utils.pad_sequences([["a"]], value="x")
    with pytest.raises(ValueError, match="maxlen must be >= 0"):
        utils.pad_sequences(SEQUENCES, maxlen=-1)


def test_one_hot_rows() -> None:
    np.testing.assert_array_equal(utils.to_categorical([0, 2]), [[1, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(utils.to_categorical([[1], [0]], 2), [[0, 1], [1, 0]])
    assert utils.to_categorical(np.zeros((2, 3), int), 4).shape == (2, 3, 4)
    for bad in ([0, 3], [-1, 0]):
        with pytest.raises(ValueError, match=r"numbers must lie in \[0, 3\)"):
            utils.to_categorical(bad, 3)
    with pytest.raises(ValueError, match="whole numbers"):
        utils.to_categorical([0.5])


def test_one_hot_and_normalize_equal_those_of_keras(keras: Any) -> None:
    x = np.random.default_rng(0).integers(0, 5, (3, 4))
    np.testing.assert_array_equal(utils.to_categorical(x, 6), keras.utils.to_categorical(x, 6))
    w = np.random.default_rng(0).normal(size=(3, 4))
    w[1] = 0
    for axis, order in ((-1, 2), (1, 1), (-1, np.inf)):
        np.testing.assert_allclose(utils.normalize(w, axis, order), keras.utils.normalize(w, axis, order))


def test_random_seed_fixes_every_stream() -> None:
    def draw() -> tuple[Any, ...]:
        return random.random(), np.random.rand(), initializers.GlorotUniform()((2, 2)).tolist()

    utils.set_random_seed(11)
    first = draw()
    assert draw() != first
    utils.set_random_seed(11)
    assert draw() == first
