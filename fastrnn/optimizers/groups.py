"""Where the weights of an optimizer and what it keeps of them lie: flat arrays, in pieces that take a step alike."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from ..params import Parameter, segments

AVERAGE, ACCUMULATOR = "average", "gradient_accumulator"  # slots that any optimizer may have
NOTHING = np.empty(0)
Array = np.ndarray


class Chunk(NamedTuple):
    """Neighbouring weights and what belongs to them, as flat views of equal length (`NOTHING` where it is not kept)."""

    values: Array
    gradient: Array
    slots: dict[str, Array]
    average: Array
    accumulator: Array
    scratch: Array
    decayed: bool
    lazy: Parameter | None


class Group:
    """The parameters of one dtype in their order, and one flat array over all of them for each slot."""

    def __init__(self, parameters: list[Parameter], initial: dict[str, float]) -> None:
        self.parameters, self.dtype = parameters, parameters[0].dtype
        self.slots = {name: np.full(sum(p.size for p in parameters), x, self.dtype) for name, x in initial.items()}

    def views(self) -> Iterator[tuple[str, Parameter, Array]]:
        """Every slot of every parameter, in the parameter's shape."""
        start = 0
        for p in self.parameters:
            for name, slot in self.slots.items():
                yield name, p, slot[start : start + p.size].reshape(p.shape)
            start += p.size

    def chunks(self, decays: Callable[[Parameter], bool], most: int) -> Iterator[Chunk]:
        """The same memory as pieces of at most `most` neighbours that are all decayed or all not; a lazy parameter is
        a piece by itself. With a limit there is scratch memory."""
        size = sum(p.size for p in self.parameters)
        scratch = np.empty((2, most if most < size else size), self.dtype) if most < sys.maxsize else NOTHING
        offset = 0
        for (decayed, _), run in itertools.groupby(self.parameters, key=lambda p: (decays(p), p.lazy and id(p))):
            members = list(run)
            lazy = members[0] if members[0].lazy else None
            for segment in segments(members):
                for start in range(0, segment.size, segment.size if lazy else min(most, segment.size)):
                    stop = segment.size if lazy else min(start + most, segment.size)
                    slots = {name: slot[offset + start : offset + stop] for name, slot in self.slots.items()}
                    average, accumulator = slots.pop(AVERAGE, NOTHING), slots.pop(ACCUMULATOR, NOTHING)
                    values, gradient = segment.values[start:stop], segment.gradients[start:stop]
                    aside = scratch[..., : stop - start]
                    yield Chunk(values, gradient, slots, average, accumulator, aside, decayed, lazy)
                offset += segment.size
