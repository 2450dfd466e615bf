"""What installing and importing cost: the wheel's size, the installed size, and the import time beyond NumPy's.

    python -m benchmarks.install [--wheel dist/fastrnn-*.whl]

Imports are timed in fresh processes, `import numpy` and `import fastrnn` in turns; the difference of the minima counts.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

PROGRAM = "import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
STATEMENTS = {
    "numpy": "import numpy",
    "fastrnn": "import numpy, fastrnn",
    "fastrnn, all of it": "import numpy; from fastrnn import callbacks, layers, losses, metrics, models, optimizers",
    "torch": "import torch",
}


def seconds(statement: str) -> float:
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM.format(statement=statement)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def installed_bytes() -> int:
    program = "import fastrnn; print(fastrnn.__path__[0])"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    files = Path(done.stdout.strip()).rglob("*")
    return sum(f.stat().st_size for f in files if f.is_file() and "__pycache__" not in f.parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path)
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    if options.wheel:
        print(f"wheel: {options.wheel.stat().st_size / 1e6:.2f} MB")
    print(f"installed: {installed_bytes() / 1e6:.2f} MB")
    wanted = {n: s for n, s in STATEMENTS.items() if importlib.util.find_spec(n.split(",")[0])}
    times: dict[str, list[float]] = {name: [] for name in wanted}
    for _ in range(options.runs):
        for name, statement in wanted.items():
            times[name].append(seconds(statement))
    best = {name: min(t) * 1e3 for name, t in times.items()}
    for name in wanted:
        print(f"{name}: {best[name]:.1f} ms, {best[name] - best['numpy']:+.1f} ms against numpy alone")


if __name__ == "__main__":
    main()
