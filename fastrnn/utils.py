"""What Keras scripts import from `keras.utils`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .rng import set_random_seed

__all__ = ["normalize", "pad_sequences", "set_random_seed", "to_categorical"]


def pad_sequences(
    sequences: Sequence[Any],
    maxlen: int | None = None,
    dtype: Any = "int32",
    padding: str = "pre",
    truncating: str = "pre",
    value: Any = 0.0,
) -> np.ndarray:
    """Sequences of different lengths as one array (len(sequences), maxlen, ...).

    Args:
        sequences: lists or arrays; what follows their first axis must agree.
        maxlen: length of the result; None takes the longest.
        dtype: of the result. Floats become whole numbers unless it is a float type.
        padding: where `value` is filled in, "pre" or "post".
        truncating: where longer sequences are cut, "pre" or "post".
        value: the filling; the other end of the mask's story is `Embedding(mask_zero=True)` or `Masking(mask_value)`.

    Raises:
        ValueError: for anything that is no list of sequences, or sequences of unlike shape.
    """
    for name, side in (("padding", padding), ("truncating", truncating)):
        if side not in ("pre", "post"):
            raise ValueError(f"pad_sequences: {name} must be pre or post; received {side!r}")
    if maxlen is not None and maxlen < 0:
        raise ValueError(f"pad_sequences: maxlen must be >= 0; received {maxlen}")
    if isinstance(value, str) and np.dtype(dtype).kind not in "OSU":
        raise ValueError(f"pad_sequences: value {value!r} does not fit dtype {dtype!r}; strings need dtype=object")
    try:
        lengths = [len(s) for s in sequences]
    except TypeError:
        raise ValueError("pad_sequences expects a list of sequences") from None
    maxlen = max(lengths, default=0) if maxlen is None else maxlen
    step = next((np.shape(s)[1:] for s, n in zip(sequences, lengths, strict=True) if n), ())
    padded = np.full((len(lengths), maxlen, *step), value, dtype=dtype)
    for i, (sequence, length) in enumerate(zip(sequences, lengths, strict=True)):
        n = min(length, maxlen)
        if not n:
            continue
        kept = np.asarray(sequence[length - n :] if truncating == "pre" else sequence[:n], dtype=dtype)
        if kept.shape[1:] != step:
            raise ValueError(f"pad_sequences: sequence {i} has steps of shape {kept.shape[1:]}, the first of {step}")
        if padding == "pre":
            padded[i, maxlen - n :] = kept
        else:
            padded[i, :n] = kept
    return padded


def to_categorical(x: Any, num_classes: int | None = None) -> np.ndarray:
    """Class numbers (...,) or (..., 1) as one-hot rows (..., num_classes), float64.

    Raises:
        ValueError: for numbers outside [0, num_classes); None takes the largest number + 1.
    """
    x = np.asarray(x)
    x = x[..., 0] if x.ndim > 1 and x.shape[-1] == 1 else x
    labels = x.astype(np.int64)
    if (labels != x).any():
        raise ValueError("to_categorical expects whole numbers")
    if num_classes is None:
        num_classes = int(labels.max(initial=-1)) + 1
    if labels.size and not (labels.min() >= 0 and labels.max() < num_classes):
        raise ValueError(
            f"to_categorical: numbers must lie in [0, {num_classes}); received {labels.min()} to {labels.max()}"
        )
    one_hot = np.zeros((*labels.shape, num_classes))
    np.put_along_axis(one_hot, labels[..., None], 1, axis=-1)
    return one_hot


def normalize(x: Any, axis: int = -1, order: float = 2) -> np.ndarray:
    """`x` divided by its norms along `axis`; rows of zeros stay."""
    x = np.asarray(x)
    norms = np.linalg.norm(np.atleast_1d(x), order, axis, keepdims=True)
    return x / np.where(norms == 0, 1, norms)
