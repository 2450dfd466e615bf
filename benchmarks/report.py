"""Markdown from the JSON lines of run.py: how many times faster fastrnn is than each other subject, and the limits.

    python -m benchmarks.report results.jsonl [--plots FOLDER] > report.md

Ratios are between minima of the same repetition of the suite; with several repetitions, the median of the ratios.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path

from .cases import GATES, GROUPS, OURS, RIVALS, Case
from .results import Results, geometric_mean

RATIO_GROUPS = ("forward", "training", "sequences", "streaming", "bidirectional")


def number(value: float, digits: int = 2) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def percent(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.0f} %"


def table(head: list[str], body: list[list[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in body), ""]


def kinds(cases: list[Case]) -> list[str]:
    return list(dict.fromkeys(case.kind for case in cases))


def grid(cases: list[Case]) -> tuple[list[str], list[str], dict[tuple[str, str], Case]]:
    """Cells, shapes, and the case of each pair of both."""
    shapes = list(dict.fromkeys(case.shape for case in cases))
    cells = [cell for cell in GATES if any(case.cell == cell for case in cases)]
    return cells, shapes, {(case.cell, case.shape): case for case in cases}


def header(results: Results) -> Iterator[str]:
    about = results.about
    versions = sorted({f"{r['subject']} {r['version']}" for r in results.rows if "version" in r})
    repeats = 1 + max((r.get("repeat", 0) for r in results.rows), default=0)
    yield f"    {about['command']}"
    yield ""
    isa = f", limited to {about['isa']}" if about["isa"] else ""
    yield (
        f"Measured {about['date']} on {about['cpu']}, {about['cores']} cores, {results.machine.get('threads', '?')} "
        f"threads{isa}, {repeats} repetition{'s' if repeats > 1 else ''}; {', '.join(versions)}."
    )
    if about["not_installed"]:
        yield f"Not installed, so left out: {', '.join(about['not_installed'])}."
    yield ""


def limits(results: Results) -> Iterator[str]:
    machine = results.machine
    yield "## The machine's limits"
    yield ""
    if not machine.get("flops"):
        yield f"Unknown: {machine.get('why_unknown') or 'not measured'}."
        yield ""
        return
    rows = [["float32 multiply-adds", f"{machine['flops'] * 1e-9:.0f} GFLOP/s"]]
    for level, name in (("l2", "L2"), ("l3", "L3"), ("memory", "memory")):
        if machine[level]:
            rows.append([f"reading {name}", f"{machine[level] * 1e-9:.0f} GB/s"])
    yield from table([f"{machine['threads']} threads together, for 50 ms", "rate"], rows)


def ratios(results: Results, group: str) -> Iterator[str]:
    """Per kind: the best rival's time by ours, then every peer's; and our share of the limit."""
    for kind in kinds(results.cases(group)):
        cases = results.cases(group, kind)
        cells, shapes, by = grid(cases)
        peers = results.subjects(cases)
        rivals = [peer for peer in peers if peer in RIVALS[kind]]
        body = []
        for cell in cells:
            lines = [(f"**{cell}**, best of {', '.join(rivals)}", rivals)] if len(rivals) > 1 else []
            for what, over in [*lines, *((f"{cell}, {peer}", [peer]) for peer in peers)]:
                values = [
                    results.ratio(by[cell, s], [(p, "") for p in over]) if (cell, s) in by else math.nan for s in shapes
                ]
                if not all(map(math.isnan, values)):
                    body.append([what, *map(number, [*values, geometric_mean(values)])])
        if body:
            yield from table([f"{kind}: peer / {OURS}", *shapes, "mean"], body)
        yield from shares(results, kind, cells, shapes, by)


def shares(
    results: Results, kind: str, cells: list[str], shapes: list[str], by: dict[tuple[str, str], Case]
) -> Iterator[str]:
    body = []
    for cell in cells:
        row = [cell]
        for shape in shapes:
            case = by.get((cell, shape))
            least, which = results.limit(case) if case else (math.nan, "")
            share = least / results.value(case, OURS) if case else math.nan
            row.append("" if math.isnan(share) else f"{percent(share)} {which}")
        body.append(row)
    if any(any(row[1:]) for row in body):
        yield from table([f"{kind}: share of the machine's limit that {OURS} reaches", *shapes], body)


def masked(results: Results, group: str) -> Iterator[str]:
    body = []
    for case in results.cases(group):
        own = results.ratio(case, [(OURS, "masked")], (OURS, "full"))
        row = [f"{case.cell} {case.kind}, {case.shape}", number(own)]
        peers = results.subjects(results.cases(group))
        body.append(row + [number(results.ratio(case, [(peer, "masked")], (OURS, "masked"))) for peer in peers])
    yield from table([f"{OURS} with row lengths", "of the full batch's time", *(f"{p} / {OURS}" for p in peers)], body)


def threads(results: Results, group: str) -> Iterator[str]:
    for kind in kinds(results.cases(group)):
        cases = results.cases(group, kind)
        cells, shapes, by = grid(cases)
        body = []
        for cell in cells:
            for count in cases[0].variants[1:]:
                values = [
                    results.ratio(by[cell, s], [(OURS, "1")], (OURS, count)) if (cell, s) in by else math.nan
                    for s in shapes
                ]
                body.append([f"{cell}, {count} threads", *map(number, [*values, geometric_mean(values)])])
        yield from table([f"{kind}: times as fast as one thread", *shapes, "mean"], body)


def fit(results: Results, group: str) -> Iterator[str]:
    cases = results.cases(group)
    found = {case: results.ratio(case, [("keras", "")]) for case in cases}
    rates = {case: [case.samples / results.value(case, subject) * 1e3 for subject in (OURS, "keras")] for case in cases}
    body = [[c.cell, *(number(rate, 0) for rate in rates[c]), number(found[c])] for c in cases]
    body.append(["geometric mean", "", "", number(geometric_mean(found.values()))])
    yield from table(["model", f"{OURS}, samples/s", "Keras on TensorFlow, samples/s", f"{OURS} / Keras"], body)


def memory(results: Results, group: str) -> Iterator[str]:
    cases = results.cases(group)
    peers = results.subjects(cases)
    body = []
    for case in cases:
        ours = results.value(case, OURS, "growth_mb")
        row = [f"{case.cell}, {case.shape}", number(ours, 1)]
        for peer in peers:
            row += [number(results.value(case, peer, "growth_mb"), 1)]
            row += [number(1 / results.ratio(case, [(peer, "")], what="growth_mb"))]
        body.append(row)
    columns = [column for peer in peers for column in (f"{peer}, MB", f"{OURS} / {peer}")]
    yield from table(["growth of the resident size at its peak", f"{OURS}, MB", *columns], body)


def install(results: Results) -> Iterator[str]:
    rows = [r for r in results.rows if r["group"] == "install"]
    if not rows:
        return
    yield "## Import time and installed size"
    yield ""
    columns = list(dict.fromkeys(r["what"] for r in rows))
    found = {(r["subject"], r["what"]): f"{r['value']:.1f} {r['unit']}" for r in rows}
    subjects = list(dict.fromkeys(s for s, _ in found))
    yield from table(["", *columns], [[s, *(found.get((s, c), "") for c in columns)] for s in sorted(subjects)])


def details(results: Results) -> Iterator[str]:
    yield "## All times"
    yield ""
    peak = results.machine.get("flops", 0.0)
    body = []
    for r in results.rows:
        if "min_ms" in r:
            who = f"{r['subject']} {r['variant']}".strip()
            share = percent(r["gflops"] * 1e9 / peak) if peak and r["gflops"] and r["group"] != "threads" else ""
            rate = f"{r['gflops']:.0f}" if r["gflops"] else ""
            times = [f"{r['min_ms']:.4g}", f"{r['median_ms']:.4g}", str(r["runs"])]
            body.append([r["case"], who, *times, rate, share, f"{r['difference']:.0e}"])
    columns = ["case", "subject", "min, ms", "median, ms", "runs", "GFLOP/s", "of FMA peak", "difference"]
    yield from table(columns, body)


def left_out(results: Results) -> Iterator[str]:
    out = {f"{r['subject']}, {r['group']} {r['kind']}: {r['left_out']}" for r in results.rows if "left_out" in r}
    out |= {f"failed: {r['failed']}" for r in results.rows if "failed" in r}
    if out:
        yield "## Left out"
        yield ""
        yield from [f"- {line}" for line in sorted(out)]
        yield ""


def report(results: Results, plots: list[tuple[str, str]] | None = None) -> str:
    """The whole page; `plots` are pairs of a group and the path of its figure."""
    figures = dict(plots or [])
    lines = ["# Latest report", "", *header(results), *limits(results)]
    special = {"masked": masked, "threads": threads, "fit": fit, "memory": memory}
    for name, group in GROUPS.items():
        if results.cases(name):
            lines += [f"## {group.title}", ""]
            lines += [f"![{group.title}]({figures[name]})", ""] if name in figures else []
            lines += special.get(name, ratios)(results, name)
    return "\n".join([*lines, *install(results), *left_out(results), *details(results)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--plots", type=Path, help="a folder for figures as PNG and SVG; needs matplotlib")
    options = parser.parse_args()
    results = Results(options.file.read_text().splitlines())
    figures = []
    if options.plots:
        try:
            from .plots import draw

            figures = draw(results, options.plots)
        except ImportError as reason:
            print(f"no plots: {reason}", file=sys.stderr)
    print(report(results, figures))


if __name__ == "__main__":
    main()
