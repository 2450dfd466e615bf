"""Compiles and runs the lab's experiments, once for each instruction set that this CPU has.

    nice -n 0 taskset -c 1 python -m benchmarks.kernels row_tiles
    python -m benchmarks.kernels --isa avx2 row_tiles small

An experiment is a C file beside this one. It includes the project's kernels as they are, checks its rivals against
plain double loops, and lets them race; words after its name are handed to it. README.md tells what was found.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
CORE = HERE.parents[1] / "fastrnn" / "_core" / "src"
COMPILE = ["-O3", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fopenmp"]
COMPILE += ["-Wall", "-Wextra", "-Wno-unused-function", "-Wno-unused-const-variable"]
AVX2 = ["-mavx2", "-mfma"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mprefer-vector-width=512"]


def instruction_sets() -> dict[str, list[str]]:
    """Compiler flags of the instruction sets that this CPU has; "native" alone where it is no x86 with AVX2."""
    flags: set[str] = set()
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                flags = set(line.split())
                break
    if not {"avx2", "fma"} <= flags:
        return {"native": ["-march=native"]}
    found = {"avx2": AVX2}
    if {"avx512f", "avx512dq", "avx512bw", "avx512vl"} <= flags:
        found["avx512"] = AVX512
    return found


def main() -> None:
    experiments = sorted(path.stem for path in HERE.glob("*.c"))
    sets = instruction_sets()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__.splitlines()[0])
    parser.add_argument("experiment", choices=experiments)
    parser.add_argument("words", nargs="*", help="handed to the experiment")
    parser.add_argument("--isa", choices=sorted(sets), help="only this instruction set")
    parser.add_argument("--flags", default="", help="more flags for the compiler")
    args = parser.parse_args()

    sources = [HERE / f"{args.experiment}.c", CORE / "dispatch.c", CORE / "memory.c", CORE / "threads.c"]
    for isa, flags in sets.items():
        if args.isa not in (None, isa):
            continue
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder) / args.experiment
            command = [os.environ.get("CC", "cc"), *COMPILE, *flags, *args.flags.split(), f"-I{CORE}", f"-I{HERE}"]
            subprocess.run([*command, *map(str, sources), "-o", str(program), "-lm"], check=True)
            print(f"== {args.experiment}, {isa}", flush=True)
            done = subprocess.run([str(program), *args.words])
            if done.returncode:
                sys.exit(done.returncode)


if __name__ == "__main__":
    main()
