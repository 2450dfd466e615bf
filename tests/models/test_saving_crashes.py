"""Crashes, full disks and interruptions while saving: the old file or the new one is there, and nothing else."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from fastrnn import Input, Sequential, callbacks, container, layers
from fastrnn.models import load_model
from fastrnn.saving import SaveError


def make(units=64):
    return Sequential([Input((None, 8)), layers.LSTM(units, recurrent_initializer="zeros"), layers.Dense(4)])


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    make().save(path)
    return path, path.read_bytes()


def assert_untouched(path, before):
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def fail(error):
    def instead(*arguments, **named):
        raise error

    return instead


@pytest.mark.parametrize(
    ("owner", "function"),
    [(os, "replace"), (os, "fsync"), (os, "chmod"), (container, "to_file"), (container, "_create")],
)
def test_a_failing_disk_leaves_the_old_file(saved, monkeypatch, owner, function):
    monkeypatch.setattr(owner, function, fail(OSError(28, "No space left on device")))
    with pytest.raises(SaveError, match=r"model\.safetensors cannot be written: .*No space left"):
        make().save(saved[0])
    assert_untouched(*saved)


def test_a_full_disk_leaves_the_old_file(saved):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(saved[1]) // 2, limits[1]))
    try:
        with pytest.raises(SaveError, match="cannot be written"):
            make().save(saved[0])
        with pytest.raises(SaveError, match="cannot be written"):
            make().save_weights(saved[0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_untouched(*saved)
    make().save(saved[0])
    load_model(saved[0])


def test_a_folder_that_cannot_be_written_leaves_the_old_file(saved):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    saved[0].parent.chmod(0o500)
    try:
        with pytest.raises(SaveError, match=r"cannot be written: .*Permission denied"):
            make().save(saved[0])
    finally:
        saved[0].parent.chmod(0o700)
    assert_untouched(*saved)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, SystemExit])
def test_interruptions_leave_the_old_file_and_are_passed_on(saved, monkeypatch, error):
    monkeypatch.setattr(container, "_sync", fail(error()))
    with pytest.raises(error):
        make().save(saved[0])
    assert_untouched(*saved)


def test_everything_is_synced_before_and_after_the_rename(tmp_path, monkeypatch):
    events = []
    sync, replace = container._sync, os.replace
    monkeypatch.setattr(container, "_sync", lambda path: (events.append(("sync", path)), sync(path)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append(("rename", b)), replace(a, b)))
    path = tmp_path / "model.safetensors"
    make().save(path)
    assert events[0][0] == "sync" and events[0][1].name.endswith(".tmp")
    assert events[1:] == [("rename", path), ("sync", tmp_path)]


def test_a_checkpoint_that_cannot_be_written_ends_fit_and_keeps_the_last(saved, monkeypatch):
    model = make()
    model.compile("sgd", "mse")
    monkeypatch.setattr(os, "fsync", fail(OSError(28, "No space left on device")))
    with pytest.raises(SaveError):
        model.fit(np.zeros((4, 3, 8)), np.zeros((4, 4)), verbose=0, callbacks=callbacks.ModelCheckpoint(saved[0]))
    assert_untouched(*saved)


@pytest.mark.skipif(os.name != "posix", reason="needs kill -9")
def test_kill_9_while_saving_leaves_a_loadable_file(tmp_path):
    path = tmp_path / "model.safetensors"
    code = """
        import sys, numpy as np
        from fastrnn import Input, Sequential, layers
        model = Sequential([Input((None, 8)), layers.LSTM(256, recurrent_initializer="zeros"), layers.Dense(4)])
        number = 0
        while True:
            model.set_weights([np.full(w.shape, number % 100, w.dtype) for w in model.weights])
            model.save(sys.argv[1])
            if number == 0:
                print("saved", flush=True)
            number += 1
    """
    seen = set()
    for round_ in range(8):
        child = subprocess.Popen([sys.executable, "-P", "-c", textwrap.dedent(code), str(path)], stdout=subprocess.PIPE)
        assert child.stdout.readline() == b"saved\n"
        time.sleep(0.003 + 0.0137 * round_)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        values = {float(v) for w in load_model(path).get_weights() for v in (w.min(), w.max())}
        assert len(values) == 1
        seen |= values
    assert len(seen) > 2
