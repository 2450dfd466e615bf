"""The base class of activations."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np

from .. import config
from ..registry import Watched, snake_case

HOW_TO_WRITE_ONE = (
    "an activation needs its derivative: subclass fastrnn.activations.Activation with forward(self, x) -> y and "
    "backward(self, y, dy, x=None) -> dx, and pass an object of it"
)


@dataclass(eq=False, repr=False)
class Activation(Watched):
    """Base class.

    Attributes:
        from_output: whether the derivative follows from `y` alone; then nobody needs to keep `x`.
    """

    kind = "activation"
    from_output: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The plain name ("tanh") where every parameter has its default, else the call that makes the object."""
        changed = any(getattr(self, f.name) != f.default for f in fields(self))
        return repr(self) if changed else snake_case(type(self).__name__)

    def __call__(self, x: Any, **parameters: Any) -> np.ndarray:
        return (replace(self, **parameters) if parameters else self).forward(config.float_array(x))

    def forward(self, x: np.ndarray) -> np.ndarray:
        raise NotImplementedError(HOW_TO_WRITE_ONE)

    def forward_over(self, x: np.ndarray) -> np.ndarray:
        """`forward(x)` for an `x` that nobody needs afterwards: it may be overwritten, and be the result."""
        return self.forward(x)

    def backward(self, y: np.ndarray, dy: np.ndarray, x: Any = None) -> np.ndarray:
        raise NotImplementedError(HOW_TO_WRITE_ONE)
