"""Times the cases of cases.py for every subject that is installed, and writes JSON lines.

    python -m benchmarks.run --out results.jsonl
    python -m benchmarks.report results.jsonl --plots plots > report.md

In each case every subject has a fresh process; they take turns of a fraction of a second, and a subject is stopped
while another has its turn. So whatever disturbs the machine disturbs all of them, and no pool of threads spins beside
another.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from . import install
from .cases import CORES, GROUPS, OURS, Case, Group
from .machine import Machine, cpu_name
from .processes import FORKED, SUBJECTS, Failed, Processes, Turn, missing

# Relative L2 between float32 results: sums of 1e5 terms in another order differ by this much. For `fit`: of the losses
# of the first three training steps from the same weights.
TOLERANCE = 2e-5
LOSS_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Options:
    threads: int
    turns: int
    seconds: float


@dataclass(frozen=True)
class Contestant:
    subject: str
    variant: str
    threads: int

    @property
    def label(self) -> str:
        return f"{self.subject} {self.variant}".strip()


def contestants(case: Case, subjects: list[str], options: Options) -> list[Contestant]:
    return [
        Contestant(subject, variant, int(variant) if variant.isdigit() else options.threads)
        for subject in subjects
        for variant in case.variants
    ]


def tolerance(case: Case, who: Contestant) -> float:
    """How far results may be from the first subject's; for any number of threads they are the same bits."""
    if who.variant.isdigit():
        return 0.0
    return LOSS_TOLERANCE if case.kind == "fit" else TOLERANCE


def check(case: Case, turns: dict[Contestant, Turn]) -> dict[Contestant, float]:
    """Largest relative L2 difference of any result from that of the first subject with the same input.

    Raises:
        Failed: if it is not small, naming the subjects.
    """
    first: dict[str, list[np.ndarray]] = {}
    differences = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (who, turn) in enumerate(turns.items()):
            file = Path(folder, f"{number}.npz")
            turn.ask(check=str(file))
            results = list(np.load(file).values())
            reference = first.setdefault("" if who.variant.isdigit() else who.variant, results)
            differences[who] = max(
                float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(results, reference, strict=True)
            )
    wrong = {who.label: d for who, d in differences.items() if not d <= tolerance(case, who)}
    if wrong:
        raise Failed(f"{case.name}: results differ from those of {next(iter(turns)).label} by {wrong}")
    return differences


def race(
    case: Case, group: Group, subjects: list[str], processes: Processes, options: Options
) -> Iterator[dict[str, Any]]:
    """The rows of one case: checked, then timed in turns. A subject that cannot do it gives a row that says so."""
    turns = {
        who: processes.turn(who.subject, who.variant, who.threads, case.name, fork=who.subject in FORKED)
        for who in contestants(case, subjects, options)
    }
    for who, turn in list(turns.items()):
        try:
            reason = turn.wait_until_ready()
        except Failed as failure:  # of a peer: the others go on; of ours: there is nothing to compare
            if who.subject == OURS:
                raise
            processes.stop(who.subject, who.variant)
            reason = str(failure)
        if reason is not None:
            del turns[who]
            yield _row(case, who) | {"left_out": reason}
    differences = check(case, turns)
    times: dict[Contestant, list[float]] = {who: [] for who in turns}
    for _ in range(min(options.turns, group.turns)):
        for who, turn in turns.items():
            times[who] += turn.ask(time=options.seconds)["seconds"]
    for who, turn in turns.items():
        turn.close()
        best = min(times[who])
        yield _row(case, who) | {
            "version": turn.version,
            "runs": len(times[who]),
            "difference": differences[who],
            "min_ms": best * 1e3,
            "median_ms": statistics.median(times[who]) * 1e3,
            "gflops": case.flops(who.variant) / best * 1e-9,
        }


def weigh(case: Case, subjects: list[str], processes: Processes, options: Options) -> Iterator[dict[str, Any]]:
    """The rows of a case of `memory`: each subject in a process that has done nothing else."""
    for who in contestants(case, subjects, options):
        turn = processes.turn(who.subject, who.variant, who.threads, case.name, fork=False)
        reason = turn.wait_until_ready()
        if reason is not None:
            yield _row(case, who) | {"left_out": reason}
            continue
        measured = turn.ask(memory=3)
        turn.close()
        processes.stop(who.subject, who.variant)
        yield _row(case, who) | {
            "version": turn.version,
            "before_mb": measured["before"],
            "growth_mb": measured["growth"],
        }


