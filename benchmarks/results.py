"""What run.py has written, and the figures that the report's tables and plots show of it."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from .cases import GROUPS, OURS, Case

CASES = {case.name: case for group in GROUPS.values() for case in group.cases}


def geometric_mean(values: Iterable[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return math.exp(sum(map(math.log, known)) / len(known)) if known else math.nan


class Results:
    """The rows of a run.

    Attributes:
        about: date, machine, command.
        machine: the limits; rates are zero where they were not measured.
        rows: everything measured, left out or failed.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self.about, *rows = map(json.loads, lines)
        self.machine: dict[str, Any] = next((r["machine"] for r in rows if "machine" in r), {})
        self.rows: list[dict[str, Any]] = [r for r in rows if "machine" not in r]

    @cached_property
    def _values(self) -> dict[tuple[str, str, str], dict[int, dict[str, float]]]:
        """By case, subject and variant: of each repetition its row."""
        found: dict[tuple[str, str, str], dict[int, dict[str, float]]] = {}
        for row in self.rows:
            if "min_ms" in row or "growth_mb" in row:
                key = row["case"], row["subject"], row["variant"]
                found.setdefault(key, {})[row.get("repeat", 0)] = row
        return found

    def cases(self, group: str, kind: str | None = None) -> list[Case]:
        """Those of a group that were measured, in the order of the table."""
        done = {case for case, _, _ in self._values}
        return [c for c in GROUPS[group].cases if c.name in done and kind in (None, c.kind)]

    def subjects(self, cases: Iterable[Case]) -> list[str]:
        """Those but ours that took part in any of these cases, in the order of the group."""
        names = {case.name for case in cases}
        group = next((c.group for c in cases), None)
        present = {subject for case, subject, _ in self._values if case in names} - {OURS}
        order = list(GROUPS[group].subjects) if group else []
        return sorted(present, key=lambda s: (order.index(s) if s in order else len(order), s))

    def value(self, case: Case, subject: str, what: str = "min_ms", variant: str = "") -> float:
        """The median over the repetitions; NaN if there is none."""
        rows = self._values.get((case.name, subject, variant), {})
        return statistics.median(row[what] for row in rows.values()) if rows else math.nan

    def ratio(
        self,
        case: Case,
        over: Iterable[tuple[str, str]],
        under: tuple[str, str] = (OURS, ""),
        what: str = "min_ms",
    ) -> float:
        """The least of `over` by `under`, subjects with their variants, in each repetition; of these the median.

        NaN if either was never measured.
        """
        rivals = [rows for key in over if (rows := self._values.get((case.name, *key)))]
        own = self._values.get((case.name, *under), {})
        ratios = [
            min(rows[repeat][what] for rows in rivals if repeat in rows) / own[repeat][what]
            for repeat in own
            if any(repeat in rows for rows in rivals)
        ]
        return statistics.median(ratios) if ratios else math.nan

    def limit(self, case: Case, variant: str = "") -> tuple[float, str]:
        """The least time in ms that the machine's limits allow a case, and which of them: "FMA" or "reads".

        Multiply-adds at the peak of all threads; or the weights that a step must read, by all threads together, each
        part of them from the nearest cache that can hold it. NaN where the limits are not known.
        """
        machine = self.machine
        if not machine.get("flops"):
            return math.nan, ""
        left, times = case.weight_reads()
        read = 0.0
        nearest_first = {"l2": machine["l2_bytes"] * machine["threads"], "l3": machine["l3_bytes"], "memory": math.inf}
        for level, capacity in nearest_first.items():
            here = min(left, capacity) if machine[level] else 0
            read += here * times / machine[level] * 1e3 if here else 0.0
            left -= here
        return max((case.flops(variant) / machine["flops"] * 1e3, "FMA"), (read, "reads"))
