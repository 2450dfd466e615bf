"""`model.summary()`: the layers of a model as a table of text."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..graph import as_list
from ..params import Parameter

GAP = 2
NARROWEST = 6
Row = list[str]


def summary(
    model: Any,
    line_length: int | None = None,
    positions: Sequence[float] | None = None,
    print_fn: Callable[[str], Any] | None = None,
    expand_nested: bool = False,
    show_trainable: bool = False,
    layer_range: Sequence[str] | None = None,
) -> None:
    """Prints the layers of `model`, with the shapes of their outputs and their numbers of weights.

    Args:
        model: any model.
        line_length: width of the table; by default that of its contents, but no more than the window's.
        positions: where each column ends, as parts of the width (up to 1) or in characters.
        print_fn: called with each line, in place of `print`.
        expand_nested: whether to list the layers inside models and wrappers, too.
        show_trainable: whether to add a column that says which layers are trained.
        layer_range: the names, or patterns, of the first and the last layer to show.

    Raises:
        ValueError: if `positions` or `layer_range` do not fit.
    """
    show = print_fn or print
    chain = _is_chain(model)
    header = ["Layer (type)", "Output shape", "Params"]
    header += [] if chain else ["Connected to"]
    header += ["Trained"] if show_trainable else []
    rows = [
        row[: len(header) - show_trainable] + [row[-1]] * show_trainable
        for layer in _selected(model.layers, layer_range)
        for row in _rows(model, layer, expand_nested)
    ]
    widths = _widths([header, *rows], line_length, positions)
    right = {2}
    total = sum(widths) + GAP * (len(widths) - 1)
    show(f'Model: "{model.name}"')
    for line in (*_lines(header, widths, right), "=" * total):
        show(line)
    for row in rows:
        for line in _lines(row, widths, right):
            show(line)
    show("-" * total)
    for name, weights in (
        ("Total", model.weights),
        ("Trainable", model.trainable_weights),
        ("Non-trainable", model.non_trainable_weights),
    ):
        show(_total(name, [(p.size, p.size * np.dtype(p.dtype).itemsize) for p in weights]))
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and optimizer.built:
        slots = [value for name, value in optimizer.state().items() if "/" in name]
        show(_total("Optimizer", [(slot.size, slot.nbytes) for slot in slots]))


def readable_size(size: float) -> str:
    """`"512 B"`, `"12.50 KB"`, `"3.10 MB"`."""
    if size < 1024:
        return f"{size:.0f} B"
    for unit in ("KB", "MB", "GB"):
        size /= 1024
        if size < 1024:
            return f"{size:.2f} {unit}"
    return f"{size / 1024:.2f} TB"


def _total(name: str, parts: list[tuple[int, int]]) -> str:
    return f"{name} params: {sum(n for n, _ in parts):,} ({readable_size(sum(size for _, size in parts))})"


def _nodes(model: Any) -> list[Any]:
    """The calls in the model's graph; none while it has no graph."""
    return model.network.nodes if model.built else []


def _is_chain(model: Any) -> bool:
    """Whether each layer is called once, on what the layer before gave and nothing else."""
    nodes = _nodes(model)
    for before, node in zip([None, *nodes], nodes, strict=False):
        parents = node.parents
        if len(parents) > 1 or (parents and parents[0] is not before) or (not parents and before is not None):
            return False
    return len({node.layer for node in nodes}) == len(nodes)


def _rows(model: Any, layer: Any, expand: bool, depth: int = 0) -> list[Row]:
    """The columns of one layer, then the rows of those inside it."""
    nodes = [node for node in _nodes(model) if node.layer is layer] if model is not None else []
    if nodes:
        shape = ", ".join(str(tuple(t.shape)) for t in as_list(nodes[0].outputs))
    elif layer.built and layer.build_shape is not None:
        found = layer.output_shape(layer.build_shape)
        shape = ", ".join(map(str, found if isinstance(found, list) else [found]))
    else:
        shape = "?"
    weights: list[Parameter] = layer.weights
    rows = [
        [
            f"{'   ' * depth}{layer.name} ({type(layer).__name__})",
            shape,
            f"{sum(p.size for p in weights):,}" if layer.built else "0 (unbuilt)",
            ", ".join(_source(t) for node in nodes for t in as_list(node.inputs)) or "-",
            ("yes" if layer.trainable_weights else "no") if weights else "-",
        ]
    ]
    if expand:
        inner = layer if hasattr(layer, "network") else None
        for sub in getattr(layer, "layers", layer.sublayers):
            rows += _rows(inner, sub, expand, depth + 1)
    return rows


def _source(tensor: Any) -> str:
    layer, outputs = tensor.node.layer, as_list(tensor.node.outputs)
    return layer.name if len(outputs) == 1 else f"{layer.name}[{tensor.index}]"


def _selected(layers: Sequence[Any], layer_range: Sequence[str] | None) -> Sequence[Any]:
    if layer_range is None:
        return layers
    if isinstance(layer_range, str) or len(layer_range) != 2 or not all(isinstance(name, str) for name in layer_range):
        raise ValueError(f"summary expects layer_range to be the names of two layers; received {layer_range!r}")
    first, last = ([i for i, layer in enumerate(layers) if re.match(name, layer.name)] for name in layer_range)
    if not first or not last:
        raise ValueError(
            f"summary: no layer matches {layer_range!r}; there are {', '.join(layer.name for layer in layers)}"
        )
    if min(first) > max(last):
        return layers[min(last) : max(first) + 1]
    return layers[min(first) : max(last) + 1]


def _widths(rows: list[Row], line_length: int | None, positions: Sequence[float] | None) -> list[int]:
    if positions is not None:
        return _positioned(len(rows[0]), line_length, positions)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    room = (line_length or shutil.get_terminal_size((100, 24)).columns) - GAP * (len(widths) - 1)
    while sum(widths) > room and max(widths) > NARROWEST:
        widths[widths.index(max(widths))] -= 1
    if line_length is not None:
        for i in range(room - sum(widths)):
            widths[i % len(widths)] += 1
    return widths


def _positioned(columns: int, line_length: int | None, positions: Sequence[float]) -> list[int]:
    if len(positions) != columns:
        raise ValueError(f"summary: {columns} columns need {columns} positions; received {list(positions)}")
    length = line_length or min(100, shutil.get_terminal_size((100, 24)).columns)
    ends = [int(p * length) if positions[-1] <= 1 else int(p) for p in positions]
    widths = [end - start - GAP for start, end in zip([-GAP, *ends], ends, strict=False)]
    if min(widths) < 1:
        raise ValueError(
            f"summary: positions {list(positions)} leave no room for a column on lines of {length} characters"
        )
    return widths


def _lines(row: Row, widths: list[int], right: set[int]) -> list[str]:
    """A row as lines: cells that are too long go on below."""
    cells = []
    for cell, width in zip(row, widths, strict=True):
        indent = " " * (len(cell) - len(cell.lstrip()))
        cells.append(
            textwrap.wrap(cell, width, subsequent_indent=indent if len(indent) < width else "", drop_whitespace=True)
            or [""]
        )
    lines = []
    for i in range(max(map(len, cells))):
        parts = [cell[i] if i < len(cell) else "" for cell in cells]
        aligned = [
            part.rjust(width) if column in right else part.ljust(width)
            for column, (part, width) in enumerate(zip(parts, widths, strict=True))
        ]
        lines.append((" " * GAP).join(aligned).rstrip())
    return lines
