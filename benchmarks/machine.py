"""The machine: its name, its caches, and its limits, measured by a small C program when a compiler is there."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from .processes import cpus

SOURCE = Path(__file__).parent / "machine.c"
NAMES = ("flops", "l2", "l3", "memory")  # per second: multiply-adds counted twice, bytes read


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cache_bytes(level: int) -> int:
    """Of one data or unified cache of that level; 0 where it is not known."""
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            kind, its_level, size = ((folder / name).read_text().strip() for name in ("type", "level", "size"))
        except OSError:
            continue
        if int(its_level) == level and kind != "Instruction":
            return int(size[:-1]) * {"K": 2**10, "M": 2**20, "G": 2**30}[size[-1]]
    return 0


class Machine:
    """Measures the limits again and again through a run; the highest of each counts."""

    def __init__(self, folder: Path, threads: int, isa: str = "") -> None:
        self.threads, self.best = threads, dict.fromkeys(NAMES, 0.0)
        self.why_unknown = ""
        self._program = self._compiled(folder, isa)

    def _compiled(self, folder: Path, isa: str) -> Path | None:
        compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
        if compiler is None:
            self.why_unknown = "no C compiler was found"
            return None
        flags = {"avx2": ["-mavx2", "-mfma"], "baseline": []}.get(isa, ["-march=native"])
        program = folder / "machine"
        command = [compiler, "-O3", "-std=gnu11", *flags, str(SOURCE), "-o", str(program)]
        for threading in (["-fopenmp"], []) if self.threads > 1 else ([],):
            done = subprocess.run([*command, *threading], capture_output=True, text=True)
            if done.returncode == 0:
                return program
        self.why_unknown = f"{SOURCE.name} was not compiled: {done.stderr.strip().splitlines()[-1:]}"
        return None

    def measure(self, seconds: float = 0.05) -> None:
        if self._program is None:
            return
        l2, l3 = cache_bytes(2), cache_bytes(3)
        sizes = [l2 // 2, max(2 * l2, l3 // 2 // self.threads) if l3 else 0, max(4 * l3, 2**27) // self.threads]
        chosen = cpus(self.threads)
        done = subprocess.run(
            [str(self._program), str(self.threads), str(seconds), *map(str, sizes)],
            capture_output=True,
            text=True,
            check=True,
            preexec_fn=lambda: os.sched_setaffinity(0, chosen) if hasattr(os, "sched_setaffinity") else None,
        )
        threads, *values = done.stdout.split()
        if int(threads) != self.threads:
            self.why_unknown = "the compiler has no OpenMP: limits are those of one thread"
        for name, value in zip(NAMES, values, strict=True):
            self.best[name] = max(self.best[name], float(value))

    def row(self) -> dict[str, Any]:
        return {
            "machine": {
                **self.best,
                "threads": self.threads,
                "l2_bytes": cache_bytes(2),
                "l3_bytes": cache_bytes(3),
                "why_unknown": self.why_unknown,
            }
        }
