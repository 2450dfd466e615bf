"""How many threads a call may use: a policy, decided here once and handed to the kernels as a number.

The default is ``FASTRNN_NUM_THREADS`` if that is set, else the smallest of the CPUs this process may run on, its cgroup
CPU quota (rounded up) and ``OMP_NUM_THREADS``. Results do not depend on it: every kernel gives the same bits for any
number of threads. Nothing is read before the first question.

A forked child uses one thread: the OpenMP team of its parent does not exist in it, and the pools of workers that fork
(multiprocessing, prefork servers) already fill the machine.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

_chosen: int | None = None
_forked = False


def get_num_threads() -> int:
    """The number of threads that layers, losses and optimizers may use.

    Raises:
        ValueError: if ``FASTRNN_NUM_THREADS`` is set to anything but a positive integer.
    """
    global _chosen
    if _forked:
        return 1
    if _chosen is None:
        _chosen = _default()
    return _chosen


def set_num_threads(threads: int) -> None:
    """Uses `threads` threads from now on, in place of the default.

    In a forked child the number stays 1, and asking for more only warns.

    Raises:
        TypeError: if `threads` is no integer.
        ValueError: if `threads` is less than 1.
    """
    global _chosen
    if isinstance(threads, bool) or not hasattr(threads, "__index__"):
        raise TypeError(f"set_num_threads expects a positive integer; received {threads!r}")
    number = threads.__index__()
    if number < 1:
        raise ValueError(f"set_num_threads expects a positive integer; received {number}")
    if _forked and number > 1:
        warnings.warn(
            f"a forked process computes with one thread; set_num_threads({number}) has no effect here", stacklevel=2
        )
    _chosen = number


def _default() -> int:
    own = os.environ.get("FASTRNN_NUM_THREADS", "").strip()
    if own:
        number = _positive(own)
        if number is None:
            raise ValueError(f"FASTRNN_NUM_THREADS must be a positive integer; it is {own!r}")
        return number
    limits = [_affinity()]
    quota = _cgroup_quota()
    if quota is not None:
        limits.append(quota)
    openmp = os.environ.get("OMP_NUM_THREADS", "").strip()
    if openmp:
        number = _positive(openmp.split(",")[0])  # a list gives one number per level of nesting
        if number is None:
            warnings.warn(
                f"OMP_NUM_THREADS={openmp!r} is no positive integer and is ignored", RuntimeWarning, stacklevel=4
            )
        else:
            limits.append(number)
    return min(limits)


def _positive(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0 else None


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cgroup_quota(root: Path = Path("/")) -> int | None:
    """CPUs that the cgroups around this process allow, rounded up, at least 1; None where nothing limits them.

    Both versions are read, at every level from the process's own group up to the mount; `root` holds the file system.
    """
    quotas = []
    for folder, top, version in _cgroup_folders(root):
        while True:
            quota = _read_v2(folder) if version == 2 else _read_v1(folder)
            if quota is not None:
                quotas.append(quota)
            if folder == top:
                break
            folder = folder.parent
    return max(1, min(quotas)) if quotas else None


def _cgroup_folders(root: Path) -> Iterator[tuple[Path, Path, int]]:
    """The process's own folder, the mount point above it and the version, for each hierarchy that may limit CPUs.

    Sources: cgroups(7), and proc_pid_mountinfo(5) for the columns.
    """
    try:
        memberships = (root / "proc/self/cgroup").read_text().splitlines()
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return
    groups: dict[int, str] = {}
    for line in memberships:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            groups[2] = path
        elif "cpu" in controllers.split(","):
            groups[1] = path
    for line in mounts:
        left, _, right = line.partition(" - ")
        columns, kind = left.split(), right.split()
        if len(columns) < 5 or len(kind) < 3:
            continue
        version = {"cgroup2": 2, "cgroup": 1 if "cpu" in kind[2].split(",") else 0}.get(kind[0], 0)
        if version not in groups:
            continue
        shown, top, own = columns[3].rstrip("/"), root / columns[4].lstrip("/"), groups[version]
        inside = own == shown or own.startswith(f"{shown}/")
        parts = [p for p in own[len(shown) :].split("/") if p] if inside else []
        folder = top.joinpath(*parts) if ".." not in parts else top
        yield (folder if folder.is_dir() else top), top, version


def _read_v2(folder: Path) -> int | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else -(-int(quota) // int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _read_v1(folder: Path) -> int | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        return None if quota <= 0 else -(-quota // int((folder / "cpu.cfs_period_us").read_text()))
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _after_fork_in_child() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
