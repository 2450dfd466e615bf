"""Initial values of weights: `initializer(shape, dtype, rng) -> array`.

Random initializers draw in float64 and round, so that a float32 and a float64 layer of one seed start from the same
numbers. With `seed=None` every call draws anew from the global stream (`rng.set_random_seed`); with a seed every call
gives the same values. Wherever an initializer is expected, a name, an array, or a function of (shape, dtype) also does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import config, registry
from . import rng as streams
from .registry import Configurable, register

Shape = Sequence[int]

stand_in: ContextVar[Callable[[tuple[int, ...], Any, str], np.ndarray] | None] = ContextVar("stand_in", default=None)
"""While it is set, it gives what `initial_values` returns: (shape, dtype, what) -> array. Saved models draw nothing."""


@dataclass(eq=False, repr=False)
class Initializer(Configurable):
    """Base class: subclasses give `draw`."""

    kind = "initializer"

    def __call__(self, shape: Shape, dtype: Any = None, rng: np.random.Generator | None = None) -> np.ndarray:
        """Values of `shape` and `dtype` (None: floatx). A generator `rng` goes before the initializer's own seed."""
        shape = tuple(int(n) for n in shape)
        values = self.draw(shape, rng if rng is not None else self._generator())
        return np.ascontiguousarray(values, dtype=config.float_dtype(dtype))

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__} must define draw(shape, rng)")

    def _generator(self) -> np.random.Generator:
        seed = getattr(self, "seed", None)
        return streams.generator(streams.new_seed() if seed is None else seed)


@dataclass(eq=False, repr=False)
class _Fixed(Initializer):
    """Draws nothing, and leaves the global stream where it is."""

    def _generator(self) -> Any:
        return None


@register("initializer", "zero")
class Zeros(_Fixed):
    """0 everywhere."""

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return np.zeros(shape)


@register("initializer", "one")
class Ones(_Fixed):
    """1 everywhere."""

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return np.ones(shape)


@register("initializer")
@dataclass(eq=False, repr=False)
class Constant(_Fixed):
    """`value` everywhere; or an array of the weight's shape, such as pretrained embeddings."""

    value: Any = 0.0

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        value = np.asarray(self.value)
        if value.ndim and value.shape != shape:
            raise ValueError(f"Constant holds values of shape {value.shape}; the weight has shape {shape}")
        return np.broadcast_to(value, shape)

    def get_config(self) -> dict[str, Any]:
        return {"value": np.asarray(self.value).tolist()}

    def __repr__(self) -> str:
        value = np.asarray(self.value)
        return f"Constant(<array of shape {value.shape}>)" if value.ndim else f"Constant({value.item()})"


@register("initializer", "IdentityInitializer")
@dataclass(eq=False, repr=False)
class Identity(_Fixed):
    """`gain` on the diagonal of a matrix, zero elsewhere."""

    gain: float = 1.0

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        if len(shape) != 2:
            raise ValueError(f"Identity makes matrices; received the shape {shape}")
        return self.gain * np.eye(*shape)


@register("initializer", "normal")
@dataclass(eq=False, repr=False)
class RandomNormal(Initializer):
    """Normal with `mean` and `stddev`."""

    mean: float = 0.0
    stddev: float = 0.05
    seed: int | None = None

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return rng.normal(self.mean, self.stddev, shape)


@register("initializer", "uniform")
@dataclass(eq=False, repr=False)
class RandomUniform(Initializer):
    """Uniform on [minval, maxval)."""

    minval: float = -0.05
    maxval: float = 0.05
    seed: int | None = None

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return rng.uniform(self.minval, self.maxval, shape)


@register("initializer")
@dataclass(eq=False, repr=False)
class TruncatedNormal(Initializer):
    """Normal with `mean` and `stddev`, draws further than two `stddev` from the mean drawn again."""

    mean: float = 0.0
    stddev: float = 0.05
    seed: int | None = None

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return self.mean + self.stddev * _truncated_normal(shape, rng)


@dataclass(eq=False, repr=False)
class _Scaled(Initializer):
    """Variance `scale / n`, where n is fan in, fan out or their mean."""

    def _rule(self) -> tuple[float, str, str]:
        """(scale, mode, distribution)"""
        raise NotImplementedError

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        scale, mode, distribution = self._rule()
        fan_in, fan_out = fans(shape, getattr(self, "input_axes", None), getattr(self, "output_axes", None))
        n = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]
        stddev = math.sqrt(scale / max(1.0, n))
        if distribution == "uniform":
            limit = math.sqrt(3) * stddev
            return rng.uniform(-limit, limit, shape)
        if distribution == "untruncated_normal":
            return rng.normal(0.0, stddev, shape)
        return stddev / TRUNCATED_STDDEV * _truncated_normal(shape, rng)


MODES = ("fan_in", "fan_out", "fan_avg")
DISTRIBUTIONS = ("uniform", "truncated_normal", "untruncated_normal")
TRUNCATED_STDDEV = 0.87962566103423978  # of the standard normal cut at two standard deviations


