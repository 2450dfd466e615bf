"""What is measured, as a table. A case is one cell at one size, forward or in training (forward, backward, gradients).

Sizes are (batch, time, features, units). Both sides start from the same weights and inputs (`Case.data`), and what they
compute is compared before anything is timed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHAPES = {
    "tiny": (32, 50, 8, 32),
    "small": (32, 100, 64, 128),
    "ptb": (20, 35, 200, 200),
    "medium": (64, 50, 256, 256),
    "large": (64, 50, 512, 512),
    "xl": (64, 35, 1024, 1024),
    "seq128": (1, 100, 64, 128),
    "seq512": (1, 100, 512, 512),
}
GATES = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}


@dataclass(frozen=True)
class Case:
    cell: str
    shape: str
    kind: str  # "forward" or "training"

    @property
    def name(self) -> str:
        return f"{self.cell}/{self.shape}/{self.kind}"

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        return SHAPES[self.shape]

    @property
    def flops(self) -> float:
        """Multiply-adds of the products, counted twice; training does the forward's three times."""
        batch, time, features, units = self.sizes
        return (
            2.0 * batch * time * GATES[self.cell] * units * (features + units) * (3 if self.kind == "training" else 1)
        )

    def data(self) -> dict[str, np.ndarray]:
        """Inputs, output gradient and weights in Keras' layout, float32, the same in every process."""
        batch, time, features, units = self.sizes
        rng = np.random.default_rng(0)
        width = GATES[self.cell] * units

        def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
            return (rng.standard_normal(shape) * scale).astype(np.float32)

        bias = (2, width) if self.cell == "GRU" else (width,)
        return {
            "x": normal(batch, time, features),
            "dy": normal(batch, time, units),
            "kernel": normal(features, width, scale=features**-0.5),
            "recurrent_kernel": normal(units, width, scale=units**-0.5),
            "bias": normal(*bias, scale=0.1),
        }


CASES = [Case(cell, shape, kind) for kind in ("forward", "training") for cell in GATES for shape in SHAPES]
