"""Batches: from arrays, from iterables of batches, from indexable data sets; checked before anything is computed.

A `Reader` makes arrays of what users call data. A *source* is an array set, an indexable data set or an iterable, and
gives a pass of `Batch`es as often as it can; `Epochs` cuts the passes of a source into epochs.
"""

from __future__ import annotations

import contextlib
import functools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from .. import threads
from .._core import kernels
from .ports import Ports, flatten, is_array, pack

Array = np.ndarray
Order = Callable[[], np.random.Generator]
FLOATS = (np.float32, np.float64)


class Batch:
    """Arrays of one step, one per input, per target and per weight of a target; `size` rows each."""

    steps = 1

    def __init__(
        self, x: list[Array], y: list[Array | None] | None, sample_weight: list[Array | None] | None, size: int
    ) -> None:
        self.x, self.y, self.sample_weight, self.size = x, y, sample_weight, size

    def part(self, step: int) -> Batch:
        """Itself, in place of what a `BatchRun` gives."""
        return self

    @functools.cached_property
    def form(self) -> Any:
        """What batches share that a `Filling` can copy into the same arrays; None with sample weights or if targets are
        missing."""
        if self.sample_weight is not None or self.y is None or any(a is None for a in self.y):
            return None
        return tuple((a.shape, a.dtype) for a in (*self.x, *self.y) if a is not None)


class TakenBatch(Batch):
    """Rows of `data`, taken when somebody looks at them."""

    def __init__(self, data: Batch, rows: Array) -> None:
        self.data, self.rows, self.size = data, rows, len(rows)

    @property
    def form(self) -> Any:
        return self.data.form and (self.data, self.size)

    def __getattr__(self, name: str) -> Any:
        """Inputs, targets or weights that nobody has looked at so far."""
        if name not in ("x", "y", "sample_weight"):
            raise AttributeError(name)
        arrays = getattr(self.data, name)
        taken = arrays and [None if a is None else _gather(a, self.rows) for a in arrays]
        setattr(self, name, taken)
        return taken


class BatchRun:
    """Batches of `size` rows of `data` that follow each other."""

    def __init__(self, data: Batch, rows: Array, size: int) -> None:
        self.data, self.rows, self.size = data, rows, size
        self.steps = len(rows) // size

    @property
    def form(self) -> Any:
        """Of each of them."""
        return self.data.form and (self.data, self.size)

    def part(self, step: int) -> TakenBatch:
        """One of them."""
        return TakenBatch(self.data, self.rows[step * self.size : (step + 1) * self.size])


class Filling:
    """Copies inputs and targets of one batch after another, all of one form, into the same arrays.

    Args:
        batch: the first one.
        arrays: one for each of its inputs, then one for each target.
    """

    def __init__(self, batch: Batch, arrays: Sequence[Array]) -> None:
        self.arrays = arrays
        self.taking: kernels.Taking | None = None
        if isinstance(batch, TakenBatch):
            tables = [a for a in (*batch.data.x, *(batch.data.y or ())) if a is not None]
            self.taking = kernels.Taking(tables, arrays)

    def fill(self, batch: Batch) -> None:
        """Copies this one."""
        if isinstance(batch, TakenBatch) and self.taking is not None:
            self.taking.run(batch.rows, threads=threads.get_num_threads())
            return
        for a, to in zip((*batch.x, *(batch.y or ())), self.arrays, strict=True):
            np.copyto(to, a)


def sizes(batch: Iterable[tuple[str, Sequence[Array | None] | None]]) -> int:
    """The number of rows that all arrays share.

    Raises:
        ValueError: if they differ, listing them.
    """
    counts = {(what, i): len(a) for what, arrays in batch for i, a in enumerate(arrays or ()) if a is not None}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{what}[{i}]: {n}" for (what, i), n in counts.items())
        raise ValueError(f"x, y and sample_weight must have the same number of samples; received {listed}")
    return next(iter(counts.values()))


def class_weights(y: Array, output: tuple[int | None, ...], class_weight: Mapping[int, float], dtype: str) -> Array:
    """The weight of each label in `y`: (batch,) or, for labels of every step, (batch, time).

    Args:
        y: classes (batch,), (batch, 1), (batch, time), (batch, time, 1), or one-hot with a last axis of classes.
        output: shape of the predictions.
        class_weight: weight by class; a class that is not in it has weight 1.
        dtype: of the result.
    """
    if y.ndim > 1 and y.ndim == len(output):
        y = y[..., 0] if y.shape[-1] == 1 else y.argmax(axis=-1)
    labels = np.rint(y).astype(np.int64) if y.dtype.kind == "f" else y
    found, where = np.unique(labels, return_inverse=True)
    weights = np.array([class_weight.get(int(label), 1.0) for label in found], dtype=dtype)
    return weights[where].reshape(labels.shape)


