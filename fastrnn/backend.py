"""The part of `keras.backend` that scripts use: float types, and names that start anew."""

from __future__ import annotations

from .config import epsilon, floatx, set_epsilon, set_floatx
from .layers.layer import clear_session

__all__ = ["clear_session", "epsilon", "floatx", "set_epsilon", "set_floatx"]
