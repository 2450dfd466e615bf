"""The thread policy: environment, affinity, cgroup quotas, forks."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest

from fastrnn import threads


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(threads, "_chosen", None)
    monkeypatch.setattr(threads, "_forked", False)
    monkeypatch.delenv("FASTRNN_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.fixture
def machine(monkeypatch):
    """A machine of 16 CPUs without a quota."""
    monkeypatch.setattr(threads, "_affinity", lambda: 16)
    monkeypatch.setattr(threads, "_cgroup_quota", lambda: None)
    return monkeypatch


def cgroup_tree(root, membership, mountinfo, files):
    for name, text in {"proc/self/cgroup": membership, "proc/self/mountinfo": mountinfo, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V2 = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
V1 = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"


def test_default_is_the_smallest_limit(machine):
    assert threads._default() == 16
    machine.setattr(threads, "_cgroup_quota", lambda: 6)
    assert threads._default() == 6
    machine.setenv("OMP_NUM_THREADS", "4")
    assert threads._default() == 4
    machine.setattr(threads, "_affinity", lambda: 2)
    assert threads._default() == 2


def test_own_variable_stands_over_every_limit(machine):
    machine.setenv("OMP_NUM_THREADS", "2")
    machine.setenv("FASTRNN_NUM_THREADS", " 32 ")
    assert threads.get_num_threads() == 32


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "²", "1e3", "4,2", "99999999999999"])
def test_bad_own_variable_is_an_error_at_first_use(machine, value):
    machine.setenv("FASTRNN_NUM_THREADS", value)
    with pytest.raises(ValueError, match="FASTRNN_NUM_THREADS must be a positive integer"):
        threads.get_num_threads()


def test_empty_variables_count_as_unset(machine):
    machine.setenv("FASTRNN_NUM_THREADS", "")
    machine.setenv("OMP_NUM_THREADS", " ")
    assert threads.get_num_threads() == 16


def test_openmp_list_gives_its_first_number(machine):
    machine.setenv("OMP_NUM_THREADS", "3,2")
    assert threads.get_num_threads() == 3


def test_bad_openmp_variable_warns_once_and_is_ignored(machine):
    machine.setenv("OMP_NUM_THREADS", "many")
    with pytest.warns(RuntimeWarning, match="OMP_NUM_THREADS='many'"):
        assert threads.get_num_threads() == 16
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert threads.get_num_threads() == 16


def test_default_is_decided_once(machine):
    assert threads.get_num_threads() == 16
    machine.setattr(threads, "_affinity", lambda: 3)
    assert threads.get_num_threads() == 16


def test_set_num_threads_wins_and_is_validated(machine):
    import numpy as np

    threads.set_num_threads(np.int64(5))
    assert threads.get_num_threads() == 5 and type(threads.get_num_threads()) is int
    for bad in (0, -3):
        with pytest.raises(ValueError, match=f"positive integer; received {bad}"):
            threads.set_num_threads(bad)
    for bad in (2.0, "2", None, True):
        with pytest.raises(TypeError, match="set_num_threads expects a positive integer"):
            threads.set_num_threads(bad)
    assert threads.get_num_threads() == 5


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("max 100000", None),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("1000 100000", 1),
        ("", None),
        ("x y", None),
        ("5 0", None),
    ],
)
def test_cgroup_v2_quota_rounds_up(tmp_path, text, cpus):
    assert threads._cgroup_quota(cgroup_tree(tmp_path, "0::/\n", V2, {"sys/fs/cgroup/cpu.max": text})) == cpus


def test_cgroup_v2_takes_the_tightest_ancestor(tmp_path):
    files = {
        "sys/fs/cgroup/a/cpu.max": "300000 100000",
        "sys/fs/cgroup/a/b/cpu.max": "max 100000",
        "sys/fs/cgroup/other/cpu.max": "100000 100000",
    }
    assert threads._cgroup_quota(cgroup_tree(tmp_path, "0::/a/b\n", V2, files)) == 3


def test_cgroup_v1_quota(tmp_path):
    folder = "sys/fs/cgroup/cpu,cpuacct/"
    files = {
        f"{folder}job/cpu.cfs_quota_us": "250000",
        f"{folder}job/cpu.cfs_period_us": "100000",
        f"{folder}cpu.cfs_quota_us": "-1",
    }
    assert threads._cgroup_quota(cgroup_tree(tmp_path, "4:memory:/x\n2:cpu,cpuacct:/job\n", V1, files)) == 3


def test_cgroup_path_of_the_host_is_read_relative_to_the_mount(tmp_path):
    mount = "32 31 0:29 /docker/abc /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    files = {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}
    assert threads._cgroup_quota(cgroup_tree(tmp_path, "2:cpu:/docker/abc\n", mount, files)) == 4


def test_cgroup_that_is_not_visible_falls_back_to_the_mount(tmp_path):
    root = cgroup_tree(tmp_path, "0::/../../elsewhere\n", V2, {"sys/fs/cgroup/cpu.max": "700000 100000"})
    assert threads._cgroup_quota(root) == 7


def test_no_cgroups_no_quota(tmp_path):
    assert threads._cgroup_quota(tmp_path) is None
    assert threads._cgroup_quota(cgroup_tree(tmp_path, "garbage\n::\n", "1 2 3\n\n - \n", {})) is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_child_uses_one_thread(machine):
    threads.set_num_threads(4)
    pid = os.fork()
    if pid == 0:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            threads.set_num_threads(3)
        os._exit(0 if threads.get_num_threads() == 1 and "forked" in str(caught[0].message) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert threads.get_num_threads() == 4


def test_import_reads_nothing():
    code = "import os; os.environ['FASTRNN_NUM_THREADS'] = 'bad'; import fastrnn.threads as t; assert t._chosen is None"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
