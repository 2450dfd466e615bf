"""A model and its file: weights, optimizer state, configuration, training state. The file itself is `container`'s.

    tensors     weights/<path>            see `weight_paths`; e.g. weights/lstm/kernel
                optimizer/<slot>/<path>   and optimizer/iterations, optimizer/learning_rate
    document    format      1
                model       configuration of the model; null in a file of weights alone
                compile     what `compile` was given, null if nothing
                optimizer   name of the class
                training    random streams, order of the data, states of stateful layers
                extra       what the caller added

Reading a file runs nothing but constructors of registered classes, with what the document gives as their arguments.
Loading is all or nothing: nothing is assigned before everything fits.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from . import container, initializers, registry
from .container import Document, SaveError, Tensors, checked_path
from .params import Parameter

__all__ = [
    "SaveError",
    "checked_path",
    "layer_paths",
    "load_model",
    "load_weights",
    "pack",
    "restore",
    "save_model",
    "save_weights",
    "unpack",
    "weight_paths",
]

FORMAT = 1
PARTS = {"model": dict, "compile": dict, "optimizer": str, "training": dict, "extra": dict}


def save_model(model: Any, path: Any, overwrite: bool = True, extra: Mapping[str, Any] | None = None) -> None:
    """Writes the whole model: what `load_model` needs to go on as if nothing had happened.

    Args:
        model: any model.
        path: ends in ".safetensors".
        overwrite: whether a file of that name may be replaced.
        extra: JSON values of one's own, which `restore` gives back.

    Raises:
        SaveError: naming the file. The file that was there before is still there.
    """
    checked_path(path)
    container.write(path, *_whole(model, extra), overwrite)


def load_model(path: Any, custom_objects: Mapping[str, Any] | None = None, compile: bool = True) -> Any:
    """The model in the file: weights, and, if it was compiled, optimizer with its state, loss, metrics, random streams.

    Args:
        path: a file that `model.save` wrote.
        custom_objects: classes and functions of one's own, by the names they have in the file.
        compile: whether to compile the model as it was; without, only its weights come back.

    Raises:
        SaveError: if the file is missing, damaged, foreign, or needs something that is not there.
    """
    return _rebuild(path, *container.read(path), custom_objects, compile)


def save_weights(model: Any, path: Any, overwrite: bool = True) -> None:
    """Writes the weights, and the state of the optimizer if there is one.

    Raises:
        SaveError: naming the file. The file that was there before is still there.
    """
    checked_path(path)
    container.write(path, *_state(model), overwrite)


def load_weights(model: Any, path: Any, skip_mismatch: bool = False) -> None:
    """Takes the weights from a file that `save_weights` or `save` wrote; the optimizer's state too, if it fits.

    Weights are found by their path in the model (see `weight_paths`). Nothing is assigned unless everything fits.

    Args:
        model: a built model.
        path: the file.
        skip_mismatch: take what fits, and warn about the rest.

    Raises:
        SaveError: naming the file and the weights that are missing, unknown or of another shape.
    """
    document, tensors = _read(path)
    values, misfits = _matched(model, tensors, path)
    if misfits and not skip_mismatch:
        raise SaveError(f"{path} does not fit model {model.name!r}: {_some(misfits)}")
    _assign(values)
    if misfits:
        warnings.warn(f"{path}: skipped what does not fit model {model.name!r}: {_some(misfits)}", stacklevel=3)
    elif document["optimizer"] is not None and getattr(model, "optimizer", None) is not None:
        try:
            _set_optimizer(model, document, tensors)
        except Exception as error:
            warnings.warn(f"{path}: took the weights but not the optimizer's state: {error}", stacklevel=3)


def restore(model: Any, path: Any) -> dict[str, Any]:
    """Puts a compiled model back into the state that `save_model` wrote, and gives back what came as `extra`.

    Raises:
        SaveError: if the file does not fit the model; the model is as it was then.
    """
    document, tensors = _read(path)
    values, misfits = _matched(model, tensors, path)
    if misfits:
        raise SaveError(f"{path} does not fit model {model.name!r}: {_some(misfits)}")
    before = model.get_training_state()
    with _as_save_errors(f"{path} does not fit model {model.name!r}"):
        if document["training"] is None or document["optimizer"] is None or model.optimizer is None:
            raise SaveError("only a compiled model goes on from the file of a compiled model, written by save")
        _set_training(model, document)
        try:
            _set_optimizer(model, document, tensors)
        except BaseException:
            model.set_training_state(before)
            raise
    _assign(values)
    return dict(document["extra"] or {})


def pack(model: Any) -> bytes:
    """The whole model as the bytes of a file."""
    return container.pack(*_whole(model, None))


def unpack(data: bytes, custom_objects: Mapping[str, Any] | None = None, compile: bool = True) -> Any:
    """The inverse of `pack`. Raises SaveError like `load_model`."""
    return _rebuild("the data", *container.unpack(data), custom_objects, compile)


def weight_paths(model: Any) -> dict[str, Parameter]:
    """Every weight of `model` by its path in files, such as "encoder/lstm/kernel": path of the layer and own name."""
    found: dict[str, Parameter] = {}
    seen: set[int] = set()
    for path, layer in layer_paths(model).items():
        inside = {id(p) for sub in layer.sublayers for p in sub.weights}
        own = [p for p in layer.weights if id(p) not in inside | seen]
        found.update((f"{path}/{p.name}", p) for p in own)
        seen.update(map(id, own))
    return found


def layer_paths(model: Any) -> dict[str, Any]:
    """Every layer in `model` by its path in files: its name behind those of the layers around it, joined by "/".

    A name that was given automatically ("lstm_7") counts anew within what is around it, in the order of `layers`
    ("lstm", "lstm_1", ...), so that a model that is built twice in one program has the same paths both times.
    """
    found: dict[str, Any] = {}
    _collect(model, "", found)
    return found


def _collect(layer: Any, prefix: str, found: dict[str, Any]) -> None:
    taken: set[str] = set()
    for sub in layer.sublayers:
        own, automatic = sub.path.rpartition("/")[2], registry.snake_case(type(sub).__name__)
        base = automatic if re.fullmatch(rf"{automatic}(_\d+)?", own) else own
        name = next(name for i in itertools.count() if (name := f"{base}_{i}" if i else base) not in taken)
        taken.add(name)
        if sub not in found.values():
            found[f"{prefix}{name}"] = sub
            _collect(sub, f"{prefix}{name}/", found)


# From a model to a document and tensors.


def _state(model: Any) -> tuple[Document, Tensors]:
    """Weights and optimizer."""
    paths = weight_paths(model)
    tensors = {f"weights/{path}": p.values for path, p in paths.items()}
    document: Document = {"format": FORMAT, **dict.fromkeys(PARTS)}
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None:
        document["optimizer"] = type(optimizer).__name__
        in_file = {p.path: path for path, p in paths.items()}
        for key, value in optimizer.state().items():
            slot, _, path = key.partition("/")
            tensors[f"optimizer/{slot}/{in_file[path]}" if path else f"optimizer/{slot}"] = value
    return document, tensors


def _whole(model: Any, extra: Mapping[str, Any] | None) -> tuple[Document, Tensors]:
    document, tensors = _state(model)
    try:
        document["model"] = registry.serialize(model)
    except TypeError as error:
        raise SaveError(f"model {model.name!r} cannot be saved: {error}") from error
    try:
        document["compile"] = model.get_compile_config()
    except TypeError as error:
        missing = "without its loss and metrics; compile it again after loading"
        warnings.warn(f"model {model.name!r} is saved {missing}: {error}", stacklevel=4)
    in_file = {layer.path: path for path, layer in layer_paths(model).items()}
    document["training"] = _renamed(model.get_training_state(), in_file)
    document["extra"] = None if extra is None else dict(extra)
    return document, tensors


# From a document and tensors to a model.


def _read(path: Any) -> tuple[Document, Tensors]:
    document, tensors = container.read(path)
    _check(document, path)
    return document, tensors


def _check(document: Document, source: Any) -> None:
    found = document.get("format")
    if not isinstance(found, int) or not 1 <= found <= FORMAT:
        raise SaveError(f"{source} has format {found!r}; this version of fastrnn reads formats up to {FORMAT}")
    for part, kind in PARTS.items():
        if part not in document or not isinstance(document[part], (kind, type(None))):
            raise SaveError(f"{source} is damaged: its {part!r} is not of type {kind.__name__}")


def _rebuild(
    source: Any, document: Document, tensors: Tensors, custom_objects: Mapping[str, Any] | None, compile: bool
) -> Any:
    _check(document, source)
    config = document["model"]
    if config is None:
        raise SaveError(f"{source} holds weights without a model: build the model and use load_weights")
    hint = "classes and functions of your own are passed in custom_objects={name: ...}"
    with _as_save_errors(f"the model in {source} cannot be built ({hint})"), _values_of(tensors):
        model = registry.deserialize(config, custom_objects)
        if getattr(model, "kind", None) != "model":
            raise SaveError(f"its configuration is that of {type(model).__name__}, which is no model")
        values, misfits = _matched(model, tensors, source)
    if misfits:
        raise SaveError(f"{source} is damaged, its weights are not those of its model: {_some(misfits)}")
    _assign(values)
    if compile and document["compile"] is not None:
        with _as_save_errors(f"the model in {source} cannot be compiled ({hint}; compile=False leaves it out)"):
            model.compile_from_config(document["compile"], custom_objects)
            _set_optimizer(model, document, tensors)
    if document["training"] is not None:
        with _as_save_errors(f"{source} is damaged, its training state does not fit its model"):
            _set_training(model, document)
    return model


@contextlib.contextmanager
def _values_of(tensors: Tensors) -> Iterator[None]:
    """Inside, new weights are zeros until those of the file are assigned, and no larger than what the file holds."""
    room = sum(array.size for name, array in tensors.items() if name.startswith("weights/"))

    def zeros(shape: tuple[int, ...], dtype: Any, what: str) -> np.ndarray:
        nonlocal room
        room -= math.prod(shape)
        if room < 0 or min(shape, default=1) < 0:
            raise SaveError(f"{what} of shape {shape} is not in the file")
        return np.zeros(shape, dtype)

    token = initializers.stand_in.set(zeros)
    try:
        yield
    finally:
        initializers.stand_in.reset(token)


def _matched(model: Any, tensors: Tensors, source: Any) -> tuple[list[tuple[Parameter, np.ndarray]], list[str]]:
    """The weights with their values, and what does not fit, in words."""
    own = weight_paths(model)
    given = {name.removeprefix("weights/"): array for name, array in tensors.items() if name.startswith("weights/")}
    if given and not own and not model.built:
        raise SaveError(
            f"{source}: model {model.name!r} has no weights yet; build it, or call it on data, before loading"
        )
    misfits = [f"weight {path!r} is missing in the file" for path in own if path not in given]
    misfits += [f"weight {path!r} is not in the model" for path in given if path not in own]
    values = []
    for path, p in own.items():
        array = given.get(path)
        if array is None:
            continue
        if array.shape != p.shape:
            misfits.append(f"weight {path!r} has shape {array.shape}, expected {p.shape}")
        elif array.dtype.kind != "f":
            misfits.append(f"weight {path!r} has dtype {array.dtype}, expected {p.dtype}")
        else:
            values.append((p, array))
    return values, misfits


def _assign(values: list[tuple[Parameter, np.ndarray]]) -> None:
    for p, array in values:
        p.assign(array)


def _set_optimizer(model: Any, document: Document, tensors: Tensors) -> None:
    optimizer, name = model.optimizer, type(model.optimizer).__name__
    if document["optimizer"] != name:
        raise SaveError(f"it is that of {document['optimizer']}, the model has {name}")
    own = weight_paths(model)
    state, trained = {}, set()
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            slot, _, path = key.removeprefix("optimizer/").partition("/")
            if path and path not in own:
                raise SaveError(f"it has {slot!r} for weight {path!r}, which is not in the model")
            if path:
                trained.add(own[path].path)
            whole = slot == "iterations"
            if value.dtype.kind != ("i" if whole else "f") or (not path and value.shape) or (whole and value < 0):
                raise SaveError(f"its {slot!r} has dtype {value.dtype} and shape {value.shape}, or is negative")
            state[f"{slot}/{own[path].path}" if path else slot] = value
    if trained:
        optimizer.build([p for p in own.values() if p.path in trained])
    optimizer.set_state(state)


def _set_training(model: Any, document: Document) -> None:
    here = {path: layer.path for path, layer in layer_paths(model).items()}
    model.set_training_state(_renamed(document["training"], here))


def _renamed(state: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """A training state in which layers go by other names."""
    return {**state, **{part: {names[k]: v for k, v in state[part].items()} for part in ("seeds", "layers")}}


def _some(reasons: list[str], shown: int = 4) -> str:
    return "; ".join(reasons[:shown]) + (f"; and {len(reasons) - shown} more" if len(reasons) > shown else "")


@contextlib.contextmanager
def _as_save_errors(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise SaveError(f"{what}: {error or type(error).__name__}") from error
