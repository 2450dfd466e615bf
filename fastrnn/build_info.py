"""What is installed and what of it is in use: the first thing to look at, or to put into a bug report."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np

from . import threads
from ._core import kernels
from ._version import __version__


def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Shows version, compiler, builds of the kernels, OpenMP and threads.

    Args:
        mode: "stdout" prints; "dict" returns a dictionary of "version", "python", "numpy", "machine", "threads" and
            "kernels", itself a dictionary with "compiler", "openmp" (None if built without), "compiled" (every build
            in the package), "available" (those that this CPU and operating system can run) and "chosen".

    Raises:
        ValueError: for another mode.
    """
    if mode not in ("stdout", "dict"):
        raise ValueError(f'show_config expects mode "stdout" or "dict"; received {mode!r}')
    core = dict(kernels.config())
    found = {
        "version": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": threads.get_num_threads(),
        "kernels": core,
    }
    if mode == "dict":
        return found
    openmp = core["openmp"]
    available, compiled = ", ".join(core["available"]), ", ".join(core["compiled"])
    rows = {
        "fastrnn": found["version"],
        "kernels": f"{core['chosen']} (available: {available}; compiled: {compiled})",
        "compiler": core["compiler"],
        "openmp": openmp if openmp else "no",
        "threads": found["threads"],
        "numpy": found["numpy"],
        "python": f"{found['python']}, {found['machine']}",
    }
    print("\n".join(f"{name:<9} {value}" for name, value in rows.items()))
    return None
