"""One library, one case, one fresh process: answers `check` with the file it wrote its results to and `time SECONDS`
with the times of single runs. Started by run.py with `python -P`, so that the folder fastrnn/ of a clone does not
hide the installed package."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parent))

from cases import Case


def load(subject: str):
    """subjects/<subject>.py under a name that does not collide with the library's own."""
    spec = importlib.util.spec_from_file_location(
        f"subject_{subject}", Path(__file__).parent / "subjects" / f"{subject}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    subject, cell, shape, kind, threads = sys.argv[1:6]
    module = load(subject)
    case = Case(cell, shape, kind)
    version = module.version()
    step = getattr(module, kind)(case, case.data(), int(threads))
    print(json.dumps({"version": version}), flush=True)
    for line in sys.stdin:
        command, argument = line.split()
        if command == "check":
            out = step()
            out = getattr(step, "keras_layout", lambda o: o)(out)
            np.savez(argument, *[np.asarray(a) for a in out])
            answer: dict = {"file": argument}
        else:
            answer = {"seconds": timed(step, float(argument))}
        print(json.dumps(answer), flush=True)


def timed(step, seconds: float) -> list[float]:
    """Times of single runs for about `seconds`, at least three, after one that does not count."""
    step()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    main()
