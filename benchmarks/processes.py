"""Subjects as processes: started with their threads, CPUs and environment, stopped while others have their turn."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SUBJECTS = sorted(p.stem for p in (HERE / "subjects").glob("[a-z]*.py"))
LIBRARIES = {"keras": ("keras", "tensorflow"), "onnxruntime": ("onnxruntime", "onnx"), "openvino": ("openvino", "onnx")}
LIMITED_TO_AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
}


FORKED = {"torch", "jax", "keras"}  # take seconds to import: loaded once, then forked for each case
PATIENCE = 300  # seconds for one answer


class Failed(RuntimeError):
    """A process ended, or what it was to do raised."""


def missing(subject: str) -> list[str]:
    """What would have to be installed for that subject."""
    return [name for name in LIBRARIES.get(subject, (subject,)) if importlib.util.find_spec(name) is None]


def cpus(threads: int) -> set[int]:
    """The CPUs for a process of so many threads: one of each core before the second of any."""
    allowed = sorted(os.sched_getaffinity(0))

    def rank(cpu: int) -> tuple[int, int]:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        with contextlib.suppress(OSError, ValueError):
            text = siblings.read_text().strip()
            first, separator, last = text.partition("-")
            members = list(range(int(first), int(last) + 1)) if separator else [int(n) for n in text.split(",")]
            return members.index(cpu), cpu
        return 0, cpu

    return set(sorted(allowed, key=rank)[:threads])


def environment(threads: int, isa: str) -> dict[str, str]:
    """Thread counts for every library that reads one from there, and the instruction set."""
    own = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "FASTRNN_ISA", "FASTRNN_NUM_THREADS")}
    counts = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC", "PJRT_NPROC")
    own |= dict.fromkeys(counts, str(threads))
    if isa:
        own["FASTRNN_ISA"] = isa
    return own | (LIMITED_TO_AVX2 if isa == "avx2" else {})


class Process:
    """A subject's library, loaded; `case` opens one case at a time."""

    def __init__(self, subject: str, threads: int, isa: str = "") -> None:
        self.subject, self.threads = subject, threads
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(HERE / "child.py"), subject, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment(threads, isa),
        )
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self._process.pid, cpus(threads))

    def send(self, **command: object) -> None:
        assert self._process.stdin is not None
        try:
            print(json.dumps(command), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise Failed(self._last_words()) from None

    def answer(self) -> dict:
        """Waits for the one line that answers what was sent.

        Raises:
            Failed: if there is none, or it tells of an error.
        """
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            raise Failed(f"{self.subject}: no answer within {PATIENCE} s")
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"failed": f"the process ended; {self._last_words()}"}
        if "over" in answer:
            answer = {"failed": f"the process of a case ended; {self._last_words()}"}
        if "failed" in answer:
            raise Failed(f"{self.subject}: {answer['failed']}")
        return answer

    def over(self) -> None:
        """Waits for the end of the process of a case."""
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._errors.close()


class Turn:
    """A case given to a process to make ready. From then on it is stopped except while it answers."""

    def __init__(self, process: Process, case: str, variant: str, fork: bool) -> None:
        self.process, self.fork = process, fork
        self._pid: int | None = None
        self.version = ""
        process.send(case=case, variant=variant, fork=fork)

    def wait_until_ready(self) -> str | None:
        """Why the subject cannot do the case; None if it can."""
        answer = self.process.answer()
        if "unsupported" in answer:
            self._ended()
            return answer["unsupported"]
        self._pid, self.version = answer["pid"], answer["version"]
        self._signal(signal.SIGSTOP)
        return None

    def ask(self, **command: object) -> dict:
        self._signal(signal.SIGCONT)
        self.process.send(**command)
        answer = self.process.answer()
        if "end" not in command:
            self._signal(signal.SIGSTOP)
        return answer

    def close(self) -> None:
        if self._pid is not None:
            self.ask(end=True)
            self._pid = None
            self._ended()

    def _signal(self, number: int) -> None:
        assert self._pid is not None
        os.kill(self._pid, number)

    def _ended(self) -> None:
        if self.fork:
            self.process.over()


class Processes:
    """Those of a run, one for each subject and variant; all are killed at the end of the `with` block."""

    def __init__(self, isa: str = "") -> None:
        self.isa = isa
        self._running: dict[tuple[str, str], Process] = {}

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *exception: object) -> None:
        for subject, variant in list(self._running):
            self.stop(subject, variant)

    def turn(self, subject: str, variant: str, threads: int, case: str, fork: bool) -> Turn:
        """Opens a case in a process that has computed nothing; with `fork`, in the copy of one that may be running."""
        if not fork:
            self.stop(subject, variant)
        key = subject, variant
        if key not in self._running:
            self._running[key] = Process(subject, threads, self.isa)
        return Turn(self._running[key], case, variant, fork)

    def stop(self, subject: str, variant: str) -> None:
        if process := self._running.pop((subject, variant), None):
            process.kill()
