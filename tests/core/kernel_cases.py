"""One call of a recurrent kernel as a value: drawn at random, run by the kernel or by the reference, compared.

A run gives a dictionary of arrays: outputs are "sequence", "last", "final_0", "final_1"; gradients are "dx",
"dkernel", "drecurrent_kernel", "dbias", "dinitial_0", "dinitial_1".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import reference

from fastrnn._core import kernels

CELLS = tuple(kernels.cells)
BUILDS = kernels.available
MASKS = ("none", "right", "left", "holes", "first", "row")
DIRECTIONS = {
    "forwards": {},
    "backwards": {"go_backwards": True},
    "flipped": {"go_backwards": True, "original_time": True},
}
BOUNDED = ("tanh", "sigmoid", "hard_sigmoid", "softsign")
OUTPUTS = ("sequence", "last", "final_0", "final_1")

Run = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """The arguments of `forward` and `backward`. Optional ones are None."""

    cell: str
    x: np.ndarray
    kernel: np.ndarray
    recurrent_kernel: np.ndarray
    bias: np.ndarray | None
    initial_state: tuple[np.ndarray, ...] | None
    mask: np.ndarray | None
    input_dropout: np.ndarray | None
    recurrent_dropout: np.ndarray | None
    options: dict[str, Any]
    dsequence: np.ndarray | None
    dlast: np.ndarray | None
    dfinal: tuple[np.ndarray | None, ...] | None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, T, D, H)"""
        return (*self.x.shape, len(self.recurrent_kernel))

    def with_(self, **changes: Any) -> Case:
        return replace(self, **changes)

    def astype(self, dtype: Any) -> Case:
        return replace(self, **{k: _cast(v, dtype) for k, v in vars(self).items()})

    def weights(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        return self.kernel, self.recurrent_kernel, self.bias

    def arguments(self) -> dict[str, Any]:
        return {
            "initial_state": self.initial_state,
            "mask": self.mask,
            "input_dropout": self.input_dropout,
            "recurrent_dropout": self.recurrent_dropout,
            **self.options,
        }


def _cast(value: Any, dtype: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_cast(v, dtype) for v in value)
    return value.astype(dtype) if isinstance(value, np.ndarray) and value.dtype != bool else value


# Drawing


def draw(
    rng: np.random.Generator,
    cell: str,
    batch: int,
    time: int,
    features: int,
    units: int,
    *,
    mask: str = "none",
    bias: bool = True,
    initial: bool = True,
    dropout: str = "none",
    gradients: str = "slf",
    gain: float = 1.0,
    **options: Any,
) -> Case:
    """A case with weights as the usual initializers give them, times `gain`.

    `dropout` is "none", "shared" (one mask on x for all gates), "gates" (one on x for each), "recurrent", "both" (one
    on x and one on h for each gate) or "mixed" (one on x for all, one on h for each). `gradients` names which come in:
    s(equence), l(ast), f(inal), and c for the last state's final gradient alone.
    """
    about = kernels.cells[cell]
    gates = len(about.gates)
    limit = np.sqrt(6 / (features + gates * units))
    orthogonal = np.linalg.qr(rng.normal(size=(gates * units, units)))[0].T
    finals = [rng.normal(size=(batch, units)) for _ in range(about.states)]
    return Case(
        cell=cell,
        x=rng.normal(size=(batch, time, features)),
        kernel=gain * rng.uniform(-limit, limit, (features, gates * units)),
        recurrent_kernel=gain * np.ascontiguousarray(orthogonal),
        bias=gain * rng.uniform(-0.5, 0.5, (2, gates * units) if about.bias_rows == 2 else gates * units)
        if bias
        else None,
        initial_state=tuple(rng.uniform(-0.9, 0.9, (batch, units)) for _ in range(about.states)) if initial else None,
        mask=draw_mask(rng, mask, batch, time),
        input_dropout=_keep(rng, 1 if dropout in ("shared", "mixed") else gates, batch, features)
        if dropout in ("shared", "gates", "both", "mixed")
        else None,
        recurrent_dropout=_keep(rng, gates, batch, units) if dropout in ("recurrent", "both", "mixed") else None,
        options=options,
        dsequence=rng.normal(size=(batch, time, units)) if "s" in gradients else None,
        dlast=rng.normal(size=(batch, units)) if "l" in gradients else None,
        dfinal=tuple(finals)
        if "f" in gradients
        else (*[None] * (about.states - 1), finals[-1])
        if "c" in gradients
        else None,
    )


def draw_mask(rng: np.random.Generator, kind: str, batch: int, time: int) -> np.ndarray | None:
    """(B, T) bool. "first" masks both ends of every row, so that it is the first step in either direction."""
    if kind == "none":
        return None
    lengths = rng.integers(1, time + 1, batch)[:, None]
    if kind == "right":
        return np.arange(time) < lengths
    if kind == "left":
        return np.arange(time) >= time - lengths
    mask = rng.random((batch, time)) < 0.6
    if kind == "first":
        mask[:, [0, -1]] = False
    if kind == "row":
        mask[[0, -1]] = False
    return mask


def _keep(rng: np.random.Generator, *shape: int, rate: float = 0.4) -> np.ndarray:
    return (rng.random(shape) >= rate) / (1 - rate)


# Running


def by_reference(case: Case) -> Run:
    sequence, final, last, tape = reference.forward(case.cell, case.x, *case.weights(), **case.arguments())
    gradients = reference.backward(tape, case.dsequence, case.dlast, case.dfinal)
    run = {
        "sequence": sequence,
        "last": last,
        "dx": gradients.x,
        "dkernel": gradients.kernel,
        "drecurrent_kernel": gradients.recurrent_kernel,
        **{f"final_{i}": s for i, s in enumerate(final)},
        **{f"dinitial_{i}": s for i, s in enumerate(gradients.initial_state)},
    }
    return run if case.bias is None else {**run, "dbias": gradients.bias}


def pack(case: Case, isa: str | None = None) -> Any:
    return kernels.pack(case.cell, *case.weights(), backward=True, isa=isa)


def run_forward(case: Case, packed: Any, threads: int = 1, **keywords: Any) -> tuple[Run, Any]:
    sequence, final, last, tape = kernels.forward(
        packed, case.x, **{"record": True, **case.arguments(), **keywords}, threads=threads
    )
    outputs = {} if sequence is None else {"sequence": sequence}
    return {**outputs, "last": last, **{f"final_{i}": s for i, s in enumerate(final)}}, tape


def run_backward(
    case: Case, packed: Any, tape: Any, threads: int = 1, input_gradient: bool = True, before: Run | None = None
) -> Run:
    """The gradients of the weights overwrite what was there or, if that is given as `before`, are added to it."""
    weights = {"dkernel": case.kernel, "drecurrent_kernel": case.recurrent_kernel, "dbias": case.bias}
    into = {name: np.full_like(w, np.nan) for name, w in weights.items() if w is not None}
    if before is not None:
        into = {name: before[name].copy() for name in into}
    dx, dinitial = kernels.backward(
        packed,
        tape,
        case.dsequence,
        case.dlast,
        case.dfinal,
        **into,
        accumulate=before is not None,
        input_gradient=input_gradient,
        threads=threads,
    )
    run = {**into, **{f"dinitial_{i}": s for i, s in enumerate(dinitial)}}
    return run if dx is None else {**run, "dx": dx}


def by_kernel(case: Case, isa: str | None = None, threads: int = 1) -> Run:
    packed = pack(case, isa)
    outputs, tape = run_forward(case, packed, threads)
    return {**outputs, **run_backward(case, packed, tape, threads)}


# Comparing


def error(value: np.ndarray, expected: np.ndarray) -> float:
    """||error|| / (||expected|| + scale): relative, except for tensors whose entries are below a hundredth."""
    if value.shape != expected.shape:
        raise AssertionError(f"shape {value.shape}, expected {expected.shape}")
    scale = 0.01 * np.sqrt(expected.size)
    return float(np.linalg.norm(value - expected) / (np.linalg.norm(expected) + scale))


def assert_close(run: Run, expected: Run, dtype: Any) -> None:
    """Float64: 1e-12 for everything. Float32: 5e-6 for outputs, 2e-5 for gradients."""
    assert run.keys() == expected.keys()
    double = np.dtype(dtype) == np.float64
    for name, value in run.items():
        assert value.dtype == dtype and value.flags.c_contiguous, name
        bound = 1e-12 if double else 5e-6 if name in OUTPUTS else 2e-5
        found = error(value, expected[name])
        assert found <= bound, f"{name}: error {found:.2e} > {bound:.0e}"


def assert_same_bits(run: Run, expected: Run) -> None:
    assert run.keys() == expected.keys()
    for name, value in run.items():
        other = expected[name]
        assert value.dtype == other.dtype and value.shape == other.shape, name
        assert value.tobytes() == other.tobytes(), f"{name}: {np.sum(value != other)} of {value.size} values differ"
