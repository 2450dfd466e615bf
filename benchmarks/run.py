"""Times the cases of cases.py for every subject and writes JSON lines.

    python -m benchmarks.run --out results.jsonl [--cases GRU/large] [--subjects fastrnn,torch] [--threads 2]
    python -m benchmarks.report results.jsonl

For each case all subjects run at once, each in a fresh process of its own, and take turns of a fraction of a second:
whatever disturbs the machine disturbs all of them. Reported are the minimum and the median over all turns.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from .cases import CASES, Case

HERE = Path(__file__).parent
TOLERANCE = 2e-5  # relative L2 between float32 results; sums of 1e5 terms in another order differ by this much


class Child:
    """A subject in a process of its own."""

    def __init__(self, subject: str, case: Case, threads: int) -> None:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": str(threads)}
        arguments = [subject, case.cell, case.shape, case.kind, str(threads)]
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(HERE / "child.py"), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self.version = self._answer()["version"]

    def ask(self, command: str, argument: object) -> dict:
        assert self.process.stdin is not None
        print(command, argument, file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(map(str, self.process.args[3:]))} ended with {self.process.wait()}")  # type: ignore[index]
        return json.loads(line)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def difference(case: Case, files: dict[str, str]) -> dict[str, float]:
    """Largest relative L2 difference of any result from the first subject's."""
    loaded = {name: list(np.load(file).values()) for name, file in files.items()}
    first = next(iter(loaded.values()))
    return {
        name: max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(results, first, strict=True))
        for name, results in loaded.items()
    }


def measure(case: Case, subjects: list[str], threads: int, turns: int, seconds: float) -> list[dict]:
    children = {name: Child(name, case, threads) for name in subjects}
    times: dict[str, list[float]] = {name: [] for name in subjects}
    try:
        with tempfile.TemporaryDirectory() as folder:
            files = {n: c.ask("check", Path(folder, f"{n}.npz"))["file"] for n, c in children.items()}
            differences = difference(case, files)
        for _ in range(turns):
            for name, child in children.items():
                times[name] += child.ask("time", seconds)["seconds"]
    finally:
        for child in children.values():
            child.close()
    wrong = {n: d for n, d in differences.items() if not d < TOLERANCE}
    if wrong:
        raise RuntimeError(f"{case.name}: results differ from those of {subjects[0]} by {wrong}")
    return [
        {
            "case": case.name, "cell": case.cell, "shape": case.shape, "kind": case.kind, "subject": name,
            "version": children[name].version, "threads": threads, "runs": len(times[name]),
            "difference": differences[name],
            "min_ms": min(times[name]) * 1e3, "median_ms": statistics.median(times[name]) * 1e3,
            "gflops": case.flops / min(times[name]) * 1e-9,
        }
        for name in subjects
    ]  # fmt: skip


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="benchmarks.jsonl")
    parser.add_argument("--cases", default="", help="comma-separated parts of case names; default: all")
    parser.add_argument("--subjects", default=",".join(sorted(p.stem for p in (HERE / "subjects").glob("[a-z]*.py"))))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.2, help="length of a turn")
    options = parser.parse_args()

    wanted = [part for part in options.cases.split(",") if part]
    cases = [c for c in CASES if not wanted or any(part in c.name for part in wanted)]
    subjects = [s for s in options.subjects.split(",") if installed(s)]
    with open(options.out, "w") as out:
        about = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
        }
        print(json.dumps(about), file=out, flush=True)
        for case in cases:
            for row in measure(case, subjects, options.threads, options.turns, options.seconds):
                print(json.dumps(row), file=out, flush=True)
                times = f"min {row['min_ms']:9.3f} ms  median {row['median_ms']:9.3f} ms"
                print(f"{row['case']:28} {row['subject']:10} {times}  {row['gflops']:6.0f} GFLOP/s", flush=True)


def installed(subject: str) -> bool:
    found = importlib.util.find_spec(subject) is not None
    if not found:
        print(f"{subject} is not installed: left out", file=sys.stderr)
    return found


if __name__ == "__main__":
    main()
