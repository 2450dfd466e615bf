"""Names and objects: the one place where a string, a class or a config dictionary becomes an object and back.

Every configurable thing (layer, loss, metric, optimizer, schedule, initializer, regularizer, constraint, activation)
registers under a *kind*. What an object is made of is said once, by its dataclass fields: its signature, ``repr``,
``get_config`` and clone all derive from them.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import MISSING, fields, is_dataclass
from types import FunctionType
from typing import Any, ClassVar, TypeVar

import numpy as np

T = TypeVar("T")
_entries: dict[str, dict[str, Any]] = {}
_shared: ContextVar[_Shared | None] = ContextVar("_shared", default=None)
_numbers = itertools.count(1)
_settings_version = 0


def snake_case(name: str) -> str:
    """``"SimpleRNN" -> "simple_rnn"``, by the rule Keras names layers with."""
    name = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def register(kind: str, *aliases: str) -> Callable[[T], T]:
    """Class or function decorator: makes the object known under its own name, its snake_case name and `aliases`."""

    def decorate(thing: T) -> T:
        name = thing.__name__  # type: ignore[attr-defined]
        table = _entries.setdefault(kind, {})
        for key in (name, snake_case(name), *aliases):
            if table.setdefault(key, thing) is not thing:
                raise ValueError(f"{kind} name {key!r} is taken by {table[key]!r}")
        if isinstance(thing, type):
            thing.kind = kind  # type: ignore[attr-defined]
        return thing

    return decorate


def names(kind: str) -> list[str]:
    """Every name registered under `kind`, sorted."""
    return sorted(_entries.get(kind, {}))


def lookup(kind: str, name: str, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The class or function called `name`. Raises ValueError that lists the names there are."""
    for table in (custom_objects or {}, _entries.get(kind, {})):
        if name in table:
            return table[name]
    raise ValueError(f"unknown {kind} {name!r}; known are: {', '.join(names(kind))}")


