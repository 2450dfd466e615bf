"""Optimizers and learning-rate schedules, by Keras' formulas and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import registry
from . import schedules
from .adam import Adam, Adamax, AdamW, Nadam
from .adaptive import Adadelta, Adagrad, RMSprop
from .optimizer import Optimizer
from .sgd import SGD, Lion

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Lion",
    "Nadam",
    "Optimizer",
    "RMSprop",
    "deserialize",
    "get",
    "schedules",
    "serialize",
]

serialize = registry.serialize


def deserialize(config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Optimizer:
    """The optimizer that `config`, made by `serialize`, describes."""
    return get(config, custom_objects)


def get(identifier: Any, custom_objects: Mapping[str, Any] | None = None) -> Optimizer:
    """An optimizer from its name in any case, its configuration, its class, or itself.

    Raises:
        ValueError: if the name is not known, or the object is no optimizer.
    """
    if isinstance(identifier, str) and identifier not in (custom_objects or {}):
        identifier = identifier.lower()
    elif isinstance(identifier, Mapping):
        identifier = {"kind": "optimizer", **identifier}
    found = registry.get("optimizer", identifier, custom_objects)
    if not isinstance(found, Optimizer):
        raise ValueError(f"expected an Optimizer, its name or its configuration; received {identifier!r}")
    return found
