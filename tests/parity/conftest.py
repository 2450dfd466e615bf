from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def torch(require):
    return require("torch")


@pytest.fixture(scope="session")
def keras(require, torch):
    """Keras on torch, kept from rounding: there, its `ops.matmul` and others return float32 for float64 otherwise."""
    keras = require("keras")
    if keras.backend.backend() != "torch":
        pytest.fail("the parity tests need KERAS_BACKEND=torch")
    from keras.src.backend.common import dtypes

    rounding = dict(dtypes.BIT64_TO_BIT32_DTYPE)
    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"
    yield keras
    dtypes.BIT64_TO_BIT32_DTYPE.update(rounding)