def get(kind: str, identifier: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """An object from what users write: None, a name, a config dictionary, a class, or the object itself.

    A name of a class gives an instance made without arguments; a name of a function gives the function.
    """
    if isinstance(identifier, str):
        identifier = lookup(kind, identifier, custom_objects)
    elif isinstance(identifier, Mapping):
        identifier = deserialize(identifier, custom_objects)
    return identifier() if isinstance(identifier, type) else identifier


class _Shared:
    """The layers met so far: as written, by their identity; as read, by their number."""

    def __init__(self) -> None:
        self.written: dict[int, tuple[Any, dict[str, Any]]] = {}
        self.read: dict[int, Any] = {}
        self.count = 0


@contextlib.contextmanager
def sharing() -> Iterator[None]:
    """Inside, a layer that is written in several places is written once and referred to by number, and read as one."""
    token = _shared.set(_shared.get() or _Shared())
    try:
        yield
    finally:
        _shared.reset(token)


def serialize(value: Any) -> Any:
    """`value` as something JSON can hold. Raises TypeError, naming the value, if it is made of anything else."""
    if isinstance(value, Configurable):
        return _serialize_object(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [serialize(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): serialize(v) for k, v in value.items()}
    if callable(value) and getattr(value, "__name__", "<lambda>").isidentifier():
        return {"kind": "function", "class_name": value.__name__, "config": None}
    raise TypeError(f"cannot write {value!r} into a configuration: give it a get_config, or pass a registered name")


def _serialize_object(value: Configurable) -> dict[str, Any]:
    head = {"kind": value.kind, "class_name": type(value).__name__}
    shared = _shared.get() if value.kind in ("layer", "model") else None
    if shared is None:
        return {**head, "config": value.get_config()}
    if id(value) not in shared.written:
        shared.written[id(value)] = value, {**head, "config": value.get_config()}
        return shared.written[id(value)][1]
    first = shared.written[id(value)][1]
    if "shared" not in first:
        first["shared"] = shared.count = shared.count + 1
    return {**head, "shared": first["shared"]}


def deserialize(value: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The inverse of `serialize`."""
    if isinstance(value, Mapping):
        if {"kind", "class_name"} < value.keys() <= {"kind", "class_name", "config", "shared"}:
            return _deserialize_object(value, custom_objects)
        return {k: deserialize(v, custom_objects) for k, v in value.items()}
    if isinstance(value, list):
        return [deserialize(v, custom_objects) for v in value]
    return value


def _deserialize_object(value: Mapping[str, Any], custom_objects: Mapping[str, Any] | None) -> Any:
    kind, name = value["kind"], value["class_name"]
    if kind == "function":
        return _function(name, custom_objects)
    read = (_shared.get() or _Shared()).read
    if "config" not in value:
        if value["shared"] not in read:
            raise ValueError(f"the configuration refers to a shared {kind} {name!r} that does not come before")
        return read[value["shared"]]
    made = lookup(kind, name, custom_objects).from_config(value["config"], custom_objects)
    if "shared" in value:
        read[value["shared"]] = made
    return made


def _function(name: str, custom_objects: Mapping[str, Any] | None) -> Any:
    for table in (custom_objects or {}, *_entries.values()):
        if name in table and not isinstance(table[name], type):
            return table[name]
    raise ValueError(f"unknown function {name!r}; pass it in custom_objects={{{name!r}: ...}}")


def is_own(thing: Any) -> bool:
    """Whether the class of an object is of this library and not of a user's, and no method of it was replaced."""
    cls = type(thing)
    if cls.__module__.partition(".")[0] != __package__:
        return False
    return not any(isinstance(getattr(cls, name, None), FunctionType) for name in getattr(thing, "__dict__", ()))


def replays(thing: Any) -> bool:
    """`thing.replays`, which says nothing of the subclasses that users write."""
    return is_own(thing) and bool(thing.replays)


class Configurable:
    """Mixin: configuration, clone and repr from the dataclass fields of the subclass (see the module's docstring).

    Attributes:
        replays: whether what it does in training may be recorded (`models/recorded.py`): it touches numbers through
            the kernels alone. Such layers also know of `Context.early`.
    """

    kind: ClassVar[str] = "object"
    replays: ClassVar[bool] = False

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as JSON-able values."""
        if not is_dataclass(self):
            raise NotImplementedError(f"{type(self).__name__} is no dataclass: define get_config()")
        return {f.name: serialize(getattr(self, f.name)) for f in fields(self) if f.init}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Any:
        return cls(**{k: deserialize(v, custom_objects) for k, v in config.items()})

    def __repr__(self) -> str:
        """The call that makes this object: positional fields, and whatever differs from its default."""
        if not is_dataclass(self):
            return f"{type(self).__name__}()"
        shown = []
        for f in sorted(fields(self), key=lambda f: f.kw_only):
            value = getattr(self, f.name)
            if not f.init or not f.repr or _is_default(f, value):
                continue
            shown.append(repr(value) if f.default is MISSING and not f.kw_only else f"{f.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


def settings_version() -> int:
    """A number that changes whenever the `changes` of a `Watched` object do."""
    return _settings_version


class Watched(Configurable):
    """What a training step consists of, layers, losses, activations: `changes` counts how often an attribute was set.
    Left out are those with an underscore in front, as caches have, and those that were the same number or word before.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        before = vars(self).get(name, vars(self).get(f"_{name}", PLAIN))  # behind a property there may be an attribute
        same = isinstance(value, PLAIN) and _is_same(before, value)
        super().__setattr__(name, value)
        if not same:
            _count_change(self, name)

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        _count_change(self, name)


PLAIN = bool, int, float, str, type(None)
_CHANGES = "_Watched__changes"  # in the dictionary of each object that `changes` was asked about


def _is_same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and bool(a == b)


def _count_change(thing: Watched, name: str) -> None:
    global _settings_version
    if _CHANGES in vars(thing) and (not name.startswith("_") or name == "__class__"):
        vars(thing)[_CHANGES] += 1
        _settings_version = next(_numbers)


def changes(thing: Watched) -> int:
    """How often an attribute of it was set since this was asked first."""
    return vars(thing).setdefault(_CHANGES, 0)


def watched(things: Iterable[Any]) -> list[Watched]:
    """All `Watched` objects among `things`, in their attributes, and so on."""
    found: dict[int, Watched] = {}
    waiting = list(things)
    while waiting:
        thing = waiting.pop()
        if isinstance(thing, Watched) and id(thing) not in found:
            found[id(thing)] = thing
            waiting.extend(vars(thing).values())
    return list(found.values())


def _is_default(f: Any, value: Any) -> bool:
    if f.default is MISSING:
        return False
    if value is f.default or (type(value) is type(f.default) and value == f.default):
        return True
    return (
        isinstance(f.default, str)
        and isinstance(value, Configurable)
        and repr(value) == repr(_default_object(value, f.default))
    )


def _default_object(value: Configurable, name: str) -> Any:
    try:
        return get(value.kind, name)
    except ValueError:
        return None
