"""What `a + b`, `a * 2`, `1 / a`, `a ** 2` and `a[:, -1]` on symbolic tensors make: layers like any others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import graph
from ..graph import SymbolicTensor
from ..registry import register
from ..states import Context
from .layer import Array, Layer
from .merging import Add, Divide, Multiply, Subtract


@register("layer")
@dataclass(eq=False, repr=False)
class Affine(Layer):
    """y = scale * x + offset, with two fixed numbers."""

    scale: float = 1.0
    offset: float = 0.0

    def forward(self, x: Array, mask: Any, context: Context) -> tuple[Array, None]:
        return x * x.dtype.type(self.scale) + x.dtype.type(self.offset), None

    def backward(self, saved: None, dy: Array) -> Array:
        return dy * dy.dtype.type(self.scale)


@register("layer")
@dataclass(eq=False, repr=False)
class Power(Layer):
    """y = x ** exponent, with a fixed exponent."""

    exponent: float

    def forward(self, x: Array, mask: Any, context: Context) -> tuple[Array, Array]:
        return x ** x.dtype.type(self.exponent), x

    def backward(self, saved: Array, dy: Array) -> Array:
        return dy * (saved.dtype.type(self.exponent) * saved ** saved.dtype.type(self.exponent - 1))


@register("layer")
@dataclass(eq=False, repr=False)
class Slice(Layer):
    """y = x[index]. The mask is cut the same way; it ends where the time axis does. Integers stay integers.

    Args:
        index: as between brackets: integers, slices and `...`; the batch axis must be `:`. In a configuration a slice
            is [start, stop, step].

    Raises:
        TypeError: for anything else between the brackets.
        ValueError: if the batch is cut, or the input has too few axes or steps.
    """

    index: Any

    keeps_integers = True

    def __post_init__(self) -> None:
        super().__post_init__()
        items = [_item(i) for i in (self.index if isinstance(self.index, (tuple, list)) else (self.index,))]
        if items.count("...") > 1:
            raise ValueError("Slice: an index holds `...` at most once")
        if not items or items[0] not in ("...", [None, None, None]):
            raise ValueError("Slice: the batch axis must be whole: x[:, ...]")
        self.index = items

    def _full(self, rank: int) -> tuple[Any, ...]:
        """The index with one item per axis."""
        items = list(self.index)
        if "..." in items:
            at = items.index("...")
            items[at : at + 1] = [[None, None, None]] * (rank + 1 - len(items))
        items += [[None, None, None]] * (rank - len(items))
        if len(items) != rank or items[0] != [None, None, None]:
            raise ValueError(f"{self.title} does not fit an input of {rank} axes, of which the first must stay whole")
        return tuple(slice(*i) if isinstance(i, list) else i for i in items)

    def check_shape(self, shape: Any) -> None:
        if isinstance(shape, list):
            raise ValueError(f"{self.title} expects one input; received {len(shape)}")
        if 0 in self.output_shape(shape):
            raise ValueError(f"{self.title} leaves nothing of an input of shape {shape}")

    def output_shape(self, shape: Any) -> Any:
        sizes = []
        for axis, (item, n) in enumerate(zip(self._full(len(shape)), shape, strict=True)):
            if isinstance(item, slice):
                sizes.append(None if n is None else len(range(*item.indices(n))))
            elif n is not None and not -n <= item < n:
                raise ValueError(f"{self.title}: axis {axis} of an input of shape {shape} has no place {item}")
        return tuple(sizes)

    def output_mask(self, x: Array, mask: Any) -> Array | None:
        if mask is None:
            return None
        cut = mask[self._full(x.ndim)[: mask.ndim]]
        return np.ascontiguousarray(cut) if cut.ndim > 1 else None

    def forward(self, x: Array, mask: Any, context: Context) -> tuple[Array, Any]:
        self.check_shape(x.shape)
        return np.ascontiguousarray(x[self._full(x.ndim)]), x.shape

    def backward(self, saved: Any, dy: Array) -> Array:
        dx = np.zeros(saved, dy.dtype)
        dx[self._full(len(saved))] = dy
        return dx


def _item(item: Any) -> Any:
    """One item of an index as a configuration holds it."""
    if item is Ellipsis or (isinstance(item, str) and item == "..."):
        return "..."
    if isinstance(item, (int, np.integer)) and not isinstance(item, bool):
        return int(item)
    parts = [item.start, item.stop, item.step] if isinstance(item, slice) else item
    if isinstance(parts, list) and len(parts) == 3 and all(isinstance(p, (int, np.integer, type(None))) for p in parts):
        return [None if p is None else int(p) for p in parts]
    raise TypeError(f"a symbolic tensor is indexed by integers, slices and `...`; received {item!r}")


Chain = Callable[[float, str | None], list[Layer]]


def _operator(symbol: str, merge: type[Layer], right: Chain, left: Chain) -> Callable[[Any, Any], Any]:
    """The function behind `a <symbol> b`: `merge` for two tensors, chains of layers where one is a number."""

    def apply(a: Any, b: Any) -> Any:
        if graph.is_symbolic(a) and graph.is_symbolic(b):
            return merge(dtype=_dtype(a, b))([a, b])
        tensor, number, chain = (a, b, right) if graph.is_symbolic(a) else (b, a, left)
        if isinstance(number, bool) or not isinstance(number, (int, float, np.number)):
            raise TypeError(f"{symbol} takes two symbolic tensors, or one and a number; received {number!r}")
        for layer in chain(float(number), _dtype(tensor)):
            tensor = layer(tensor)
        return tensor

    return apply


def _dtype(*tensors: SymbolicTensor) -> str | None:
    """The widest float type among `tensors`; None if there is none."""
    floats = [t.dtype for t in tensors if t.dtype.startswith("float")]
    return np.result_type(*floats).name if floats else None


def _power(a: SymbolicTensor, exponent: Any) -> SymbolicTensor:
    if not isinstance(exponent, (int, float, np.number)):
        raise TypeError(f"** takes a symbolic tensor and a number; received {exponent!r}")
    return Power(float(exponent), dtype=_dtype(a))(a)


def _plus(n: float, dtype: str | None) -> list[Layer]:
    return [Affine(1.0, n, dtype=dtype)]


def _times(n: float, dtype: str | None) -> list[Layer]:
    return [Affine(n, dtype=dtype)]


def _divided_by(n: float, dtype: str | None) -> list[Layer]:
    return [Power(-1.0, dtype=dtype), Affine(n, dtype=dtype)]


graph.operators.update(
    {
        "add": _operator("+", Add, _plus, _plus),
        "subtract": _operator("-", Subtract, lambda n, d: _plus(-n, d), lambda n, d: [Affine(-1.0, n, dtype=d)]),
        "multiply": _operator("*", Multiply, _times, _times),
        "divide": _operator("/", Divide, lambda n, d: _times(1 / n, d), _divided_by),
        "power": _power,
        "slice": lambda a, index: Slice(index, dtype=_dtype(a))(a),
    }
)
