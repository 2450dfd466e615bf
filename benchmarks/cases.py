"""What is measured, as tables: groups of cases, and the inputs and weights that every subject starts from.

Sizes are B batch, T time, I features, H units; G gates. All libraries get the same float32 numbers (`Case.data`), in
Keras' layout, and what they compute from them is compared before anything is timed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

if __package__:
    from .workloads import WORKLOADS
else:  # in a child, see child.py
    from workloads import WORKLOADS

SHAPES = {  # B, T, I, H
    "tiny": (32, 50, 8, 32),
    "small": (32, 100, 64, 128),
    "ptb": (20, 35, 200, 200),
    "medium": (64, 50, 256, 256),
    "large": (64, 50, 512, 512),
    "xl": (64, 35, 1024, 1024),
    "seq128": (1, 100, 64, 128),
    "seq512": (1, 100, 512, 512),
    "stream32": (1, 20, 32, 32),
    "stream128": (1, 20, 128, 128),
    "stream512": (1, 20, 512, 512),
    "both1": (1, 100, 64, 128),
    "both32": (32, 100, 64, 128),
}
OURS = "fastrnn"
GATES = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}
LAYER_SHAPES = ("tiny", "small", "ptb", "medium", "large", "xl")


class Unsupported(Exception):
    """A subject cannot do a case; the message says why."""


class Weights(NamedTuple):
    """Of one direction: kernel (I, G*H), recurrent_kernel (H, G*H), bias (G*H,) or for GRU (2, G*H); Keras' gates."""

    kernel: np.ndarray
    recurrent_kernel: np.ndarray
    bias: np.ndarray


class Data(NamedTuple):
    x: np.ndarray  # (B, T, I)
    dy: np.ndarray  # (B, T, H), or (B, T, 2*H) with two directions: the gradient that comes back
    weights: list[Weights]  # one per direction
    lengths: np.ndarray | None  # (B,) valid steps of each row


@dataclass
class Work:
    """A case made ready by a subject.

    Attributes:
        run: does it once; this is what is timed.
        results: the numbers for the check: y, then in training dx and the gradients of the weights, in Keras' layout.
        times: of single runs for about that many seconds, where calling `run` would not tell them.
    """

    run: Callable[[], Any]
    results: Callable[[], Sequence[Any]]
    times: Callable[[float], list[float]] | None = None


@dataclass(frozen=True)
class Case:
    """One race.

    Attributes:
        group: its key in GROUPS.
        cell: LSTM, GRU or SimpleRNN; for `fit`, the name of the workload.
        shape: its key in SHAPES; "" for `fit`.
        kind: the function of a subject that makes the `Work`: forward, training, step or fit.
        variants: every subject runs each of them; "" is the plain case, a number is one of threads, "masked" has rows
            of half the length on average.
    """

    group: str
    cell: str
    shape: str
    kind: str
    variants: tuple[str, ...] = ("",)

    @property
    def name(self) -> str:
        """Group, cell, shape and kind, each word once: "forward/LSTM/tiny", "sequences/GRU/seq128/training"."""
        return "/".join(dict.fromkeys(filter(None, (self.group, self.cell, self.shape, self.kind))))

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        return SHAPES[self.shape]

    @property
    def samples(self) -> int:
        """Of an epoch of `fit`."""
        return WORKLOADS[self.cell].samples

    @property
    def directions(self) -> int:
        return 2 if self.group == "bidirectional" else 1

    def lengths(self, variant: str) -> np.ndarray | None:
        """Row lengths between 1 and T, T/2 on average; the longest row is full."""
        if variant != "masked":
            return None
        batch, time, _, _ = self.sizes
        lengths = np.linspace(1, time - 1, batch).round().astype(np.int64)
        lengths[-1] = time
        return np.random.default_rng(1).permutation(lengths)

    def flops(self, variant: str = "") -> float:
        """Multiply-adds of the products, counted twice; training does three times as many as forward.

        A streaming case runs one step at a time, a masked one the valid steps only.
        """
        if self.group == "fit":
            return 0.0
        batch, time, features, units = self.sizes
        lengths = self.lengths(variant)
        steps = 1 if self.kind == "step" else batch * time if lengths is None else int(lengths.sum())
        times = (3 if self.kind == "training" else 1) * self.directions
        return 2.0 * steps * GATES[self.cell] * units * (features + units) * times

    def weight_reads(self) -> tuple[int, int]:
        """Bytes of the weights that a step must read, and how many steps a run takes, forward and backward.

        In a sequence those are the recurrent weights: the product with x is one for all steps.
        """
        if self.group == "fit":
            return 0, 0
        _, time, features, units = self.sizes
        columns = 4 * GATES[self.cell] * units * self.directions
        if self.kind == "step":
            return columns * (features + units), 1
        return columns * units, time * (2 if self.kind == "training" else 1)

    def data(self, variant: str = "") -> Data:
        """The same numbers in every process."""
        batch, time, features, units = self.sizes
        rng = np.random.default_rng(0)
        width = GATES[self.cell] * units

        def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
            values = rng.standard_normal(shape, dtype=np.float32)
            values *= scale
            return values

        x, dy = normal(batch, time, features), normal(batch, time, units * self.directions)
        weights = [
            Weights(
                normal(features, width, scale=features**-0.5),
                normal(units, width, scale=units**-0.5),
                normal(*((2, width) if self.cell == "GRU" else (width,)), scale=0.1),
            )
            for _ in range(self.directions)
        ]
        return Data(x, dy, weights, self.lengths(variant))


