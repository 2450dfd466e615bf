"""Masking, Dropout and SpatialDropout1D."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastrnn import layers
from fastrnn.states import Context


def test_masking_masks_steps_in_which_all_features_have_the_value_and_zeroes_them() -> None:
    x = np.array([[[5.0, 5.0], [5.0, 1.0], [0.0, 0.0]]])
    layer = layers.Masking(5.0)
    assert layer(x).tolist() == [[[0, 0], [5, 1], [0, 0]]]
    assert layer.output_mask(x, None).tolist() == [[False, True, True]]


def test_masked_steps_get_no_gradient() -> None:
    x = np.array([[[5.0, 5.0], [5.0, 1.0]]])
    layer = layers.Masking(5.0)
    _, saved = layer.forward(x, None, Context(record=True))
    assert layer.backward(saved, np.full((1, 2, 2), np.nan))[0, 0].tolist() == [0, 0]
    assert layer.backward(saved, np.ones((1, 2, 2))).tolist() == [[[0, 0], [1, 1]]]


def test_masking_compares_in_the_dtype_of_the_input() -> None:
    x = np.full((1, 1, 2), 0.1, "float32")
    assert not layers.Masking(0.1).output_mask(x, None).any()


def test_masking_keeps_nan_in_steps_that_count() -> None:
    x = np.array([[[np.nan, 0.0], [0.0, 0.0]]])
    layer = layers.Masking()
    assert layer.output_mask(x, None).tolist() == [[True, False]]
    assert np.isnan(layer(x)[0, 0, 0]) and (layer(x)[0, 1] == 0).all()


def test_masking_refuses_a_sequence_of_scalars() -> None:
    with pytest.raises(ValueError, match=r"expects input of shape \(batch, time, ..., values\); received \(2, 3\)"):
        layers.Masking()(np.ones((2, 3)))


def test_dropout_drops_the_rate_and_scales_the_rest() -> None:
    y = layers.Dropout(0.3, seed=1)(np.ones((100, 1000)), training=True)
    assert set(np.unique(y)) == {0, np.float32(1 / 0.7)}
    assert abs((y == 0).mean() - 0.3) < 0.01 and abs(y.mean() - 1) < 0.01


def test_dropout_does_nothing_unless_training() -> None:
    x = np.ones((3, 4), "float32")
    assert (layers.Dropout(0.9)(x) == x).all() and (layers.Dropout(0.0)(x, training=True) == x).all()


def test_noise_shape_says_what_is_dropped_together() -> None:
    x = np.ones((20, 6, 8))
    y = layers.Dropout(0.5, noise_shape=(None, 1, None), seed=2)(x, training=True)
    z = layers.SpatialDropout1D(0.5, seed=2)(x, training=True)
    assert (y == y[:, :1]).all() and (y != y[:1]).any() and (y == z).all()
    with pytest.raises(ValueError, match=r"noise_shape \(None, 1\) does not fit input of shape \(20, 6, 8\)"):
        layers.Dropout(0.5, noise_shape=(None, 1))(x)


def test_both_dtypes_drop_the_same_values() -> None:
    x = np.ones((5, 50))
    single, double = (layers.Dropout(0.5, seed=3, dtype=d)(x, training=True) for d in ("float32", "float64"))
    assert ((single == 0) == (double == 0)).all()


@pytest.mark.parametrize("kind", [layers.Dropout, layers.SpatialDropout1D])
@pytest.mark.parametrize("rate", [1.0, -0.1, 2, float("nan"), "0.5", None])
def test_rate_outside_the_interval_is_refused(kind: Any, rate: Any) -> None:
    with pytest.raises(ValueError, match=rf"{kind.__name__}: rate must lie in \[0, 1\); received"):
        kind(rate)


def test_bad_seed_and_noise_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="seed must be a non-negative integer"):
        layers.Dropout(0.5, seed=-1)
    with pytest.raises(ValueError, match="noise_shape must be a tuple"):
        layers.Dropout(0.5, noise_shape=3)
