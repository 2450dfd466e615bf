"""Runs scripts in a Python of their own, which imports the same fastrnn as this one: built in place, or installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fastrnn

HERE = Path(__file__).parent


def start(script: str, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    """Output, errors and exit status of `script`, which may import `reference` and `kernel_cases`."""
    paths = [str(Path(fastrnn.__file__).parents[1]), str(HERE), str(HERE.parent)]
    return subprocess.run(
        [sys.executable, "-P", "-X", "faulthandler", "-W", "ignore::DeprecationWarning", "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        start_new_session=True,
    )


def run(script: str, timeout: float = 120) -> str:
    """What `script` prints; an AssertionError with its output if it fails."""
    done = start(script, timeout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
