"""Fits the polynomials in fastrnn/_core/src/activations.h and prints them as C.

Every fit asks for the polynomial P, with powers 0..degree, that makes the largest relative error of

    e^r - 1    = r / (C - r/2),  C = 1 + r^2 P(r^2)         |r| <= ln(2)/2;  C stands for r/2 coth(r/2), which is even
    log(1 + z) = g + g^3 P(g^2),  g = 2 z / (2 + z)         0 <= z <= 1

as small as possible. The terms in front are exact, so that P only has to be right where it matters. The error is a
linear function of the coefficients (in C to first order), so Remez' exchange finds the optimum: solve for equal errors
of alternating sign on degree + 2 points, move the points to where the error is largest, repeat. All in 60 digits; the
coefficients are rounded at the end, the highest power first, and those below are fitted again around the rounded ones.

Run: python benchmarks/kernels/fit_activations.py      (needs mpmath)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from mpmath import mp, mpf

mp.dps = 60
GRID = 1200  # points on which the extrema of an error curve are looked for


@dataclass
class Problem:
    """One fit: |wanted(x) - P(x)| * weight(x) is to be small on [low, high]."""

    name: str
    wanted: Callable[[mpf], mpf]
    weight: Callable[[mpf], mpf]
    low: mpf
    high: mpf


def chebyshev_points(low: mpf, high: mpf, count: int) -> list[mpf]:
    """The extrema of the Chebyshev polynomial of degree count - 1, moved to [low, high], rising."""
    middle, half = (low + high) / 2, (high - low) / 2
    return [middle - half * mp.cos(mp.pi * k / (count - 1)) for k in range(count)]


def evaluate(powers: list[int], coefficients: list[mpf], x: mpf) -> mpf:
    return mp.fsum(c * x**k for k, c in zip(powers, coefficients, strict=True))


def extrema(values: list[mpf]) -> list[int]:
    """The place of the largest magnitude in each run of one sign."""
    places = [0]
    for k in range(1, len(values)):
        if (values[k] > 0) != (values[places[-1]] > 0):
            places.append(k)
        elif abs(values[k]) > abs(values[places[-1]]):
            places[-1] = k
    return places


def remez(problem: Problem, powers: list[int], fixed: dict[int, mpf]) -> list[mpf]:
    """The best coefficients of `powers` when those in `fixed` are given."""

    def target(x: mpf) -> mpf:
        return problem.wanted(x) - evaluate(list(fixed), list(fixed.values()), x)

    grid = chebyshev_points(problem.low, problem.high, GRID)
    targets, weights = [target(x) for x in grid], [problem.weight(x) for x in grid]
    points = chebyshev_points(problem.low, problem.high, len(powers) + 1)
    for _ in range(12):
        rows = [[x**k for k in powers] + [(-1) ** i / problem.weight(x)] for i, x in enumerate(points)]
        solution = mp.lu_solve(mp.matrix(rows), mp.matrix([target(x) for x in points]))
        coefficients = list(solution)[:-1]
        errors = [(t - evaluate(powers, coefficients, x)) * w for x, t, w in zip(grid, targets, weights, strict=True)]
        places = extrema(errors)
        while len(places) > len(points):  # more swings than needed: drop the smaller end
            places.pop(0 if abs(errors[places[0]]) < abs(errors[places[-1]]) else -1)
        if len(places) < len(points):
            break
        points = [grid[k] for k in places]
    return coefficients


def fit(problem: Problem, degree: int, dtype: type) -> None:
    """Prints the rounded coefficients, lowest power first, and the error they leave."""
    fixed: dict[int, mpf] = {}
    for power in range(degree, -1, -1):
        free = list(range(power + 1))
        fixed[power] = mpf(float(dtype(remez(problem, free, fixed)[-1])))
    powers = list(fixed)
    error = max(
        abs(problem.wanted(x) - evaluate(powers, list(fixed.values()), x)) * problem.weight(x)
        for x in chebyshev_points(problem.low, problem.high, GRID)
    )
    digits, suffix = (9, "f") if dtype is np.float32 else (17, "")
    print(f"{problem.name}, {dtype.__name__}, degree {degree}: relative error {float(error):.2g}")
    for power in range(degree + 1):
        print(f"    {float(fixed[power]):.{digits}g}{suffix},")


def problems() -> tuple[Problem, Problem]:
    tiny = mpf(10) ** -12  # both functions are smooth at 0 but written as quotients
    edge = mp.log(2) / 2 * mpf("1.0001")  # the rounding of x log2(e) to an integer is itself rounded
    expm1 = Problem(
        "expm1",
        lambda u: (mp.sqrt(u) / 2 * mp.coth(mp.sqrt(u) / 2) - 1) / u,
        lambda u: u / (mp.sqrt(u) / 2 * mp.coth(mp.sqrt(u) / 2) - mp.sqrt(u) / 2),
        tiny,
        edge**2,
    )
    log1p = Problem(
        "log1p",
        lambda u: (mp.atanh(mp.sqrt(u) / 2) * 2 / mp.sqrt(u) - 1) / u,
        lambda u: u * mp.sqrt(u) / (2 * mp.atanh(mp.sqrt(u) / 2)),
        tiny,
        mpf(4) / 9 * mpf("1.0001"),
    )
    return expm1, log1p


if __name__ == "__main__":
    expm1, log1p = problems()
    for degree, dtype in [(1, np.float32), (4, np.float64)]:
        fit(expm1, degree, dtype)
    for degree, dtype in [(3, np.float32), (9, np.float64)]:
        fit(log1p, degree, dtype)
