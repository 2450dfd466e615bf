"""The gradients of every kernel are the slopes of what it computes, in float64, over random configurations.

The loss is a weighted sum of everything a kernel returns. For each tensor (x, the initial states, the three weights)
it is differentiated along one random direction that moves every entry, and compared with the gradient along it.
"""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import pytest
import reference
from kernel_cases import BUILDS, CELLS, DIRECTIONS, MASKS, Case, draw, pack, run_backward, run_forward

from fastrnn._core import kernels

CONFIGURATIONS = 100
STEP = 5e-4
STENCIL = {2: -1 / 12, 1: 2 / 3, -1: -2 / 3, -2: 1 / 12}
KINKED = ("relu", "hard_sigmoid", "elu", "selu", "softsign")  # of softsign, the second derivative jumps
UNBOUNDED = ("relu", "linear", "elu", "selu", "softplus", "exponential")


def draw_configuration(rng: np.random.Generator, cell: str, number: int) -> Case:
    """Configuration `number` of `cell`: the 100 cover every pair of activations, everything else is drawn."""
    inner = kernels.activations[number % len(kernels.activations)]
    outer = kernels.activations[number // len(kernels.activations)]
    steps = (1, 2, 2) if "exponential" in (inner, outer) else (1, 2, 3, 4) if inner in UNBOUNDED else (1, 2, 5, 8)
    direction = rng.choice(list(DIRECTIONS))
    return draw(
        rng,
        cell,
        batch=int(rng.choice((1, 2, 3, 5, 6))),
        time=int(rng.choice(steps)),
        features=int(rng.choice((1, 2, 3, 7))),
        units=int(rng.choice((1, 2, 3, 5, 9, 17))),
        mask=str(rng.choice((*MASKS, "none", "holes", "holes"))),
        bias=bool(rng.random() < 0.8),
        initial=bool(rng.random() < 0.7),
        dropout=str(rng.choice(("none", "none", "shared", "gates", "recurrent", "both", "mixed"))),
        gradients=str(rng.choice(("slf", "s", "l", "f", "c", "sl", "lf"))),
        gain=0.5 if {inner, outer} & set(UNBOUNDED) else 1.0,
        activation=inner,
        recurrent_activation=outer,
        zero_output_for_mask=bool(rng.random() < 0.3),
        **DIRECTIONS[direction],
    )


@cache
def configuration(cell: str, number: int) -> tuple[Case, dict[str, np.ndarray]]:
    """A case, and a direction of length 1 for each of its tensors along which no activation meets a kink."""
    rng = np.random.default_rng([7, CELLS.index(cell), number])
    while True:
        case = draw_configuration(rng, cell, number)
        directions = {
            name: rng.choice((-1.0, 1.0), tensor.shape) / np.sqrt(tensor.size) for name, tensor in tensors(case).items()
        }
        if all(stays_off_kinks(case, name, along) for name, along in directions.items()):
            return case, directions


def tensors(case: Case) -> dict[str, np.ndarray]:
    """What the loss depends on, under the names their gradients have in a run."""
    found = {"dx": case.x, "dkernel": case.kernel, "drecurrent_kernel": case.recurrent_kernel}
    if case.bias is not None:
        found["dbias"] = case.bias
    return {**found, **{f"dinitial_{i}": s for i, s in enumerate(case.initial_state or ())}}


def moved(case: Case, name: str, by: np.ndarray) -> Case:
    if name.startswith("dinitial"):
        assert case.initial_state is not None
        states = list(case.initial_state)
        states[int(name[-1])] = states[int(name[-1])] + by
        return case.with_(initial_state=tuple(states))
    return case.with_(**{name[1:]: getattr(case, name[1:]) + by})


def loss(case: Case, isa: str) -> float:
    outputs, _ = run_forward(case, pack(case, isa), record=False)
    weights = {"sequence": case.dsequence, "last": case.dlast}
    weights |= {f"final_{i}": d for i, d in enumerate(case.dfinal or ())}
    return sum(float(np.sum(outputs[name] * d)) for name, d in weights.items() if d is not None)


def stays_off_kinks(case: Case, name: str, along: np.ndarray) -> bool:
    if not {case.options["activation"], case.options["recurrent_activation"]} & set(KINKED):
        return True
    return len({sides(moved(case, name, k * STEP * along)) for k in (0, *STENCIL)}) == 1


def sides(case: Case) -> bytes:
    """On which side of their kinks the activations are during a forward pass."""
    seen: list[bytes] = []

    def watch(name: str) -> reference.Activation:
        plain = reference.ACTIVATIONS[name]

        def of(x: np.ndarray) -> np.ndarray:
            seen.append((np.abs(x) < 3 if name == "hard_sigmoid" else x > 0).tobytes())
            return plain.of(x)

        return reference.Activation(of, plain.slope)

    with pytest.MonkeyPatch.context() as patch:
        for name in KINKED:
            patch.setitem(reference.ACTIVATIONS, name, watch(name))
        reference.forward(case.cell, case.x, *case.weights(), **case.arguments())
    return b"".join(seen)


@pytest.mark.parametrize("isa", BUILDS)
@pytest.mark.parametrize("number", range(CONFIGURATIONS))
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_are_slopes(cell, number, isa):
    case, directions = configuration(cell, number)
    packed = pack(case, isa)
    gradients = run_backward(case, packed, run_forward(case, packed)[1])
    for name, along in directions.items():
        slope = sum(w * loss(moved(case, name, k * STEP * along), isa) for k, w in STENCIL.items()) / STEP
        expected, size = np.sum(gradients[name] * along), np.linalg.norm(gradients[name]) / np.sqrt(along.size)
        wrong = abs(slope - expected) / (size + 1e-3)
        assert wrong < 1e-7, f"{name}: the slope is {slope:.10g}, the gradient says {expected:.10g} ({wrong:.1e})"


def test_configurations_reach_every_option():
    cases = [configuration(cell, number)[0] for cell in CELLS for number in range(CONFIGURATIONS)]
    assert len(cases) >= 300
    seen = Counter()
    for case in cases:
        seen.update(f"{axis} = {n}" for axis, n in zip("BTDH", case.shape, strict=True) if n in (1, 7, 9, 17))
        seen.update(f"{name} {value}" for name, value in case.options.items())
        seen.update(name for name, value in vars(case).items() if value is None)
        if case.mask is not None:
            valid = case.mask.astype(int)
            seen["holes"] += bool(np.any(np.diff(valid, axis=1) > 0) and np.any(np.diff(valid, axis=1) < 0))
            seen["a row without a valid step"] += bool(np.any(valid.sum(1) == 0))
        if case.input_dropout is not None:
            seen[f"input dropout by gate: {len(case.input_dropout) > 1}"] += 1
    wanted = [
        *("B = 1", "T = 1", "D = 1", "H = 1", "D = 7", "H = 9", "H = 17", "holes", "a row without a valid step"),
        *(f"activation {name}" for name in kernels.activations),
        *(f"recurrent_activation {name}" for name in kernels.activations),
        *("go_backwards True", "original_time True", "zero_output_for_mask True", "zero_output_for_mask False"),
        *("bias", "initial_state", "mask", "recurrent_dropout", "dsequence", "dlast", "dfinal"),
        *("input dropout by gate: False", "input dropout by gate: True"),
    ]
    assert {name: seen[name] for name in wanted if seen[name] < 10} == {}
