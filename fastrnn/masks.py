"""Masks are bool arrays of shape (batch, time): True where a step counts. None means that every step does."""

from __future__ import annotations

from typing import Any

import numpy as np


def check(mask: Any, shape: tuple[int, ...], what: str = "mask") -> np.ndarray | None:
    """`mask` as a C-contiguous bool array, or None.

    Args:
        mask: (batch, time), any dtype (non-zero counts as True), or None.
        shape: what is masked; its first two axes are (batch, time).
        what: named in the error.

    Raises:
        ValueError: if the mask's shape does not fit.
    """
    if mask is None:
        return None
    mask = np.asarray(mask)
    if mask.shape != tuple(shape[:2]) or len(shape) < 2:
        raise ValueError(f"{what} must have shape (batch, time) = {tuple(shape[:2])}; received {mask.shape}")
    return np.ascontiguousarray(mask, dtype=bool)


def combine(*masks: np.ndarray | None) -> np.ndarray | None:
    """True where all of `masks` are; None where none is given.

    Raises:
        ValueError: if their shapes differ.
    """
    given = [m for m in masks if m is not None]
    if not given:
        return None
    shapes = {m.shape for m in given}
    if len(shapes) > 1:
        raise ValueError(f"masks of different shapes meet: {', '.join(map(str, sorted(shapes)))}")
    combined = given[0]
    for m in given[1:]:
        combined = np.logical_and(combined, m)
    return combined


def align(a: Any, positions: tuple[int, ...], what: str) -> np.ndarray:
    """A mask or weights, brought to the shape `positions`: (batch,) for (batch, time) counts for whole rows.

    Args:
        a: a number, or an array of the leading axes of `positions`; axes of 1 stretch, trailing ones may be left over.
        positions: usually (batch,) or (batch, time).
        what: named in the error.

    Raises:
        ValueError: if it does not fit.
    """
    a = np.asarray(a)
    shape = a.shape
    while len(shape) > len(positions) and shape[-1] == 1:
        shape = shape[:-1]
    fits = len(shape) <= len(positions) and all(n in (1, m) for n, m in zip(shape, positions, strict=False))
    if not fits or (shape and shape[0] != positions[0]):
        raise ValueError(f"{what} must have shape {positions} or its first axes; received {a.shape}")
    return np.broadcast_to(a.reshape(shape + (1,) * (len(positions) - len(shape))), positions)


def as_weights(mask: np.ndarray | None, sample_weight: Any = None) -> Any:
    """Weights that are 0 where `mask` is False, for whoever takes weights only; None where neither is given.

    Args:
        mask: (batch, time) bool, or None.
        sample_weight: (batch,), (batch, 1) or (batch, time), or None.
    """
    if mask is None or sample_weight is None:
        return mask if sample_weight is None else sample_weight
    return np.where(mask, align(sample_weight, mask.shape, "sample_weight"), 0)


def hides(mask: np.ndarray | None) -> bool:
    """Whether `mask` masks anything at all."""
    return mask is not None and not mask.all()


def all_padding(mask: np.ndarray) -> np.ndarray:
    """(batch,) bool: the rows in which no step counts."""
    return np.logical_not(mask.any(axis=1))


def lengths(mask: np.ndarray) -> np.ndarray:
    """(batch,): how many steps count in each row."""
    return mask.sum(axis=1)


def zero_masked(x: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """`x` (batch, time, ...) with the steps that do not count set to 0, whatever is in them (0 * NaN would be NaN)."""
    if mask is None:
        return x
    return np.where(mask.reshape(mask.shape + (1,) * (x.ndim - 2)), x, 0)
