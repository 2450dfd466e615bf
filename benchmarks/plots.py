"""One figure per group: how many times the time of fastrnn each peer takes, case by case."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter

from .cases import GROUPS, OURS, Case
from .results import Results

COLOURS = {
    "torch": "#d1495b",
    "onnxruntime": "#2e7fb8",
    "openvino": "#3a9d5d",
    "jax": "#e39b2d",
    "keras": "#7a5ba8",
    "numpy": "#9a9a9a",
    OURS: "#222222",
}
MARKERS = {"torch": "o", "onnxruntime": "s", "openvino": "D", "jax": "^", "keras": "v", "numpy": "x", OURS: "*"}
TICKS = [1 / 32, 1 / 16, 1 / 8, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
TIMES = f"time of peer / time of {OURS}"
FINE_TICKS = [0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8]


def draw(results: Results, folder: Path) -> list[tuple[str, str]]:
    """Writes FOLDER/GROUP.png and .svg; gives pairs of a group and the path of its SVG."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name, group in GROUPS.items():
        if not results.cases(name):
            continue
        figure = {"threads": threads, "fit": bars, "memory": bars, "masked": lengths}.get(name, dots)(results, name)
        figure.suptitle(group.title)
        for suffix in ("png", "svg"):
            # without dates and random ids the same results give the same files
            with pyplot.rc_context({"svg.hashsalt": name, "savefig.bbox": "tight"}):
                figure.savefig(folder / f"{name}.{suffix}", dpi=110, metadata={"Date": None} if suffix == "svg" else {})
        pyplot.close(figure)
        made.append((name, f"{folder.name}/{name}.svg"))
    return made


def _panels(results: Results, group: str) -> tuple[Any, dict[tuple[str, str], Any]]:
    """A panel for each kind (rows) and cell (columns), with the cases' shapes along x."""
    cases = results.cases(group)
    rows, columns = list(dict.fromkeys(c.kind for c in cases)), list(dict.fromkeys(c.cell for c in cases))
    figure, axes = pyplot.subplots(
        len(rows),
        len(columns),
        figsize=(1.5 + 3.6 * len(columns), 0.8 + 3.0 * len(rows)),
        squeeze=False,
        sharey="row",
        layout="constrained",
    )
    panels = {}
    for row, kind in enumerate(rows):
        for column, cell in enumerate(columns):
            axis = panels[kind, cell] = axes[row][column]
            axis.set_title(f"{cell} {kind}", fontsize=10)
            axis.grid(axis="y", linewidth=0.4)
            for side in ("top", "right"):
                axis.spines[side].set_visible(False)
    return figure, panels


def _legend(figure: Any, panels: dict[Any, Any]) -> None:
    shown: dict[str, Any] = {}
    for axis in panels.values():
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            shown.setdefault(label, handle)
    figure.legend(list(shown.values()), list(shown), loc="outside lower center", ncols=len(shown), frameon=False)


def _ratio_scale(axis: Any, values: list[float]) -> None:
    axis.set_yscale("log")
    axis.axhline(1, color=COLOURS[OURS], linewidth=1)
    low, high = min([*values, 0.9]) / 1.15, max([*values, 1.5]) * 1.15
    axis.set_ylim(low, high)
    axis.set_yticks([t for t in (TICKS if high > 10 * low else FINE_TICKS) if low <= t <= high], minor=False)
    axis.set_yticks([], minor=True)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def dots(results: Results, group: str) -> Any:
    """Peer / ours over the shapes, a colour for each peer."""
    figure, panels = _panels(results, group)
    by_kind: dict[str, list[float]] = {}
    for (kind, cell), axis in panels.items():
        cases = [c for c in results.cases(group, kind) if c.cell == cell]
        for peer in results.subjects(cases):
            values = [results.ratio(case, [(peer, "")]) for case in cases]
            axis.plot(
                [c.shape for c in cases],
                values,
                color=COLOURS.get(peer),
                marker=MARKERS.get(peer, "o"),
                markersize=5,
                linewidth=0.8,
                alpha=0.9,
                label=peer,
            )
            by_kind.setdefault(kind, []).extend(v for v in values if not math.isnan(v))
        axis.tick_params(axis="x", labelsize=8)
    for (kind, _), axis in panels.items():
        _ratio_scale(axis, by_kind.get(kind, []))
        axis.set_ylabel(TIMES if axis.get_subplotspec().is_first_col() else "")
    _legend(figure, panels)
    return figure


def threads(results: Results, group: str) -> Any:
    """Speed against one thread, a line for each shape."""
    figure, panels = _panels(results, group)
    for (kind, cell), axis in panels.items():
        for case in (c for c in results.cases(group, kind) if c.cell == cell):
            counts = [int(v) for v in case.variants]
            speedups = [results.ratio(case, [(OURS, "1")], (OURS, str(n))) for n in counts]
            axis.plot(counts, speedups, marker="o", markersize=4, linewidth=1, label=case.shape)
        axis.plot(counts, counts, color="#bbbbbb", linewidth=0.8, label="ideal")
        axis.set_xticks(counts)
        axis.set_xlabel("threads")
        axis.set_ylabel("times one thread" if axis.get_subplotspec().is_first_col() else "")
    _legend(figure, panels)
    return figure


def lengths(results: Results, group: str) -> Any:
    """Time with row lengths by that of the full batch, each library's own."""
    cases = results.cases(group)
    series = {
        subject: [results.ratio(case, [(subject, "masked")], (subject, "full")) for case in cases]
        for subject in (OURS, *results.subjects(cases))
    }
    figure = _bars(cases, series, "time by the full batch's")
    figure.axes[0].axhline(0.5, color="#bbbbbb", linewidth=0.8)
    return figure


def bars(results: Results, group: str) -> Any:
    """Peer / ours, a bar for each case."""
    cases = results.cases(group)
    what = "growth_mb" if group == "memory" else "min_ms"
    series = {
        peer: [results.ratio(case, [(peer, "")], what=what) for case in cases] for peer in results.subjects(cases)
    }
    return _bars(cases, series, TIMES if what == "min_ms" else f"growth of peer / growth of {OURS}")


def _bars(cases: list[Case], series: dict[str, list[float]], label: str) -> Any:
    figure, axis = pyplot.subplots(figsize=(2 + 1.3 * len(cases), 3.6), layout="constrained")
    width = 0.8 / max(len(series), 1)
    for number, (subject, values) in enumerate(series.items()):
        places = [at + (number + 0.5) * width - 0.4 for at in range(len(cases))]
        drawn = axis.bar(places, values, width * 0.9, color=COLOURS.get(subject), label=subject)
        axis.bar_label(drawn, labels=["" if math.isnan(v) else f"{v:.2g}" for v in values], fontsize=8)
    axis.axhline(1, color=COLOURS[OURS], linewidth=1)
    several = len({c.kind for c in cases}) > 1
    axis.set_xticks(range(len(cases)), [f"{c.cell}\n{c.kind}" if several else c.cell for c in cases], fontsize=9)
    axis.set_ylabel(label)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    figure.legend(loc="outside lower center", ncols=max(len(series), 1), frameon=False)
    return figure
