"""Models: layers joined to be trained, used and saved as one."""

from __future__ import annotations

from ..saving import load_model, save_model
from .model import Model, clone_model, model_from_json
from .sequential import Sequential
from .streaming import Stepper
from .training import NonFiniteLossError

__all__ = [
    "Model",
    "NonFiniteLossError",
    "Sequential",
    "Stepper",
    "clone_model",
    "load_model",
    "model_from_json",
    "save_model",
]
