"""Inputs and targets: what users may give, matched to the named inputs and outputs of a model, checked, made arrays.

`Ports` are the inputs, or the outputs, of a model. They take an array, a list, or a dict by name, and return one array
per symbolic tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

Array = np.ndarray


class Tensor(Protocol):
    """What is asked of a symbolic tensor here."""

    shape: tuple[int | None, ...]
    dtype: str


def flatten(structure: Any) -> list[Any]:
    """The leaves of lists, tuples and dicts; dicts in the order of their sorted keys."""
    if isinstance(structure, Mapping):
        return [leaf for key in sorted(structure) for leaf in flatten(structure[key])]
    if isinstance(structure, (list, tuple)):
        return [leaf for item in structure for leaf in flatten(item)]
    return [structure]


def pack(structure: Any, leaves: Iterator[Any]) -> Any:
    """`leaves` in the form of `structure`: the inverse of `flatten`."""
    if isinstance(structure, Mapping):
        packed = {key: pack(structure[key], leaves) for key in sorted(structure)}
        return {key: packed[key] for key in structure}
    if isinstance(structure, (list, tuple)):
        return [pack(item, leaves) for item in structure]
    return next(leaves)


def as_array(value: Any, what: str) -> Array:
    """`value` as an array of numbers or booleans.

    Raises:
        ValueError: if it is ragged or holds anything else, naming `what`.
    """
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(f"{what} is ragged: its rows differ in shape; fastrnn.utils.pad_sequences pads them") from None
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{what} must be an array of numbers; received {_describe(value)} of dtype {array.dtype}")
    return array


def _behaved(value: Any, dtype: Any) -> Array:
    """An array of this type, C-contiguous and aligned."""
    array = np.asarray(value, dtype=dtype, order="C")
    return array if array.flags.aligned else array.copy()


def is_array(value: Any) -> bool:
    """Whether `value` is an array (of NumPy, pandas, torch, ...) of at least one axis."""
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return hasattr(value, "__array__") and len(getattr(value, "shape", ())) > 0


class Ports:
    """The inputs, or the outputs, of a model.

    Args:
        owner: how errors name the model, "model 'seq2seq'".
        kind: "input" or "target".
        structure: symbolic tensors in the form the model was made with: one, a list, a dict.
        names: one per tensor, in the order of `flatten`.
    """

    def __init__(self, owner: str, kind: str, structure: Any, names: Sequence[str]) -> None:
        self.owner, self.kind, self.structure, self.names = owner, kind, structure, list(names)
        self.tensors: list[Tensor] = flatten(structure)
        self._dtypes = [np.dtype(t.dtype) for t in self.tensors]
        self._fixed = [None if None in t.shape[1:] else t.shape[1:] for t in self.tensors]

    def match(self, value: Any, argument: str) -> list[Any]:
        """One entry of `value` per tensor. Entries that are None, or missing from a dict of targets, stay None.

        Raises:
            ValueError: if their number or names differ.
        """
        count = len(self.tensors)
        if isinstance(value, Mapping):
            return self._match_names(value, argument)
        if isinstance(value, (list, tuple)) and len(value) > 0:
            parts = (
                flatten(value)
                if any(isinstance(v, (list, tuple, Mapping)) and any(map(is_array, flatten(v))) for v in value)
                else value
            )
            several = all(v is None or is_array(v) for v in parts)
            if several or (count > 1 and len(parts) == count):
                if len(parts) != count:
                    hint = "; np.stack makes one array of rows, a batch of x and y is a tuple" if count == 1 else ""
                    raise ValueError(self._counted(f"{len(parts)} arrays", argument) + hint)
                return list(parts)
        if count > 1:
            raise ValueError(self._counted(_describe(value), argument))
        return [value]

    def _match_names(self, value: Mapping[str, Any], argument: str) -> list[Any]:
        keys = self.names
        missing = [key for key in keys if key not in value]
        unknown = [key for key in value if key not in keys]
        if missing if self.kind == "input" else unknown:
            raise ValueError(
                f"{argument} of {self.owner} must be a dict with the {self.kind}s {', '.join(map(repr, keys))}; "
                f"received {', '.join(map(repr, value)) or 'none'}"
            )
        return [value.get(key) for key in keys]

    def _counted(self, received: str, argument: str) -> str:
        named = ", ".join(map(repr, self.names))
        plural = f"{self.kind}s" if len(self.names) > 1 else self.kind
        return f"{argument} of {self.owner} must give {len(self.names)} {plural} ({named}); received {received}"

    def inputs(self, value: Any) -> list[Array]:
        """Arrays for a forward pass, C-contiguous, in the dtype of the tensors; integers stay integers.

        Raises:
            ValueError: naming the input whose rank or fixed axis differs, or which is empty.
        """
        if type(value) is np.ndarray and len(self.tensors) == 1:
            return [self._input(value, 0)]
        if value is None:
            raise ValueError(self._counted("None", "x"))
        return [self._input(v, i) for i, v in enumerate(self.match(value, "x"))]

    def _input(self, value: Any, i: int) -> Array:
        dtype, fixed = self._dtypes[i], self._fixed[i]
        plain = type(value) is np.ndarray and value.dtype == dtype and value.flags.c_contiguous
        if plain and value.ndim and value.shape[1:] == fixed and value.size and value.flags.aligned:
            return value
        what = f"input {self.names[i]!r} of {self.owner}"
        if value is None:
            raise ValueError(f"{what} is missing: received None")
        array = _fit(as_array(value, what), self.tensors[i].shape, what)
        if array.dtype.kind in "iu":
            dtype = array.dtype.newbyteorder("=")
        if array.dtype.kind == "f" and dtype.kind != "f" and not (array == np.trunc(array)).all():
            raise ValueError(f"{what} has dtype {dtype}; received numbers that are not whole")
        if array.dtype.kind == "f" and isinstance(value, np.memmap):
            return array
        return _behaved(array, dtype)

    def targets(self, value: Any) -> list[Array | None]:
        """Targets of a loss: floats in the dtype of the output, integers and booleans as they are."""
        if value is None:
            return [None] * len(self.tensors)
        if type(value) is np.ndarray and len(self.tensors) == 1:
            return [self._target(value, 0)]
        return [self._target(v, i) for i, v in enumerate(self.match(value, "y"))]

    def _target(self, value: Any, i: int) -> Array | None:
        if value is None:
            return None
        if type(value) is not np.ndarray or value.dtype.kind not in "fiub":
            value = as_array(value, f"y of output {self.names[i]!r} of {self.owner}")
        if value.ndim == 0:
            raise ValueError(
                f"y of output {self.names[i]!r} of {self.owner} must have a batch axis; received {value!r}"
            )
        dtype = self._dtypes[i] if value.dtype.kind == "f" and not isinstance(value, np.memmap) else value.dtype
        return _behaved(value, dtype)

    def weights(self, value: Any) -> list[Array | None] | None:
        """Sample weights (batch,) or (batch, time), one per output; a single array counts for all outputs."""
        if value is None:
            return None
        if isinstance(value, (list, tuple, Mapping)) and (
            isinstance(value, Mapping) or any(is_array(v) or v is None for v in value)
        ):
            parts = self.match(value, "sample_weight")
        else:
            parts = [value] * len(self.tensors)
        found: list[Array | None] = []
        for name, dtype, part in zip(self.names, self._dtypes, parts, strict=True):
            array = None if part is None else as_array(part, f"sample_weight of output {name!r}")
            if array is not None and array.ndim == 0:
                raise ValueError(
                    f"sample_weight of output {name!r} must have shape (batch,) or (batch, time); received {part!r}"
                )
            if array is not None and len(parts) > 1 and part is value and array.ndim > 1 and array.shape[1:] != (1,):
                raise ValueError(
                    f"sample_weight for several outputs at once must have shape (batch,); received {array.shape}"
                )
            found.append(None if array is None else _behaved(array, dtype))
        return found


def _fit(array: Array, shape: tuple[int | None, ...], what: str) -> Array:
    """`array`, with a last axis of 1 added or dropped where that makes it fit."""
    given = array.shape
    if array.ndim == len(shape) - 1 and shape[-1] == 1:
        array = array[..., None]
    elif array.ndim == len(shape) + 1 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != len(shape) or any(w not in (None, n) for n, w in zip(array.shape[1:], shape[1:], strict=True)):
        raise ValueError(f"{what} expects shape {_shown(shape)}; received {given}")
    if array.size == 0:
        raise ValueError(f"{what} is empty: received shape {given}")
    return array


def _shown(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join(('batch', *(str(n) if n is not None else 'any' for n in shape[1:])))})"


def _describe(value: Any) -> str:
    shape = getattr(value, "shape", None)
    kind = type(value).__name__
    return f"an array of shape {tuple(shape)}" if shape is not None and len(shape) else f"a {kind}"
