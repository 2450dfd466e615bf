"""Builds the kernels once per instruction set as a static library each, then the one extension that links them all.

Each instruction set has a source file of its own (isa_<name>.c): setuptools would give two libraries made from one file
the same object.
"""

import os
import platform
from glob import glob

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CORE = "fastrnn/_core/"
SOURCES = CORE + "src/"
HEADERS = glob(SOURCES + "*.h") + glob(SOURCES + "cells/*.h")
OPENMP = os.environ.get("FASTRNN_OPENMP", "1") != "0"
X86 = platform.machine().lower() in {"x86_64", "amd64"}

COMPILE = [
    "-O3",
    "-std=gnu11",
    "-g0",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-fvisibility=hidden",
    "-fPIC",
]
COMPILE += ["-fopenmp"] if OPENMP else []
COMPILE += ["-DFASTRNN_X86"] if X86 else []
LINK = ["-fopenmp"] if OPENMP else []
FLAGS_OF_BUILD = {"baseline": []}
if X86:
    FLAGS_OF_BUILD |= {
        "avx2": ["-mavx2", "-mfma"],
        "avx512": [
            "-mavx512f",
            "-mavx512dq",
            "-mavx512bw",
            "-mavx512vl",
            "-mavx2",
            "-mfma",
            "-mprefer-vector-width=512",
        ],
    }

# A test build for CPUs without AVX-512: its kernels, vector width and tiles and all, made of AVX2 instructions.
EMULATED = ["-DFASTRNN_EMULATED_AVX512", "-Wno-psabi"] if os.environ.get("FASTRNN_EMULATE_AVX512", "0") != "0" else []
if EMULATED and X86:
    FLAGS_OF_BUILD["avx512"] = FLAGS_OF_BUILD["avx2"] + EMULATED


class BuildKernelsFirst(build_ext):
    """`build_ext --inplace` alone skips static libraries."""

    def run(self) -> None:
        self.run_command("build_clib")
        super().run()


def kernels(name: str, flags: list[str]) -> tuple[str, dict]:
    return f"fastrnn_{name}", {
        "sources": [f"{SOURCES}isa_{name}.c"],
        "obj_deps": {"": HEADERS},
        "cflags": COMPILE + flags,
    }


setup(
    cmdclass={"build_ext": BuildKernelsFirst},
    libraries=[kernels(name, flags) for name, flags in FLAGS_OF_BUILD.items()],
    ext_modules=[
        Extension(
            "fastrnn._core.kernels",
            [CORE + "kernels.pyx", SOURCES + "dispatch.c", SOURCES + "memory.c", SOURCES + "threads.c"],
            depends=[*HEADERS, *glob(CORE + "*.px[di]")],
            include_dirs=[CORE, numpy.get_include()],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
            extra_compile_args=COMPILE + EMULATED,
            extra_link_args=LINK,
        )
    ],
)
