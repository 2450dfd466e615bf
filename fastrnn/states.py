"""What lasts from one call of a layer to the next: states of stateful layers, and how far random streams have run.

Layers keep nothing themselves. A model owns one `StateStore` for all of its layers; a layer called on arrays uses a
store of its own. Every call is told by its `Context` which store is meant.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import rng
from ._core import kernels

States = tuple[np.ndarray, ...]


class _Entry:
    """What a store holds of one layer; `resets` is the layer's count of resets at the time the states came in."""

    __slots__ = ("counter", "resets", "states")

    def __init__(self) -> None:
        self.counter, self.resets = kernels.Counter(), 0
        self.states: States | None = None

    def __getstate__(self) -> tuple[Any, ...]:
        return self.counter, self.resets, self.states

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.counter, self.resets, self.states = state


class StateStore:
    """States and random streams by layer. `layer.reset_state()` makes every store forget that layer's states."""

    def __init__(self) -> None:
        self._entries: dict[Any, _Entry] = {}

    def _entry(self, layer: Any) -> _Entry:
        return self._entries.setdefault(layer, _Entry())

    def states(self, layer: Any) -> States | None:
        """The states that the last call of `layer` left here; None if there are none or the layer was reset since."""
        entry = self._entries.get(layer)
        return entry.states if entry is not None and entry.resets == layer.resets else None

    def set_states(self, layer: Any, states: States | None) -> None:
        entry = self._entry(layer)
        entry.states, entry.resets = states, layer.resets

    def stream(self, layer: Any) -> rng.Stream:
        """What is random in one call of `layer`: a function of the layer's seed and of how many calls came before."""
        if layer.random_seed is None:
            layer.random_seed = rng.new_seed()
        return rng.Stream(layer.random_seed, self._entry(layer).counter.count())

    def random(self, layer: Any) -> np.random.Generator:
        """NumPy's generator for one call of `layer`, in place of `stream`."""
        seed, counter = self.stream(layer)
        return rng.generator(seed, counter.value)

    def reset(self, layer: Any = None) -> None:
        """Forgets the states of `layer`, or of all layers. Random streams run on."""
        for entry in self._entries.values() if layer is None else [self._entry(layer)]:
            entry.states = None

    def get_state(self, layers: Iterable[Any]) -> dict[str, dict[str, Any]]:
        """By the path of each of `layers`: {"calls": int, "seed": int or None, "states": tuple of arrays or None}."""
        found = {}
        for layer in layers:
            entry = self._entries.get(layer)
            if entry is not None and (entry.counter.value or entry.states is not None):
                found[layer.path] = {
                    "calls": entry.counter.value,
                    "seed": layer.random_seed,
                    "states": self.states(layer),
                }
        return found

    def set_state(self, state: dict[str, dict[str, Any]], layers: Iterable[Any]) -> None:
        """Takes over what `get_state` gave for layers of the same paths. Those without an entry start anew.

        Raises:
            KeyError: if there is an entry for a path that none of `layers` has; nothing is changed then.
        """
        by_path = {layer.path: layer for layer in layers}
        entries = {by_path[path]: values for path, values in state.items()}
        for entry in self._entries.values():  # which stay: recorded steps count with these counters
            entry.counter.value, entry.states = 0, None
        for layer, values in entries.items():
            seed = None if values["seed"] is None else int(values["seed"])
            if layer.random_seed != seed:
                layer.random_seed = seed
            self._entry(layer).counter.value = int(values["calls"])
            self.set_states(layer, values["states"])


@dataclass(frozen=True)
class Context:
    """What a call of a layer is told besides its inputs.

    Attributes:
        training: whether dropout drops.
        record: whether a backward pass will follow; if not, `forward` may give None for `saved`.
        input_gradient: whether the gradient for the layer's inputs is wanted; if not, `backward` may give None.
        early: whether a layer may give a `BeforeActivation` for its output: the loss goes on from there.
        store: where states of stateful layers and random streams are kept.
    """

    training: bool = False
    record: bool = False
    input_gradient: bool = True
    early: bool = False
    store: StateStore = field(default_factory=StateStore)

    def stream(self, layer: Any) -> rng.Stream:
        """What is random in this call of `layer`."""
        return self.store.stream(layer)

    def random(self, layer: Any) -> np.random.Generator:
        """NumPy's generator for this call of `layer`, in place of `stream`."""
        return self.store.random(layer)
