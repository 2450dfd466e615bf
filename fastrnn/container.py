"""Documents and arrays in one `.safetensors` file: what the file looks like, how it is written and checked.

    tensors     by name, as given
                arrays/<number>   arrays that stand inside the document, and its long lists of numbers
    metadata    "fastrnn": the document, as JSON
                "crc32": of the document and all tensors

A file is written beside the old one, synced and renamed over it: a crash or a full disk leaves the old file or the new
one, never half of one. What is read is data: JSON values and arrays of numbers, never code.

Source: https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as from_bytes
from safetensors.numpy import save as to_bytes
from safetensors.numpy import save_file as to_file

SUFFIX = ".safetensors"
LONG = 1000
ARRAY, NUMBERS = "__array__", "__numbers__"
Tensors = dict[str, np.ndarray]
Document = dict[str, Any]


class SaveError(ValueError):
    """A model file cannot be written or read, or does not fit the model; names the file and what was expected."""


def checked_path(path: Any) -> Path:
    """`path`, if its suffix is the one that we write.

    Raises:
        SaveError: for any other suffix.
        TypeError: for what is no path.
    """
    found = Path(os.fspath(path))
    if found.suffix != SUFFIX:
        raise SaveError(f"fastrnn writes and reads {SUFFIX} files; received {str(path)!r}")
    return found


def write(path: Any, document: Document, tensors: Tensors, overwrite: bool = True) -> None:
    """Writes a file, whole or not at all.

    Args:
        path: ends in ".safetensors". A link stays a link; the permissions of an old file stay.
        document: JSON values and arrays.
        tensors: arrays by name.
        overwrite: whether a file of that name may be replaced.

    Raises:
        SaveError: naming the file. The file that was there before is still there, and nothing else is.
    """
    target = Path(os.path.realpath(checked_path(path)))
    if not target.parent.is_dir():
        raise SaveError(f"{path} cannot be written: there is no folder {target.parent}")
    if target.exists() and not overwrite:
        raise SaveError(f"{path} exists; pass overwrite=True to replace it")
    arrays, metadata = _contents(document, tensors)
    temporary = target.with_name(f".fastrnn-{secrets.token_hex(8)}.tmp")
    try:
        mode = _create(temporary)
        to_file(arrays, temporary, metadata)
        os.chmod(temporary, stat.S_IMODE(target.stat().st_mode) if target.exists() else mode)
        _sync(temporary)
        os.replace(temporary, target)
        if os.name != "nt":
            _sync(target.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, (OSError, SafetensorError)):
            raise SaveError(f"{path} cannot be written: {error}") from error
        raise


def read(path: Any) -> tuple[Document, Tensors]:
    """Document and tensors of a file that `write` wrote.

    Raises:
        SaveError: if it is missing, damaged, or not one of ours.
    """
    source = checked_path(path)
    try:
        data = source.read_bytes()
    except (OSError, ValueError, MemoryError) as error:
        raise SaveError(f"{source} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return unpack(data, source)


def pack(document: Document, tensors: Tensors) -> bytes:
    """The bytes of the file."""
    return to_bytes(*_contents(document, tensors))


def unpack(data: bytes, source: Any = "the data") -> tuple[Document, Tensors]:
    """The inverse of `pack`; `source` is what errors name."""
    try:
        tensors = from_bytes(data)
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__") or {}
    except Exception as error:
        raise SaveError(f"{source} is no {SUFFIX} file, or a damaged one: {error}") from error
    if "fastrnn" not in metadata:
        raise SaveError(f"{source} was not written by fastrnn: its metadata has no entry 'fastrnn'")
    try:
        text = metadata["fastrnn"]
        if metadata.get("crc32") != _checksum(text, tensors):
            raise ValueError("its checksum is wrong")
        document = _with_arrays(json.loads(text), tensors)
        if not isinstance(document, dict):
            raise ValueError("its document is no object")
    except Exception as error:
        raise SaveError(f"{source} is damaged: {error or type(error).__name__}") from error
    return document, tensors


def _contents(document: Document, tensors: Tensors) -> tuple[Tensors, dict[str, str]]:
    inside: list[np.ndarray] = []
    text = json.dumps(_without_arrays(document, inside))
    every = {**tensors, **{f"arrays/{i}": array for i, array in enumerate(inside)}}
    every = {name: np.asarray(array, order="C") for name, array in every.items()}
    return every, {"fastrnn": text, "crc32": _checksum(text, every)}


def _checksum(text: str, tensors: Tensors) -> str:
    value = zlib.crc32(text.encode())
    for name, array in sorted(tensors.items()):
        value = zlib.crc32(f"{name} {array.dtype.name} {array.shape}".encode(), value)
        value = zlib.crc32(array.reshape(-1).view(np.uint8), value)
    return f"{value:08x}"


def _without_arrays(value: Any, inside: list[np.ndarray]) -> Any:
    """`value` for JSON: arrays, and long lists of fractions, moved to the end of `inside`."""
    if isinstance(value, np.ndarray):
        inside.append(value)
        return {ARRAY: len(inside) - 1}
    if isinstance(value, Mapping):
        return {key: _without_arrays(v, inside) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        size, leaf = 1, value
        while isinstance(leaf, list) and leaf:
            size, leaf = size * len(leaf), leaf[0]
        if size > LONG and isinstance(leaf, float):
            with contextlib.suppress(TypeError, ValueError):
                inside.append(np.array(value, dtype=np.float64))
                return {NUMBERS: len(inside) - 1}
        return [_without_arrays(v, inside) for v in value]
    return value


def _with_arrays(value: Any, tensors: Tensors) -> Any:
    """The inverse of `_without_arrays`; tuples have become lists."""
    if isinstance(value, dict):
        if value.keys() == {ARRAY}:
            return tensors[f"arrays/{value[ARRAY]}"].copy()
        if value.keys() == {NUMBERS}:
            return tensors[f"arrays/{value[NUMBERS]}"].tolist()
        return {key: _with_arrays(v, tensors) for key, v in value.items()}
    return [_with_arrays(v, tensors) for v in value] if isinstance(value, list) else value


def _create(path: Path) -> int:
    """Makes an empty file; returns the permissions that new files get here."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
