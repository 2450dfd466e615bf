"""What every test may use.

`require("torch")` imports a library that the tests compare with, or skips the test where it is not installed. With
FASTRNN_REQUIRE_PARITY=1, as in CI, a missing library fails the test instead. `torch` and `keras` are such libraries,
made ready for comparisons.
"""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import fastrnn

os.environ.setdefault("KERAS_BACKEND", "torch")
# Tests start children with `python -P`: they import this very fastrnn, installed or built in place, from anywhere.
os.environ["PYTHONPATH"] = str(Path(fastrnn.__file__).parents[1])
# What runs in the background of a shell ignores Ctrl-C, and so would its children; tests of Ctrl-C must not.
signal.signal(signal.SIGINT, signal.default_int_handler)


def require_library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        message = f"{name} is not installed: {error}"
        if os.environ.get("FASTRNN_REQUIRE_PARITY") == "1":
            pytest.fail(f"FASTRNN_REQUIRE_PARITY=1, but {message}", pytrace=False)
        pytest.skip(message)


@pytest.fixture(scope="session")
def require() -> Callable[[str], ModuleType]:
    return require_library


@pytest.fixture(scope="session")
def torch(require: Callable[[str], ModuleType]) -> ModuleType:
    return require("torch")


@pytest.fixture(scope="session")
def keras(require: Callable[[str], ModuleType], torch: ModuleType) -> Iterator[Any]:
    """Keras on torch, kept from rounding: there, its `ops.matmul` and others give float32 for float64 otherwise."""
    keras = require("keras")
    if keras.backend.backend() != "torch":
        pytest.fail("the parity tests need KERAS_BACKEND=torch")
    from keras.src.backend.common import dtypes

    rounding = dict(dtypes.BIT64_TO_BIT32_DTYPE)
    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"
    yield keras
    dtypes.BIT64_TO_BIT32_DTYPE.update(rounding)