class Reader:
    """Turns what a user calls a batch, or a whole data set, into checked arrays."""

    def __init__(self, inputs: Ports, outputs: Ports, class_weight: Mapping[int, float] | None = None) -> None:
        self.inputs, self.outputs, self.class_weight = inputs, outputs, class_weight
        if class_weight is not None and len(outputs.tensors) > 1:
            raise ValueError(f"class_weight needs a model with one output; {outputs.owner} has {len(outputs.tensors)}")

    def read(self, x: Any, y: Any = None, sample_weight: Any = None) -> Batch:
        """Checked arrays.

        Raises:
            ValueError: for anything that does not fit the model (see `Ports`).
        """
        xs = self.inputs.inputs(x)
        if y is None and sample_weight is None:
            return Batch(xs, None, None, len(xs[0]) if len(xs) == 1 else sizes([("x", xs)]))
        ys = self.outputs.targets(y)
        weights = self.outputs.weights(sample_weight)
        if self.class_weight is not None:
            if weights is not None:
                raise ValueError("class_weight and sample_weight cannot be given at the same time")
            dtype, target = self.outputs.tensors[0].dtype, ys[0]
            if target is None:
                raise ValueError("class_weight needs targets; y is None")
            weights = [class_weights(target, self.outputs.tensors[0].shape, self.class_weight, dtype)]
        if len(xs) == 1 and weights is None and len(ys) == 1 and ys[0] is not None and len(ys[0]) == len(xs[0]):
            return Batch(xs, ys, None, len(xs[0]))
        return Batch(xs, ys, weights, sizes([("x", xs), ("y", ys), ("sample_weight", weights)]))

    def read_tuple(self, batch: Any, source: Any) -> Batch:
        """A batch of `source`: x, (x,), (x, y) or (x, y, sample_weight); from torch's data loaders these are lists."""
        if isinstance(batch, list) and any(c.__module__.startswith("torch.utils.data") for c in type(source).__mro__):
            batch = tuple(batch)
        if not isinstance(batch, tuple):
            return self.read(batch)
        if not 1 <= len(batch) <= 3:
            raise ValueError(
                f"a batch of x must be (x,), (x, y) or (x, y, sample_weight); received a tuple of {len(batch)}"
            )
        return self.read(*batch)


class Source(Protocol):
    """A data set: `steps` batches a pass (None if that is not known), passes for as long as it gives them.

    Attributes:
        together: most batches that may come as a `BatchRun`, looked at for each.
    """

    steps: int | None
    together: int

    def batches(self, order: Order | None) -> Iterator[Batch | BatchRun]: ...


