"""Markdown tables from the JSON lines of run.py: how many times faster fastrnn is than each other subject.

python -m benchmarks.report results.jsonl > report.md
"""

from __future__ import annotations

import json
import math
import sys

from .cases import GATES, SHAPES

OURS = "fastrnn"


def table(rows: list[dict], kind: str, other: str, what: str) -> list[str]:
    """One row a cell, one column a shape: the other's time over ours; the last column is the geometric mean."""
    times = {(r["cell"], r["shape"], r["subject"]): r[what] for r in rows if r["kind"] == kind}
    shapes = [s for s in SHAPES if any(s == shape for _, shape, _ in times)]
    lines = [f"| {kind}, {other} / {OURS} | {' | '.join(shapes)} | mean |", "|---|" + "---|" * (len(shapes) + 1)]
    for cell in GATES:
        ratios = [times.get((cell, s, other), math.nan) / times.get((cell, s, OURS), math.nan) for s in shapes]
        known = [r for r in ratios if r == r]
        if known:
            mean = math.exp(sum(map(math.log, known)) / len(known))
            cells = [f"{r:.2f}" if r == r else "" for r in [*ratios, mean]]
            lines.append(f"| {cell} | {' | '.join(cells)} |")
    return lines


def report(lines: list[str]) -> str:
    about, *rows = map(json.loads, lines)
    versions = sorted({f"{r['subject']} {r['version']}" for r in rows})
    threads = ", ".join(sorted({str(r["threads"]) for r in rows}))
    machine = f"{about['cpu']}, {about['cores']} cores"
    out = [
        f"Measured {about['date']} on {machine}, {threads} threads; {', '.join(versions)}.",
        "",
    ]
    for other in sorted({r["subject"] for r in rows} - {OURS}):
        for what, word in (("min_ms", "minima"), ("median_ms", "medians")):
            out += [f"Ratios of {word}:", ""]
            for kind in ("forward", "training"):
                if any(r["kind"] == kind for r in rows):
                    out += [*table(rows, kind, other, what), ""]
    out += [
        "Times, ms (minimum / median of all runs):",
        "",
        "| case | subject | min | median | runs | GFLOP/s | difference |",
        "|---|---|---|---|---|---|---|",
    ]
    out += [
        f"| {r['case']} | {r['subject']} | {r['min_ms']:.3f} | {r['median_ms']:.3f} | {r['runs']} "
        f"| {r['gflops']:.0f} | {r['difference']:.0e} |"
        for r in rows
    ]
    return "\n".join(out)


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        print(report(file.readlines()))
