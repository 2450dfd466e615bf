"""Weights: a `Parameter` is a named window on a `Block`, a flat vector of values beside a flat vector of gradients.

A parameter starts in a block of its own. The first model that is built *adopts* the parameters of its layers: it
copies them, in order, into one block per dtype and re-points them, so that an optimizer, a norm over all gradients, or
a checkpoint is code over one array. A second model over the same layers leaves them where they are and works on
`segments` of that block.

Public arrays are read-only. Whoever writes goes through `Parameter.assign` or `Block.writing`, which give the block a
new version; packed copies of the weights that the kernels keep are checked against it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ._core.kernels import next_version

FLOAT_DTYPES = ("float32", "float64")


class Block:
    """Flat `values` and `gradients` of equal length and dtype, and the `version` of the values."""

    __slots__ = ("__weakref__", "gradients", "values", "version")

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.gradients = np.zeros_like(values)
        self.version = next_version()

    def changed(self) -> None:
        """Whoever wrote into `values` calls this afterwards: packed copies of the old values are no longer used."""
        self.version = next_version()

    def __getstate__(self) -> np.ndarray:
        return self.values

    def __setstate__(self, values: np.ndarray) -> None:
        Block.__init__(self, values)


class Parameter:
    """One weight array: its name, shape and initial values, what regularizes and constrains it, and where it lies.

    Attributes:
        name: the weight's own name ("kernel", "recurrent_kernel", "bias").
        path: the same with the names of the layers around it ("lstm/kernel"); unique in a model, stable in files.
        trainable: whether optimizers change it. Freezing a layer overrides it (`Layer.trainable`).
        version: changes whenever the values do.
    """

    def __init__(
        self,
        name: str,
        values: Any,
        dtype: str = "float32",
        *,
        path: str | None = None,
        trainable: bool = True,
        regularizer: Any = None,
        constraint: Any = None,
    ) -> None:
        array = np.array(values, dtype=dtype)
        self.name, self.path = name, path or name
        self.shape, self.size, self.dtype = array.shape, array.size, str(array.dtype)
        self.trainable, self.regularizer, self.constraint = trainable, regularizer, constraint
        self._move(Block(array.reshape(-1)), 0)

    def _move(self, block: Block, offset: int) -> None:
        self.block, self.offset = block, offset

    @property
    def version(self) -> int:
        return self.block.version

    @property
    def values(self) -> np.ndarray:
        """A read-only view of the current values."""
        view = self.block.values[self.offset : self.offset + self.size].reshape(self.shape)
        view.flags.writeable = False
        return view

    @property
    def gradient(self) -> np.ndarray:
        """A writable view of the gradient: backward passes add into it."""
        return self.block.gradients[self.offset : self.offset + self.size].reshape(self.shape)

    @gradient.setter
    def gradient(self, values: Any) -> None:
        """Makes `weight.gradient += values` possible, which adds in place and then sets the view to itself."""
        self.gradient[...] = values

    def numpy(self) -> np.ndarray:
        """A copy of the values."""
        return self.values.copy()

    def assign(self, values: Any) -> None:
        """Writes new values.

        Raises:
            ValueError: if the shape differs, naming the weight.
        """
        array = np.asarray(values)
        if array.shape != self.shape:
            raise ValueError(f"weight {self.path!r} has shape {self.shape}; received values of shape {array.shape}")
        self.block.values[self.offset : self.offset + self.size] = array.reshape(-1)
        self.block.changed()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.values, dtype=dtype) if copy or dtype not in (None, self.dtype) else self.values

    def __repr__(self) -> str:
        return f"<Parameter {self.path} shape={self.shape} dtype={self.dtype}>"


def adopt(parameters: Iterable[Parameter]) -> None:
    """Gathers parameters that still lie in blocks of their own into one block per dtype, in the order given."""
    alone = [p for p in unique(parameters) if p.block.values.size == p.size]
    for dtype in FLOAT_DTYPES:
        group = [p for p in alone if p.dtype == dtype]
        if len(group) < 2:
            continue
        block = Block(np.concatenate([p.block.values for p in group]))
        block.gradients[:] = np.concatenate([p.block.gradients for p in group])
        offset = 0
        for p in group:
            p._move(block, offset)
            offset += p.size


def unique(parameters: Iterable[Parameter]) -> list[Parameter]:
    """The parameters in order, each once (shared layers name theirs again)."""
    return list({id(p): p for p in parameters}.values())


class Segment:
    """A run of neighbouring parameters in one block: flat `values` and `gradients` that may be written."""

    __slots__ = ("block", "start", "stop")

    def __init__(self, block: Block, start: int, stop: int) -> None:
        self.block, self.start, self.stop = block, start, stop

    @property
    def values(self) -> np.ndarray:
        return self.block.values[self.start : self.stop]

    @property
    def gradients(self) -> np.ndarray:
        return self.block.gradients[self.start : self.stop]

    @property
    def size(self) -> int:
        return self.stop - self.start


def segments(parameters: Sequence[Parameter]) -> list[Segment]:
    """The memory of `parameters`, in their order, neighbours merged: usually one segment for a whole model."""
    found: list[Segment] = []
    for p in unique(parameters):
        last = found[-1] if found else None
        if last is not None and last.block is p.block and last.stop == p.offset:
            last.stop += p.size
        else:
            found.append(Segment(p.block, p.offset, p.offset + p.size))
    return found