class ArraySource:
    """Batches of whole arrays: views where the order allows, rows that are taken when they are looked at if shuffled.

    Args:
        data: all rows.
        batch_size: rows of a batch; the last one may be smaller.
        shuffle: True shuffles rows, "batch" shuffles the batches and leaves each one as it lies, False neither.
    """

    def __init__(self, data: Batch, batch_size: int, shuffle: bool | str) -> None:
        self.data, self.batch_size, self.shuffle = data, batch_size, shuffle
        self.steps: int | None = math.ceil(data.size / batch_size)
        self.together = 1

    def batches(self, order: Order | None) -> Iterator[Batch | BatchRun]:
        n, size = self.data.size, self.batch_size
        if self.shuffle and self.shuffle != "batch" and order is not None:
            rows = order().permutation(n)
            start = 0
            while start < n:
                count = min(self.together, (n - start) // size)
                taken = rows[start : start + size * max(count, 1)]
                yield BatchRun(self.data, taken, size) if count > 1 else TakenBatch(self.data, taken)
                start += len(taken)
        elif self.shuffle and order is not None:
            for step in order().permutation(math.ceil(n / size)):
                yield self._slice(slice(step * size, (step + 1) * size))
        else:
            for start in range(0, n, size):
                yield self._slice(slice(start, start + size))

    def _slice(self, rows: slice) -> Batch:
        data = self.data
        y, w = (
            [None if a is None else a[rows] for a in part] if part else part for part in (data.y, data.sample_weight)
        )
        return Batch([a[rows] for a in data.x], y, w, min(rows.stop, data.size) - rows.start)


class IndexedSource:
    """Batches of an object with `__len__` and `__getitem__`, as Keras' PyDataset; `shuffle` mixes their order."""

    def __init__(self, dataset: Any, reader: Reader, shuffle: bool | str) -> None:
        self.dataset, self.reader, self.shuffle, self.together = dataset, reader, shuffle, 1
        self.steps: int | None = len(dataset)
        if self.steps == 0:
            raise ValueError(f"x is empty: {type(dataset).__name__} has length 0")

    def batches(self, order: Order | None) -> Iterator[Batch]:
        self._call("on_epoch_begin")
        count = self.steps = len(self.dataset)
        for i in order().permutation(count) if self.shuffle and order is not None else range(count):
            yield self.reader.read_tuple(self.dataset[int(i)], self.dataset)
        self._call("on_epoch_end")

    def _call(self, hook: str) -> None:
        if hasattr(self.dataset, hook):
            getattr(self.dataset, hook)()


class IterableSource:
    """Batches of an iterable: a generator gives one pass, anything that can be iterated again gives more."""

    def __init__(self, iterable: Iterable[Any], reader: Reader) -> None:
        self.iterable, self.reader, self.together = iterable, reader, 1
        self.steps: int | None = None
        with contextlib.suppress(TypeError):
            self.steps = len(iterable)  # type: ignore[arg-type]

    def batches(self, order: Order | None) -> Iterator[Batch]:
        for batch in self.iterable:
            yield self.reader.read_tuple(batch, self.iterable)


def source(
    reader: Reader, x: Any, y: Any, sample_weight: Any, batch_size: int | None, steps: int | None, shuffle: bool | str
) -> Source:
    """The source for what a user passed as `x`, `y` and `sample_weight`.

    Raises:
        ValueError: if an argument does not belong to this kind of data, or anything is empty or does not fit.
    """
    for name, value in (("batch_size", batch_size), ("steps", steps)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1):
            raise ValueError(f"{name} must be a positive integer; received {value!r}")
    arrays = isinstance(x, (np.ndarray, list, tuple, Mapping)) or hasattr(x, "__array__") or x is None
    if arrays:
        data = reader.read(x, y, sample_weight)
        return ArraySource(data, batch_size or (math.ceil(data.size / steps) if steps else 32), shuffle)
    if not hasattr(x, "__iter__") and not hasattr(x, "__getitem__"):
        raise ValueError(
            f"x must be an array, a list or dict of arrays, or an iterable of batches; received a {type(x).__name__}"
        )
    for name, value in (("y", y), ("sample_weight", sample_weight)):
        if value is not None:
            raise ValueError(
                f"{name} must be None when x is a {type(x).__name__}: its batches hold it, as (x, y, sample_weight)"
            )
    if hasattr(x, "__getitem__") and hasattr(x, "__len__"):
        return IndexedSource(x, reader, shuffle)
    return IterableSource(x, reader)


class Epochs:
    """The batches of one epoch after another.

    Args:
        source: the data.
        steps: batches of an epoch; None makes a pass over the data an epoch. With a number, the next epoch goes on
            where the last one stopped.
        order: gives the random generator of the next pass; None leaves the order as it is.

    Attributes:
        together: most batches that may come next as a `BatchRun`.
    """

    def __init__(self, source: Source, steps: int | None, order: Order | None = None) -> None:
        self.source, self.limit, self.order = source, steps, order
        self.exhausted, self.together = False, 1
        self._running: Iterator[Batch | BatchRun] | None = None

    @property
    def steps(self) -> int | None:
        """Batches of an epoch, where known."""
        return self.limit or self.source.steps

    def __iter__(self) -> Iterator[Any]:
        """Batches, and a `BatchRun` where `together` was set."""
        seen = 0
        if self.limit is None or self._running is None:
            self._running, self._left = self.source.batches(self.order), self.source.steps
        self.together = self.source.together = 1
        for batch in self._running:
            yield batch
            seen += batch.steps
            if self._left is not None:
                self._left -= batch.steps
            if seen == self.limit:
                break
            self.source.together = self.together if self.limit is None else min(self.together, self.limit - seen)
        if self._left == 0 or self.limit is None:
            for _ in self._running if self._left == 0 else ():
                pass
            self._running = None
        if seen == 0 or (self.limit is not None and seen < self.limit):
            warnings.warn(
                f"x ran out of data after {seen} of {self.limit or 'the expected'} batches of this epoch", stacklevel=3
            )
            self._running = None
            self.exhausted = seen == 0


def split(parts: tuple[Any, Any, Any], fraction: float) -> tuple[tuple[Any, Any, Any], tuple[Any, Any, Any]]:
    """(x, y, sample_weight) as the first and the last `fraction` of the rows: training and validation data.

    Raises:
        ValueError: if one of both would be empty, or x is no array.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"validation_split must lie between 0 and 1; received {fraction!r}")
    leaves = [leaf for leaf in flatten(parts) if leaf is not None]
    if not all(map(is_array, leaves)):
        raise ValueError("validation_split needs x and y as arrays; pass validation_data with iterables")
    rows = len(leaves[0])
    at = math.floor(rows * (1.0 - fraction))
    if at == 0 or at == rows:
        raise ValueError(f"validation_split={fraction} leaves nothing to train or to validate on: x has {rows} samples")

    def cut(where: slice) -> Any:
        return tuple(
            pack(part, iter([leaf if leaf is None else _rows(leaf, where) for leaf in flatten(part)])) for part in parts
        )

    return cut(slice(0, at)), cut(slice(at, rows))


def _is_table(array: Array) -> bool:
    """Whether the kernels can take rows out of it."""
    return array.dtype in FLOATS and array.flags.c_contiguous and array.flags.aligned and array.size > 0


def _gather(array: Array, rows: Array) -> Array:
    """array[rows]"""
    if not _is_table(array):
        return array.take(rows, 0)
    table = array.reshape(len(array), -1)
    return kernels.gather_rows(table, rows, threads=threads.get_num_threads()).reshape(len(rows), *array.shape[1:])


def _rows(array: Any, where: slice) -> Any:
    return array.iloc[where] if hasattr(array, "iloc") else array[where]
