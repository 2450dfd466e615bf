"""Vectors for integers."""

from __future__ import annotations

import warnings
from dataclasses import KW_ONLY, InitVar, dataclass
from typing import Any

import numpy as np

from .. import initializers, registry, threads
from .._core import kernels
from ..registry import register
from ..states import Context
from .layer import Array, Layer


@register("layer")
@dataclass(eq=False, repr=False)
class Embedding(Layer):
    """y[..., :] = embeddings[x[...], :].

    Shapes: x (batch, ...), whole numbers in [0, input_dim), of an integer or a float type; y (batch, ..., output_dim).

    Args:
        input_dim: number of different ids.
        output_dim: length of the vectors.
        embeddings_initializer, embeddings_regularizer, embeddings_constraint: of the (input_dim, output_dim) weight.
        mask_zero: whether id 0 is padding: the output's mask is then `x != 0`.
        weights: first values of the weight, in a list of one array.
        lazy_updates: whether an optimizer's step changes only the rows of ids that the batch holds (more exactly: whose
            gradient is not zero), values and momentum and all. The others are not even looked at, which is what makes
            large tables cheap. By default every row moves as long as its momentum is not zero, as in Keras.
        input_length: ignored, with a warning.

    Raises:
        ValueError: if a size is not a positive integer; in a call, for ids outside [0, input_dim).
    """

    input_dim: int
    output_dim: int
    embeddings_initializer: Any = "uniform"
    embeddings_regularizer: Any = None
    embeddings_constraint: Any = None
    mask_zero: bool = False
    weights: InitVar[Any] = None
    _: KW_ONLY
    lazy_updates: bool = False
    input_length: InitVar[Any] = None

    expects = "(batch, ...)"

    def __post_init__(self, weights: Any, input_length: Any) -> None:
        super().__post_init__()
        self._initial_weights = weights
        for argument in ("input_dim", "output_dim"):
            size = getattr(self, argument)
            if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
                raise ValueError(f"Embedding: {argument} must be a positive integer; received {size!r}")
        self.embeddings_initializer = initializers.get(self.embeddings_initializer)
        self.embeddings_regularizer = registry.get("regularizer", self.embeddings_regularizer)
        self.embeddings_constraint = registry.get("constraint", self.embeddings_constraint)
        if input_length is not None:
            warnings.warn("Embedding: input_length has no effect; leave it out", stacklevel=3)

    def build(self, shape: Any) -> None:
        self.embeddings = self.add_weight(
            "embeddings",
            (self.input_dim, self.output_dim),
            initializer=self.embeddings_initializer,
            regularizer=self.embeddings_regularizer,
            constraint=self.embeddings_constraint,
        )
        self.embeddings.lazy = self.lazy_updates
        self.embeddings.track_rows()
        if self._initial_weights is not None:
            self.set_weights(self._initial_weights)
            self._initial_weights = None

    def output_shape(self, shape: Any) -> Any:
        return (*shape, self.output_dim)

    def output_mask(self, x: Array, mask: Any) -> Array | None:
        return x != 0 if self.mask_zero else None

    def cast(self, x: Any) -> Array:
        """Ids as int64. Raises ValueError for numbers that are not whole."""
        ids = self.as_array(x)
        if ids.dtype.kind == "f":
            whole = ids == np.trunc(ids)
            if not whole.all():
                raise ValueError(f"{self.title} expects whole numbers as ids; received {ids[~whole][0]}")
        return np.asarray(ids, np.int64, order="C")

    @property
    def replays(self) -> bool:  # type: ignore[override]
        return not self.mask_zero

    def forward(self, x: Array, mask: Any, context: Context) -> tuple[Array, Array | None]:
        try:
            y = kernels.gather_rows(self.embeddings.values, x, threads=threads.get_num_threads())
        except ValueError:
            wrong = x[(x < 0) | (x >= self.input_dim)][:1]
            message = f"{self.title} expects ids in [0, input_dim = {self.input_dim}); received"
            raise ValueError(f"{message} {wrong[0]}") from None
        return y, x if context.record else None

    def backward(self, saved: Array, dy: Array) -> None:
        """dembeddings[x[i], :] += dy[i, :]; ids have no gradient."""
        if self.trainable:
            self.embeddings.add_rows(saved, np.ascontiguousarray(dy))


del Embedding.weights  # the argument's default hides the property