@dataclass(frozen=True)
class Group:
    """A table of the report.

    Attributes:
        title: its headline.
        subjects: those that take part, ours first.
        turns: at most so many per case.
    """

    title: str
    subjects: tuple[str, ...]
    cases: tuple[Case, ...]
    turns: int = 100


INFERENCE = ("torch", "onnxruntime", "openvino")
TRAINING = ("torch", "jax")
RIVALS = {"forward": INFERENCE, "step": INFERENCE, "training": TRAINING, "fit": ("keras",)}  # by kind: the ones to beat


def _cases(group: str, shapes: Sequence[str], kinds: Sequence[str], variants: tuple[str, ...] = ("",)):
    return tuple(Case(group, c, s, k, variants) for k in kinds for c in GATES for s in shapes)


def thread_counts(cores: int) -> tuple[str, ...]:
    """1, 2, 4 ... and all cores."""
    return tuple(str(n) for n in sorted({cores} | {2**i for i in range(cores.bit_length()) if 2**i <= cores}))


CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

GROUPS = {
    "forward": Group(
        "Layer forward",
        (OURS, *INFERENCE, "jax", "keras", "numpy"),
        _cases("forward", LAYER_SHAPES, ["forward"]),
    ),
    "training": Group(
        "Layer training: forward, backward, gradients of inputs and weights",
        (OURS, *TRAINING, "keras", "numpy"),
        _cases("training", LAYER_SHAPES, ["training"]),
    ),
    "sequences": Group(
        "One long sequence: a batch of one row",
        (OURS, *INFERENCE, "jax"),
        _cases("sequences", ["seq128", "seq512"], ["forward", "training"]),
    ),
    "streaming": Group(
        "Streaming: one step of one row, the state fed back",
        (OURS, *INFERENCE, "numpy"),
        _cases("streaming", ["stream32", "stream128", "stream512"], ["step"]),
    ),
    "bidirectional": Group(
        "Bidirectional",
        (OURS, *INFERENCE, "jax"),
        tuple(Case("bidirectional", "LSTM", s, k) for k in ("forward", "training") for s in ("both1", "both32")),
    ),
    "masked": Group(
        "Rows of half the length on average",
        (OURS, *INFERENCE),
        _cases("masked", ["medium"], ["forward", "training"], ("masked", "full")),
    ),
    "threads": Group(
        "Threads",
        (OURS,),
        _cases("threads", LAYER_SHAPES[1:], ["forward", "training"], thread_counts(CORES)),
        turns=3,
    ),
    "fit": Group(
        "fit of six models of Keras' example scripts",
        (OURS, "keras"),
        tuple(Case("fit", name, "", "fit") for name in WORKLOADS),
        turns=3,
    ),
    "memory": Group(
        "Peak memory of a training step",
        (OURS, "torch"),
        tuple(Case("memory", cell, "large", "training") for cell in GATES),
    ),
}
