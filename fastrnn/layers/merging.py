"""Layers that make one array out of several.

Elementwise ones broadcast: axes of size 1 stretch, and an input of fewer axes gets axes of size 1 after its batch.
Where every input has a mask, a step of the output counts if it counts in any of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..registry import register
from ..states import Context
from .layer import Array, Layer

Arrays = list[Array]


class Merge(Layer):
    """Base class of the elementwise ones: `merge` arrays of equal rank, and `merge_backward`."""

    exactly: int | None = None

    def merge(self, xs: Arrays) -> tuple[Array, Any]:
        """y and what `merge_backward` needs."""
        raise NotImplementedError(f"{type(self).__name__} must define merge(self, xs) -> (y, saved)")

    def merge_backward(self, saved: Any, dy: Array) -> Arrays:
        """One gradient per input, each of a shape that may still have to be summed over axes that were stretched."""
        raise NotImplementedError(f"{type(self).__name__} must define merge_backward(self, saved, dy) -> dxs")

    def check_shape(self, shape: Any) -> None:
        _check_list(self, shape)
        if self.exactly not in (None, len(shape)):
            raise ValueError(f"{self.title} expects a list of {self.exactly} inputs; received {len(shape)}")
        self.output_shape(shape)

    def output_shape(self, shape: Any) -> Any:
        sizes = []
        for axis, column in enumerate(zip(*_align(shape), strict=True)):
            known = {n for n in column if n is not None}
            wide = known - {1} if axis else known
            if len(wide) > 1:
                raise ValueError(f"{self.title}: inputs of shapes {', '.join(map(str, shape))} do not fit together")
            free = None in column and (axis or not wide)
            sizes.append(None if free and not (axis and wide) else next(iter(wide or known)))
        return tuple(sizes)

    def output_mask(self, x: Any, mask: Any) -> Array | None:
        if mask is None or any(m is None for m in mask):
            return None
        return np.logical_or.reduce(np.broadcast_arrays(*mask))

    def forward(self, x: Arrays, mask: Any, context: Context) -> tuple[Array, Any]:
        shapes = [v.shape for v in x]
        if shapes.count(shapes[0]) == len(shapes):
            y, saved = self.merge(x)
            return y, (saved, None)
        self.check_shape(shapes)
        y, saved = self.merge([v.reshape(s) for v, s in zip(x, _align(shapes), strict=True)])
        return y, (saved, shapes)

    def backward(self, saved: Any, dy: Array) -> Arrays:
        saved, shapes = saved
        dxs = self.merge_backward(saved, dy)
        if shapes is None:
            return dxs
        return [_sum_to(dx, aligned).reshape(s) for dx, aligned, s in zip(dxs, _align(shapes), shapes, strict=True)]


def _check_list(layer: Layer, shape: Any) -> None:
    if not isinstance(shape, list) or not shape:
        raise ValueError(f"{layer.title} expects a list of inputs; received one of shape {shape}")


def _align(shapes: Any) -> list[tuple[Any, ...]]:
    """`shapes` with axes of size 1 put in after the batch, so that all have the same rank."""
    rank = max(map(len, shapes))
    return [(*s[:1], *(1,) * (rank - len(s)), *s[1:]) for s in shapes]


def _sum_to(dx: Array, shape: tuple[int, ...]) -> Array:
    """`dx` summed over the axes along which an array of `shape` was stretched."""
    axes = tuple(i for i, (n, m) in enumerate(zip(dx.shape, shape, strict=True)) if n != m)
    return dx.sum(axis=axes, keepdims=True) if axes else dx


@register("layer")
@dataclass(eq=False, repr=False)
class Add(Merge):
    """y = x1 + x2 + ..."""

    def merge(self, xs: Arrays) -> tuple[Array, int]:
        y = xs[0].copy() if len(xs) == 1 else xs[0] + xs[1]
        for x in xs[2:]:
            y = y + x
        return y, len(xs)

    def merge_backward(self, saved: int, dy: Array) -> Arrays:
        return [dy] * saved


@register("layer")
@dataclass(eq=False, repr=False)
class Average(Add):
    """y = (x1 + x2 + ...) / n"""

    def merge(self, xs: Arrays) -> tuple[Array, int]:
        y, n = super().merge(xs)
        return y / n, n

    def merge_backward(self, saved: int, dy: Array) -> Arrays:
        return [dy / saved] * saved


@register("layer")
@dataclass(eq=False, repr=False)
class Subtract(Merge):
    """y = x1 - x2"""

    exactly = 2

    def merge(self, xs: Arrays) -> tuple[Array, None]:
        return xs[0] - xs[1], None

    def merge_backward(self, saved: None, dy: Array) -> Arrays:
        return [dy, -dy]


@register("layer")
@dataclass(eq=False, repr=False)
class Multiply(Merge):
    """y = x1 * x2 * ..."""

    def merge(self, xs: Arrays) -> tuple[Array, Arrays]:
        y = xs[0]
        for x in xs[1:]:
            y = y * x
        return y, xs

    def merge_backward(self, saved: Arrays, dy: Array) -> Arrays:
        dxs = []
        for i in range(len(saved)):
            dx = dy
            for x in saved[:i] + saved[i + 1 :]:
                dx = dx * x
            dxs.append(dx)
        return dxs


@register("layer")
@dataclass(eq=False, repr=False)
class Divide(Merge):
    """y = x1 / x2"""

    exactly = 2

    def merge(self, xs: Arrays) -> tuple[Array, Arrays]:
        y = xs[0] / xs[1]
        return y, [y, xs[1]]

    def merge_backward(self, saved: Arrays, dy: Array) -> Arrays:
        y, divisor = saved
        dx = dy / divisor
        return [dx, -dx * y]


class _Choice(Merge):
    """y is one of the inputs at each place; where several are equal they share the gradient."""

    choose: Any

    def merge(self, xs: Arrays) -> tuple[Array, Any]:
        y = xs[0].copy()
        for x in xs[1:]:
            y = type(self).choose(y, x)
        return y, (xs, y)

    def merge_backward(self, saved: Any, dy: Array) -> Arrays:
        xs, y = saved
        hits = [x == y for x in xs]
        share = dy / sum(h.astype(dy.dtype) for h in hits)
        return [share * h for h in hits]


@register("layer")
@dataclass(eq=False, repr=False)
class Maximum(_Choice):
    """y = max(x1, x2, ...)"""

    choose = np.maximum


@register("layer")
@dataclass(eq=False, repr=False)
class Minimum(_Choice):
    """y = min(x1, x2, ...)"""

    choose = np.minimum


@register("layer")
@dataclass(eq=False, repr=False)
class Concatenate(Layer):
    """The inputs one after the other along `axis`; their other axes are equal. Integers stay integers.

    Masks are concatenated too if `axis` is time; otherwise a step counts if it counts in any input.

    Args:
        axis: any but that of the batch.

    Raises:
        ValueError: for axis 0; in a call, if the shapes do not fit.
    """

    axis: int = -1

    keeps_integers = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.axis == 0:
            raise ValueError("Concatenate: axis 0 is the batch and cannot be concatenated along")

    def check_shape(self, shape: Any) -> None:
        _check_list(self, shape)
        rank, axis = len(shape[0]), self._axis(shape[0])
        fits = 0 < axis < rank and all(len(s) == rank for s in shape)
        for i in range(rank if fits else 0):
            fits = fits and (i == axis or len({s[i] for s in shape} - {None}) <= 1)
        if not fits:
            shapes = ", ".join(map(str, shape))
            raise ValueError(
                f"{self.title} expects inputs whose shapes agree but for axis {self.axis}; received {shapes}"
            )

    def _axis(self, shape: Any) -> int:
        return self.axis + len(shape) if self.axis < 0 else self.axis

    def output_shape(self, shape: Any) -> Any:
        axis = self._axis(shape[0])
        columns = list(zip(*shape, strict=True))
        sizes = [next((n for n in column if n is not None), None) for column in columns]
        sizes[axis] = None if None in columns[axis] else sum(columns[axis])
        return tuple(sizes)

    def output_mask(self, x: Arrays, mask: Any) -> Array | None:
        if mask is None or all(m is None for m in mask):
            return None
        depth = max(m.ndim for m in mask if m is not None)
        masks = [np.ones(v.shape[:depth], bool) if m is None else m for v, m in zip(x, mask, strict=True)]
        axis = self._axis(x[0].shape)
        return np.concatenate(masks, axis=axis) if axis < depth else np.logical_or.reduce(masks)

    def forward(self, x: Arrays, mask: Any, context: Context) -> tuple[Array, Any]:
        shapes = [v.shape for v in x]
        if shapes.count(shapes[0]) < len(shapes):
            self.check_shape(shapes)
        axis = self._axis(shapes[0])
        return np.concatenate(x, axis=axis), (axis, [s[axis] for s in shapes])

    def backward(self, saved: Any, dy: Array) -> Arrays:
        axis, sizes = saved
        before, end, dxs = (slice(None),) * axis, 0, []
        for size in sizes:
            dxs.append(np.ascontiguousarray(dy[(*before, slice(end, end + size))]))
            end += size
        return dxs


def add(inputs: Any, **options: Any) -> Any:
    """`Add(**options)(inputs)`"""
    return Add(**options)(inputs)


def average(inputs: Any, **options: Any) -> Any:
    """`Average(**options)(inputs)`"""
    return Average(**options)(inputs)


def subtract(inputs: Any, **options: Any) -> Any:
    """`Subtract(**options)(inputs)`"""
    return Subtract(**options)(inputs)


def multiply(inputs: Any, **options: Any) -> Any:
    """`Multiply(**options)(inputs)`"""
    return Multiply(**options)(inputs)


def maximum(inputs: Any, **options: Any) -> Any:
    """`Maximum(**options)(inputs)`"""
    return Maximum(**options)(inputs)


def minimum(inputs: Any, **options: Any) -> Any:
    """`Minimum(**options)(inputs)`"""
    return Minimum(**options)(inputs)


def concatenate(inputs: Any, axis: int = -1, **options: Any) -> Any:
    """`Concatenate(axis, **options)(inputs)`"""
    return Concatenate(axis, **options)(inputs)
