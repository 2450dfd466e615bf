"""How much of `fit` lies outside the C kernels: wall time of the second epoch that is not spent behind the C door.

    python -m benchmarks.outside [--workloads text,weather] [--threads 2] [--epochs 4] [--gaps]

Every function of `fastrnn._core.kernels` is wrapped in a clock, and each workload of workloads.py is trained in a fresh
process. The first epoch, which sets everything up, does not count; of the later ones the fastest does. What the clock
itself costs, measured on a function that does nothing, is taken off. `tiny`, the smallest model there is, shows what a
step costs when there is nothing to compute. `--gaps` also lists where the time outside lies: between which two calls.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

from workloads import TINY, WORKLOADS

FEW = 32  # workloads of smaller batches are shown, but the bound is not for them
BOUND = 0.05


@dataclass
class Clock:
    """Seconds inside, and calls of, each function that it was given to watch; seconds between two calls of them."""

    inside: dict[str, list[float]] = field(default_factory=dict)
    gaps: dict[tuple[str, str], float] = field(default_factory=dict)
    last: tuple[str, float] = ("", 0.0)
    running: bool = False

    def watch(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        entry, gaps, now = self.inside.setdefault(name, [0.0, 0]), self.gaps, time.perf_counter

        def timed(*args: Any, **named: Any) -> Any:
            if self.running:  # called by another one, whose time it is
                return function(*args, **named)
            self.running = True
            before, left = self.last
            start = now()
            try:
                return function(*args, **named)
            finally:
                self.running = False
                end = now()
                entry[0] += end - start
                entry[1] += 1
                gaps[before, name] = gaps.get((before, name), 0.0) + start - left
                self.last = name, end

        return timed

    def start(self) -> None:
        for entry in self.inside.values():
            entry[:] = [0.0, 0]
        self.gaps.clear()
        self.last = "", time.perf_counter()

    def found(self) -> tuple[dict[str, tuple[float, int]], dict[str, float]]:
        """Since `start`: seconds and calls by function, and seconds between them."""
        inside = {name: (seconds, int(calls)) for name, (seconds, calls) in self.inside.items() if calls}
        return inside, {f"{a or 'the start'} and {b}": seconds for (a, b), seconds in self.gaps.items()}


def cost_of_the_clock() -> tuple[float, float]:
    """Seconds that watching adds to a call: in all, and as the watched function's own."""
    clock, calls = Clock(), 20_000
    bare, found = (lambda: None), []
    watched = clock.watch("nothing", bare)
    for _ in range(5):
        times = []
        for function in (bare, watched):
            start = time.perf_counter()
            for _ in range(calls):
                function()
            times.append((time.perf_counter() - start) / calls)
        found.append((max(times[1] - times[0], 0.0), clock.inside["nothing"][0] / calls))
        clock.start()
    return min(found)


def profile(name: str, threads: int, epochs: int) -> dict[str, Any]:
    """The fastest epoch but the first: seconds and steps of it, seconds and calls of each kernel."""
    import fastrnn
    from fastrnn import callbacks, layers, models
    from fastrnn._core import kernels

    fastrnn.set_num_threads(threads)
    workload = TINY if name == TINY.name else WORKLOADS[name]
    model, (x, y) = workload.compiled(layers, models), workload.data()
    clock, found = Clock(), []
    for attribute, value in list(vars(kernels).items()):
        if callable(value) and not isinstance(value, type) and getattr(value, "__module__", "") == kernels.__name__:
            setattr(kernels, attribute, clock.watch(attribute, value))

    class Taking(kernels.Taking):
        run = clock.watch("take rows", kernels.Taking.run)

    class Update(kernels.Update):
        run = clock.watch("update", kernels.Update.run)

    class Recording(kernels.Recording):
        replay = clock.watch("replay", kernels.Recording.replay)
        train = clock.watch("steps", kernels.Recording.train)

    kernels.Taking, kernels.Update, kernels.Recording = Taking, Update, Recording

    class Epochs(callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            clock.start()
            self.start = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            found.append((time.perf_counter() - self.start, *clock.found()))

    model.fit(x, y, batch_size=workload.batch_size, epochs=epochs, verbose=0, callbacks=[Epochs()])
    seconds, inside, gaps = min(found[1:], key=lambda epoch: epoch[0])
    whole, own = cost_of_the_clock()
    calls = sum(n for _, n in inside.values())
    return {
        "steps": -(-len(y) // workload.batch_size),
        "seconds": seconds - calls * whole,
        "inside": {name: (s - n * own, n) for name, (s, n) in inside.items()},
        "gaps": gaps,
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: a row for each workload, a column for each function of the door that any of them calls."""
    functions = sorted({name for r in results.values() for name in r["inside"]})
    lines = [
        f"| workload | batch | ms a step | {' | '.join(functions)} | outside, us a step | outside |",
        "|" + "---|" * (len(functions) + 5),
    ]
    for name, r in results.items():
        inside = {f: r["inside"].get(f, (0.0, 0))[0] / r["seconds"] for f in functions}
        outside = 1 - sum(inside.values())
        batch = (TINY if name == TINY.name else WORKLOADS[name]).batch_size
        step = r["seconds"] / r["steps"]
        wrong = " (above the bound)" if batch >= FEW and outside > BOUND else ""
        shares = " | ".join(f"{share:.1%}" for share in inside.values())
        lines.append(
            f"| {name} | {batch} | {1e3 * step:.3f} | {shares} | {1e6 * step * outside:.0f} | {outside:.1%}{wrong} |"
        )
    return "\n".join(lines)


def gap_lines(name: str, result: dict[str, Any]) -> str:
    largest = sorted(result["gaps"].items(), key=lambda gap: -gap[1])[:12]
    shown = [f"- between {where}: {1e6 * s / result['steps']:.0f} us a step" for where, s in largest]
    return "\n".join(["", f"{name}, outside:", "", *shown])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", default=",".join([*WORKLOADS, TINY.name]))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--gaps", action="store_true", help="also where the time outside lies")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = arguments.workloads.split(",")
    if arguments.child:
        print(json.dumps(profile(names[0], arguments.threads, arguments.epochs)))
        return
    results = {}
    for name in names:
        options = ["--child", "--workloads", name]
        options += ["--threads", str(arguments.threads), "--epochs", str(max(arguments.epochs, 2))]
        done = subprocess.run([sys.executable, "-P", __file__, *options], check=True, capture_output=True, text=True)
        results[name] = json.loads(done.stdout)
    print(table(results))
    if arguments.gaps:
        for name, result in results.items():
            print(gap_lines(name, result))


if __name__ == "__main__":
    main()