def _row(case: Case, who: Contestant) -> dict[str, Any]:
    return {
        "case": case.name,
        "group": case.group,
        "cell": case.cell,
        "shape": case.shape,
        "kind": case.kind,
        "variant": who.variant,
        "subject": who.subject,
        "threads": who.threads,
    }


def told(row: dict[str, Any]) -> str:
    who = f"{row['subject']} {row.get('variant', '')}".strip()
    start = f"{row.get('case', row['group']):34} {who:18}"
    if "left_out" in row:
        return f"{start} left out: {row['left_out']}"
    if "growth_mb" in row:
        return f"{start} grows by {row['growth_mb']:8.1f} MB"
    if "what" in row:
        return f"{start} {row['what']}: {row['value']:.1f} {row['unit']}"
    times = f"min {row['min_ms']:9.3f} ms  median {row['median_ms']:9.3f} ms"
    return f"{start} {times}" + (f"  {row['gflops']:6.0f} GFLOP/s" if row["gflops"] else "")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="benchmarks.jsonl")
    parser.add_argument("--cases", default="", help="comma-separated parts of case names, as LSTM/large; default: all")
    parser.add_argument("--groups", default="", help=f"of {', '.join([*GROUPS, 'install'])}; default: all")
    parser.add_argument("--subjects", default="", help=f"of {', '.join(SUBJECTS)}; default: those of each group")
    parser.add_argument("--threads", type=int, default=min(2, CORES))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.1, help="length of a turn")
    parser.add_argument("--isa", default="", help="highest instruction set; avx2 limits PyTorch and JAX as well")
    parser.add_argument("--repeats", type=int, default=1, help="of the whole; the report takes medians over them")
    options = parser.parse_args()
    for name, known in (("groups", [*GROUPS, "install"]), ("subjects", SUBJECTS)):
        wrong = set(filter(None, getattr(options, name).split(","))) - set(known)
        if wrong:
            parser.error(f"--{name}: {', '.join(sorted(wrong))} not among {', '.join(known)}")
    return options


def rows(options: argparse.Namespace, installed: list[str], machine: Machine) -> Iterator[dict[str, Any]]:
    """Once through all that is wanted."""
    groups = list(filter(None, options.groups.split(","))) or [*GROUPS, "install"]
    parts = list(filter(None, options.cases.split(",")))
    chosen = Options(options.threads, options.turns, options.seconds)
    failures = 0
    with Processes(options.isa) as processes:
        for name in groups:
            if name == "install":
                yield from install.rows(installed)
                continue
            group = GROUPS[name]
            wanted = options.subjects.split(",") if options.subjects else group.subjects
            subjects = [s for s in dict.fromkeys([OURS, *wanted]) if s in installed and s in wanted]
            cases = [c for c in group.cases if not parts or any(part in c.name for part in parts)]
            if not subjects or not cases:
                continue
            machine.measure()
            for case in cases:
                try:
                    if name == "memory":
                        yield from weigh(case, subjects, processes, chosen)
                    else:
                        yield from race(case, group, subjects, processes, chosen)
                except Failed as failure:
                    failures += 1
                    yield {"case": case.name, "group": name, "subject": "", "failed": str(failure)}
                    for who in contestants(case, subjects, chosen):
                        processes.stop(who.subject, who.variant)
    machine.measure()
    if failures:
        raise SystemExit(f"{failures} cases failed")


def main() -> None:
    options = arguments()
    lacking = {subject: missing(subject) for subject in SUBJECTS}
    installed = [subject for subject in SUBJECTS if not lacking[subject]]
    for subject, packages in lacking.items():
        if packages:
            print(f"{subject} is left out: {', '.join(packages)} not installed", flush=True)
    with open(options.out, "w") as out, tempfile.TemporaryDirectory() as folder:
        machine = Machine(Path(folder), options.threads, options.isa)

        def write(row: dict[str, Any]) -> None:
            print(json.dumps(row), file=out, flush=True)

        write(
            {
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "cpu": cpu_name(),
                "cores": os.cpu_count(),
                "isa": options.isa,
                "command": " ".join(["python -m benchmarks.run", *sys.argv[1:]]),
                "not_installed": [subject for subject in SUBJECTS if lacking[subject]],
            }
        )
        try:
            for repeat in range(options.repeats):
                for row in rows(options, installed, machine):
                    write(row | {"repeat": repeat})
                    print(row.get("failed") or told(row), flush=True)
        finally:
            write(machine.row())


if __name__ == "__main__":
    main()
