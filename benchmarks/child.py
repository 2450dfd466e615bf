"""One library in a process of its own, with a fresh copy of that process for every case.

Started by processes.py as `python -P child.py SUBJECT THREADS`, so that the folder fastrnn/ of a clone does not hide
the installed package. It imports the library, for which some take seconds, and forks for each case: there the library
is loaded, but has computed nothing. Commands come as JSON lines on standard input:

    {"case": name, "variant": v, "fork": true}   make the case ready; answers with the process' id, or {"unsupported"}
    {"check": file}                              writes the results there
    {"time": seconds}                            times of single runs for about so long
    {"memory": steps}                            how far the resident size grows at its peak over so many runs
    {"end": true}                                the case is over
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

import numpy as np
from cases import GROUPS, Unsupported, Work

SHORTEST = 2e-4  # seconds of one reading of the clock: shorter runs are read in bundles
PR_SET_PDEATHSIG = 1


def load(subject: str) -> Any:
    """subjects/<subject>.py under a name that does not collide with the library's own."""
    path = Path(__file__).parent / "subjects" / f"{subject}.py"
    spec = importlib.util.spec_from_file_location(f"subject_{subject}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def die_with_parent() -> None:
    """A process that was stopped for its turn to come must not outlive a run that was killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def timed(run: Callable[[], Any], seconds: float) -> list[float]:
    """Seconds of single runs for about `seconds` in all, at least one; a first short run does not count."""
    clock = time.perf_counter
    start = clock()
    run()
    once = clock() - start
    times, end = [once] if once > seconds / 4 else [], start + seconds
    if once < SHORTEST:
        start = clock()
        for _ in repeat(None, 10):
            run()
        once = (clock() - start) / 10
    bundle = max(1, round(SHORTEST / once))
    while clock() < end or not times:
        start = clock()
        for _ in repeat(None, bundle):
            run()
        times.append((clock() - start) / bundle)
    return times


def memory_growth(run: Callable[[], Any], steps: int) -> dict[str, float]:
    """Megabytes between the resident size now and its peak while `run` is called `steps` times."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # what making the case ready has freed is not room for the step
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    for _ in range(steps):
        run()
    return {"before": before, "growth": _status("VmHWM") - before}


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) * 1024 / 1e6


def prepared(module: Any, name: str, variant: str, threads: int) -> Work:
    case = next(c for group in GROUPS.values() for c in group.cases if c.name == name)
    if not hasattr(module, case.kind):
        raise Unsupported(f"{case.kind} is not among what it does")
    return getattr(module, case.kind)(case, None if case.kind == "fit" else case.data(variant), threads)


def serve(module: Any, command: dict, threads: int, answer: Callable[[dict], None]) -> None:
    """One case, from the command that names it to `end`."""
    try:
        work = prepared(module, command["case"], command["variant"], threads)
    except Unsupported as reason:
        answer({"unsupported": str(reason)})
        return
    answer({"pid": os.getpid(), "version": module.version()})
    for line in sys.stdin:
        command = json.loads(line)
        if "check" in command:
            np.savez(command["check"], *[np.asarray(a) for a in work.results()])
            answer({})
        elif "time" in command:
            seconds = command["time"]
            answer({"seconds": work.times(seconds) if work.times else timed(work.run, seconds)})
        elif "memory" in command:
            answer(memory_growth(work.run, command["memory"]))
        else:
            answer({})
            return


def main() -> None:
    subject, threads = sys.argv[1], int(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to standard error

    def answer(message: dict) -> None:
        print(json.dumps(message), file=answers, flush=True)

    die_with_parent()
    module = load(subject)
    module.version()  # imports the library
    for line in iter(sys.stdin.readline, ""):
        command = json.loads(line)
        pid = os.fork() if command["fork"] else 0
        if pid:
            os.waitpid(pid, 0)
            answer({"over": True})
            continue
        if command["fork"]:
            die_with_parent()
        try:
            serve(module, command, threads, answer)
        except Exception:
            traceback.print_exc()
            answer({"failed": traceback.format_exc().strip().splitlines()[-1]})
        sys.stderr.flush()
        if command["fork"]:
            os._exit(0)


if __name__ == "__main__":
    main()
