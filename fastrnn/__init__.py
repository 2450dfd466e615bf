"""Recurrent networks for CPUs: Keras' interface over C kernels.

    import fastrnn as keras
    from fastrnn import layers

    model = keras.Sequential([keras.Input((None, 8)), layers.LSTM(32), layers.Dense(1)])
    model.compile("adam", "mse")
    model.fit(x, y, epochs=10)

Namespaces are those of Keras: `layers`, `models`, `losses`, `metrics`, `optimizers`, `callbacks`, `initializers`,
`regularizers`, `constraints`, `activations`, `utils`, `config`, `backend`, `saving`. They are loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from . import (
        activations,
        backend,
        callbacks,
        config,
        constraints,
        initializers,
        layers,
        losses,
        metrics,
        models,
        optimizers,
        regularizers,
        saving,
        utils,
    )
    from .build_info import show_config
    from .layers import Input, Layer
    from .losses import Loss
    from .metrics import Metric
    from .models import Model, Sequential
    from .optimizers import Optimizer
    from .threads import get_num_threads, set_num_threads

_namespaces = (
    "activations",
    "backend",
    "callbacks",
    "config",
    "constraints",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "regularizers",
    "saving",
    "utils",
)
_names = {
    "Input": "layers",
    "Layer": "layers",
    "Loss": "losses",
    "Metric": "metrics",
    "Model": "models",
    "Optimizer": "optimizers",
    "Sequential": "models",
    "get_num_threads": "threads",
    "set_num_threads": "threads",
    "show_config": "build_info",
}
__all__ = [
    "Input",
    "Layer",
    "Loss",
    "Metric",
    "Model",
    "Optimizer",
    "Sequential",
    "__version__",
    "activations",
    "backend",
    "callbacks",
    "config",
    "constraints",
    "get_num_threads",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "regularizers",
    "saving",
    "set_num_threads",
    "show_config",
    "utils",
]


def __getattr__(name: str) -> Any:
    if name in _namespaces:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _names:
        value = getattr(importlib.import_module(f"{__name__}.{_names[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
