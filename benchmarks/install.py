"""What installing and importing cost: the installed size, and the import time beyond NumPy's.

    python -m benchmarks.install [--wheel dist/fastrnn-*.whl]

Imports are timed in fresh processes, in turns; the difference of the minima counts. Sizes are those of the files that a
package's metadata lists, compiled Python aside; what a package needs besides is not in them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .processes import SUBJECTS, environment, missing

PROGRAM = "import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t, file=sys.stderr)"
STATEMENTS = {
    "fastrnn": "import numpy, fastrnn",
    "fastrnn, all of it": "import numpy; from fastrnn import callbacks, layers, losses, metrics, models, optimizers",
    "jax": "import jax",
    "keras": "import keras",
    "numpy": "import numpy",
    "onnxruntime": "import onnxruntime",
    "openvino": "import openvino",
    "torch": "import torch",
}
DISTRIBUTIONS = {"keras": ("keras", "tensorflow-cpu", "tensorflow"), "jax": ("jax", "jaxlib")}


def seconds(statement: str) -> float:
    """Of one import in a fresh process."""
    program = f"import sys; sys.stdout = open({os.devnull!r}, 'w'); {PROGRAM.format(statement=statement)}"
    own = environment(1, "") | {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True, env=own)
    return float(done.stderr.strip().splitlines()[-1])


def installed_bytes(subject: str) -> int:
    """Of the library's own distributions; of fastrnn, where it is imported from."""
    if subject == "fastrnn":
        program = "import fastrnn; print(fastrnn.__path__[0])"
        done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
        files = [f for f in Path(done.stdout.strip()).rglob("*") if "__pycache__" not in f.parts]
        return sum(f.stat().st_size for f in files if f.is_file())
    total = 0
    for name in DISTRIBUTIONS.get(subject, (subject,)):
        try:
            files = importlib.metadata.files(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        paths = [Path(str(f.locate())) for f in files if f.suffix != ".pyc"]
        total += sum(path.stat().st_size for path in paths if path.is_file())
    return total


def import_times(names: list[str], runs: int) -> dict[str, float]:
    """Milliseconds, the least of `runs`; of slow imports three."""
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(runs):
        for name in names:
            if number < 3 or min(times[name]) < 0.5:
                times[name].append(seconds(STATEMENTS[name]))
    return {name: min(t) * 1e3 for name, t in times.items()}


def rows(installed: list[str], runs: int = 10) -> Iterator[dict[str, Any]]:
    """For the report: size and import time of every subject, the time of fastrnn beyond NumPy's."""
    for subject in installed:
        yield _row(subject, "installed size", installed_bytes(subject) / 1e6, "MB")
    names = [name for name in STATEMENTS if name.split(",")[0] in installed]
    best = import_times(names, runs)
    for name in names:
        yield _row(name, "import", best[name], "ms")
        if name.startswith("fastrnn"):
            yield _row(name, "import beyond numpy's", best[name] - best["numpy"], "ms")


def _row(subject: str, what: str, value: float, unit: str) -> dict[str, Any]:
    return {"group": "install", "subject": subject, "what": what, "value": value, "unit": unit}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path)
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    if options.wheel:
        print(f"wheel: {options.wheel.stat().st_size / 1e6:.2f} MB")
    for row in rows([s for s in SUBJECTS if not missing(s)], options.runs):
        print(f"{row['subject']}: {row['what']} {row['value']:.1f} {row['unit']}")


if __name__ == "__main__":
    main()
