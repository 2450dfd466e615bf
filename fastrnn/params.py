"""Weights: a `Parameter` is a named window on a `Block`, a flat vector of values beside a flat vector of gradients.

A parameter starts in a block of its own. The first model that is built *adopts* the parameters of its layers: it
copies them, in order, into one block per dtype and re-points them, so that an optimizer, a norm over all gradients, or
a checkpoint is code over one array. A second model over the same layers leaves them where they are and works on
`segments` of that block.

Public arrays are read-only. Whoever writes goes through `Parameter.assign` or `Block.writing`, which give the block a
new version; packed copies of the weights that the kernels keep are checked against it.

**Gradients of tables.** A batch touches few rows of an embedding. A parameter that is asked to (`track_rows`) notes the
rows that `add_rows` touches, and clearing and checking its gradient visits these alone. That is exact as long as nobody
else writes into the gradient: once somebody has asked for the array (`Parameter.gradient`), all of it is visited.

**Blank gradients.** To write zeros that a kernel is about to overwrite is work for nothing. So `clear_gradient` only
notes that the gradient is blank, unless somebody has asked for the array; the first kernel that is lent it
(`lend_gradient`) may then overwrite instead of adding, and `settle_gradient` writes the zeros where none came.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from . import threads
from ._core import kernels
from ._core.kernels import next_version

FLOAT_DTYPES = ("float32", "float64")

_trainable_version = next_version()


def trainable_version() -> int:
    """A number that changes whenever a weight or a layer is frozen or thawed."""
    return _trainable_version


def trainable_changed() -> None:
    """Called by whatever has a `trainable` that was set."""
    global _trainable_version
    _trainable_version = next_version()


_layout_version = next_version()


def layout_version() -> int:
    """A number that changes whenever a weight or its gradient moves in memory, or what is known of its rows does."""
    return _layout_version


def _layout_changed() -> None:
    global _layout_version
    _layout_version = next_version()


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
        lazy: whether an update leaves alone the rows of a matrix whose gradient is zero: their values and what the
            optimizer keeps of them. Otherwise momentum moves them too.
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
        self.lazy = False
        self._rows: Any = None
        self._shown = self._blank = False
        self._move(Block(array.reshape(-1)), 0)

    def _move(self, block: Block, offset: int) -> None:
        """Makes this part of `block` the weight's memory, and the views that `values` and `gradient` give."""
        self.block, self.offset, stop = block, offset, offset + self.size
        self._values = block.values[offset:stop].reshape(self.shape)
        self._values.flags.writeable = False
        self._gradient = block.gradients[offset:stop].reshape(self.shape)
        _layout_changed()

    def __getstate__(self) -> dict[str, Any]:
        """A copy has gradients of zero, so that what is known of their rows starts anew."""
        kept = {name: value for name, value in vars(self).items() if name not in ("_values", "_gradient")}
        return {**kept, "_rows": self._rows is not None, "_shown": False, "_blank": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._rows = kernels.Rows(self.shape[0]) if state["_rows"] else None
        self._move(self.block, self.offset)

    @property
    def trainable(self) -> bool:
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = bool(value)
        trainable_changed()

    @property
    def version(self) -> int:
        return self.block.version

    @property
    def values(self) -> np.ndarray:
        """A read-only view of the current values."""
        return self._values

    @property
    def gradient(self) -> np.ndarray:
        """A writable view of the gradient: backward passes add into it."""
        self._shown = True
        return self.lend_gradient()

    @gradient.setter
    def gradient(self, values: Any) -> None:
        """Makes `weight.gradient += values` possible, which adds in place and then sets the view to itself."""
        if values is not self._gradient:
            self.gradient[...] = values

    @property
    def blank(self) -> bool:
        """Whether the gradient is zero whatever its memory holds."""
        return self._blank

    def lend_gradient(self, overwritten: bool = False) -> np.ndarray:
        """The gradient for one call of a kernel that adds to it or, if it is `blank`, may overwrite all of it."""
        self.untrack_rows()
        if not overwritten:
            self.settle_gradient()
        self._blank = False
        return self._gradient

    def settle_gradient(self) -> None:
        """Writes the zeros of a blank gradient: before anybody reads the block's memory."""
        if self._blank:
            kernels.clear(self._gradient)
            self._blank = False

    def clear_gradient(self) -> None:
        """Makes the gradient zero."""
        if self._rows is not None:
            self._rows.clear(self._gradient)
        elif self._shown:
            kernels.clear(self._gradient)
        else:
            self._blank = True

    def track_rows(self) -> None:
        """From now on `add_rows` notes which rows of this matrix have a gradient. All of it must be zero by now."""
        self._rows = kernels.Rows(self.shape[0])
        _layout_changed()

    def untrack_rows(self) -> None:
        """Called before anything but `add_rows` writes into the gradient: any row may have one from now on."""
        if self._rows is not None:
            self._rows = None
            _layout_changed()

    def written(self) -> None:
        """Called where kernels have written the gradient, or will, without its being lent to them again."""
        self._blank = False

    def copy_gradient(self) -> np.ndarray:
        self.settle_gradient()
        return self._gradient.copy()

    @property
    def rows(self) -> Any:
        """The rows (`kernels.Rows`) outside of which the gradient is zero; None where that is not known."""
        return self._rows

    def add_rows(self, ids: np.ndarray, dy: np.ndarray) -> None:
        """gradient[ids[i]] += dy[i], in the order of i: ids (...) and dy (..., E) for a matrix (rows, E)."""
        self.settle_gradient()
        if self._rows is not None:
            self._rows.add(ids)
        kernels.scatter_add_rows(self._gradient, ids, dy, threads=threads.get_num_threads())

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

    __slots__ = ("block", "parameters", "start", "stop")

    def __init__(self, first: Parameter) -> None:
        self.block, self.start, self.stop, self.parameters = first.block, first.offset, first.offset, [first]
        self.stop += first.size

    def take(self, p: Parameter) -> bool:
        """Takes `p` in if it lies where this segment ends; says whether it does."""
        if p.block is not self.block or p.offset != self.stop:
            return False
        self.stop += p.size
        self.parameters.append(p)
        return True

    @property
    def values(self) -> np.ndarray:
        return self.block.values[self.start : self.stop]

    @property
    def gradients(self) -> np.ndarray:
        return self.block.gradients[self.start : self.stop]

    @property
    def size(self) -> int:
        return self.stop - self.start

    def clear_gradients(self) -> None:
        """Makes the gradients zero."""
        for p in self.parameters:
            p.clear_gradient()

    def settle_gradients(self) -> None:
        """See `Parameter.settle_gradient`."""
        for p in self.parameters:
            p.settle_gradient()

    def gradients_are_finite(self) -> bool:
        """Whether there is neither NaN nor an infinity in the gradients."""
        for start, stop, p in self._pieces():
            piece = self.block.gradients[start:stop]
            if p is None:
                finite = kernels.all_finite(piece, threads=threads.get_num_threads())
            else:
                finite = p.rows.all_finite(piece.reshape(p.shape))
            if not finite:
                return False
        return True

    def _pieces(self) -> Iterator[tuple[int, int, Parameter | None]]:
        """Start and stop in the block: of each parameter that knows its rows, with it; of what lies between."""
        start = self.start
        for p in self.parameters:
            if p._rows is not None:
                if start < p.offset:
                    yield start, p.offset, None
                start = p.offset + p.size
                yield p.offset, start, p
        if start < self.stop:
            yield start, self.stop, None


def segments(parameters: Sequence[Parameter]) -> list[Segment]:
    """The memory of `parameters`, in their order, neighbours merged: usually one segment for a whole model."""
    found: list[Segment] = []
    for p in unique(parameters):
        if not (found and found[-1].take(p)):
            found.append(Segment(p))
    return found