@register("initializer")
@dataclass(eq=False, repr=False)
class VarianceScaling(_Scaled):
    """Variance `scale / n`, n by `mode` ("fan_in", "fan_out", "fan_avg"), and by `distribution` "uniform",
    "truncated_normal" or "untruncated_normal"."""

    scale: float = 1.0
    mode: str = "fan_in"
    distribution: str = "truncated_normal"
    seed: int | None = None
    input_axes: Sequence[int] | None = None
    output_axes: Sequence[int] | None = None

    def __post_init__(self) -> None:
        self.distribution = "truncated_normal" if self.distribution == "normal" else self.distribution
        if not self.scale > 0:
            raise ValueError(f"VarianceScaling: scale must be positive; received {self.scale!r}")
        if self.mode not in MODES:
            raise ValueError(f"VarianceScaling: mode must be one of {', '.join(MODES)}; received {self.mode!r}")
        if self.distribution not in DISTRIBUTIONS:
            expected = ", ".join(DISTRIBUTIONS)
            raise ValueError(f"VarianceScaling: distribution must be one of {expected}; received {self.distribution!r}")

    def _rule(self) -> tuple[float, str, str]:
        return self.scale, self.mode, self.distribution


@dataclass(eq=False, repr=False)
class _Named(_Scaled):
    """The rules that have names: only the seed and the axes are left to choose."""

    seed: int | None = None
    input_axes: Sequence[int] | None = None
    output_axes: Sequence[int] | None = None


@register("initializer")
class GlorotUniform(_Named):
    """Uniform with variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010)."""

    def _rule(self) -> tuple[float, str, str]:
        return 1.0, "fan_avg", "uniform"


@register("initializer")
class GlorotNormal(_Named):
    """Truncated normal with variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010)."""

    def _rule(self) -> tuple[float, str, str]:
        return 1.0, "fan_avg", "truncated_normal"


@register("initializer")
class HeUniform(_Named):
    """Uniform with variance 2 / fan_in (He et al. 2015)."""

    def _rule(self) -> tuple[float, str, str]:
        return 2.0, "fan_in", "uniform"


@register("initializer")
class HeNormal(_Named):
    """Truncated normal with variance 2 / fan_in (He et al. 2015)."""

    def _rule(self) -> tuple[float, str, str]:
        return 2.0, "fan_in", "truncated_normal"


@register("initializer")
class LecunUniform(_Named):
    """Uniform with variance 1 / fan_in (LeCun et al. 1998)."""

    def _rule(self) -> tuple[float, str, str]:
        return 1.0, "fan_in", "uniform"


@register("initializer")
class LecunNormal(_Named):
    """Truncated normal with variance 1 / fan_in (LeCun et al. 1998)."""

    def _rule(self) -> tuple[float, str, str]:
        return 1.0, "fan_in", "truncated_normal"


@register("initializer", "OrthogonalInitializer")
@dataclass(eq=False, repr=False)
class Orthogonal(Initializer):
    """`gain` times a random matrix with orthonormal columns, or rows where there are fewer rows than columns.

    The axes before the last count as one. The shape is taken as a whole: of an LSTM's (H, 4H) the rows are
    orthonormal, its four (H, H) blocks alone are not (Saxe et al. 2014).
    """

    gain: float = 1.0
    seed: int | None = None

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        if len(shape) < 2:
            raise ValueError(f"Orthogonal needs a shape of two axes or more; received {shape}")
        rows, columns = math.prod(shape[:-1]), shape[-1]
        q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
        q *= np.where(np.diagonal(r) < 0, -1.0, 1.0)
        return self.gain * (q.T if rows < columns else q).reshape(shape)


def fans(
    shape: Shape, input_axes: Sequence[int] | None = None, output_axes: Sequence[int] | None = None
) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight: its last two axes, times the axes before them (a convolution's window)."""
    if input_axes is not None and output_axes is not None:
        return math.prod(shape[a] for a in input_axes), math.prod(shape[a] for a in output_axes)
    if len(shape) < 2:
        n = shape[0] if shape else 1
        return n, n
    window = math.prod(shape[:-2])
    return shape[-2] * window, shape[-1] * window


def _truncated_normal(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    values = rng.standard_normal(math.prod(shape))
    far = np.flatnonzero(np.abs(values) > 2)
    while far.size:
        values[far] = rng.standard_normal(far.size)
        far = far[np.abs(values[far]) > 2]
    return values.reshape(shape)


def get(identifier: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """An initializer from a name, a configuration, a class, an array, a function of (shape, dtype), or itself."""
    if isinstance(identifier, (np.ndarray, np.generic, list, tuple, int, float)):
        return Constant(identifier)
    found = registry.get("initializer", identifier, custom_objects)
    if found is not None and not callable(found):
        raise ValueError(f"an initializer is a name, an array or a function of (shape, dtype); received {identifier!r}")
    return found


def initial_values(
    initializer: Any, shape: Shape, dtype: Any, *, what: str = "weight", rng: np.random.Generator | None = None
) -> np.ndarray:
    """The initial values of one weight; `initializer` as in `get`, None means glorot_uniform.

    Raises:
        ValueError: naming `what`, if a user's array or function gives another shape.
    """
    given = stand_in.get()
    if given is not None:
        return given(tuple(shape), dtype, what)
    initializer = GlorotUniform() if initializer is None else get(initializer)
    if isinstance(initializer, Initializer):
        return initializer(shape, dtype, rng)
    values = np.asarray(initializer(tuple(shape), dtype))
    if values.shape != tuple(shape):
        raise ValueError(f"{what} has shape {tuple(shape)}; its initializer gave values of shape {values.shape}")
    return np.ascontiguousarray(values, dtype=config.float_dtype(dtype))


zeros, ones, constant, identity = Zeros, Ones, Constant, Identity
random_normal, random_uniform, truncated_normal = RandomNormal, RandomUniform, TruncatedNormal
variance_scaling, orthogonal = VarianceScaling, Orthogonal
glorot_uniform, glorot_normal = GlorotUniform, GlorotNormal
he_uniform, he_normal = HeUniform, HeNormal
lecun_uniform, lecun_normal = LecunUniform, LecunNormal
