"""A run that is stopped and goes on from its file gives the bits of a run that was not stopped."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from saving_zoo import floats

from fastrnn import Input, Sequential, callbacks, layers, optimizers, registry, utils
from fastrnn.models import load_model
from fastrnn.saving import SaveError

EVERY = sorted(
    {registry.lookup("optimizer", name) for name in registry.names("optimizer")}, key=lambda cls: cls.__name__
)
OPTIONS = {
    "momentum": lambda: optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "schedule": lambda: optimizers.Adam(optimizers.schedules.CosineDecay(0.01, 20, warmup_target=0.05, warmup_steps=4)),
    "clipping": lambda: optimizers.RMSprop(0.01, momentum=0.5, centered=True, global_clipnorm=0.1),
    "average": lambda: optimizers.AdamW(0.01, use_ema=True, ema_momentum=0.7, ema_overwrite_frequency=2),
    "accumulation": lambda: optimizers.Adam(0.01, amsgrad=True, gradient_accumulation_steps=3),
    **{cls.__name__: cls for cls in EVERY},
}


def make(optimizer, seed=3):
    """Dropout of every kind, states that go on, and shuffled data."""
    utils.set_random_seed(seed)
    model = Sequential(
        [
            Input((None, 3)),
            layers.LSTM(4, dropout=0.2, recurrent_dropout=0.3, return_sequences=True),
            layers.Dropout(0.3),
            layers.GRU(3, stateful=True, dropout=0.1),
            layers.Dense(2, kernel_regularizer="l2"),
        ]
    )
    model.compile(optimizer, "mse")
    return model


X, Y = floats(16, 5, 3), floats(16, 2, seed=1)


def run(model, epochs, start=0, **arguments):
    return model.fit(X, Y, batch_size=4, epochs=epochs, initial_epoch=start, verbose=0, **arguments).history["loss"]


def digest(model):
    return hashlib.sha256(b"".join(w.tobytes() for w in model.get_weights())).hexdigest()


@pytest.mark.parametrize("option", [option for option in OPTIONS if option != "average"])
def test_a_stopped_run_goes_on_exactly(option, tmp_path):
    whole = make(OPTIONS[option]())
    losses = run(whole, 4)
    stopped = make(OPTIONS[option]())
    first = run(stopped, 2)
    stopped.save(tmp_path / "a.safetensors")
    utils.set_random_seed(1234)
    again = load_model(tmp_path / "a.safetensors")
    assert first + run(again, 4, 2) == losses
    assert digest(again) == digest(whole) and again.optimizer.iterations == whole.optimizer.iterations


@pytest.mark.parametrize("option", OPTIONS)
def test_a_checkpointed_run_goes_on_exactly(option, tmp_path):
    """Also with averaged weights, which the model takes only at the end of fit."""
    path = str(tmp_path / "{epoch}.safetensors")
    whole = make(OPTIONS[option]())
    losses = run(whole, 3, callbacks=callbacks.ModelCheckpoint(path))
    again = load_model(path.format(epoch=1))
    assert run(again, 3, 1) == losses[1:] and digest(again) == digest(whole)


def test_the_check_would_notice_other_random_numbers(tmp_path):
    stopped = make("adam")
    run(stopped, 1)
    stopped.save(tmp_path / "a.safetensors")
    losses = run(load_model(tmp_path / "a.safetensors"), 2, 1)
    for change in ("shuffle", "seeds", "layers"):
        again = load_model(tmp_path / "a.safetensors")
        state = again.get_training_state()
        if change == "shuffle":
            state["shuffle"]["calls"] += 1
        elif change == "seeds":
            state["seeds"] = {path: seed ^ 1 for path, seed in state["seeds"].items()}
            state["layers"] = {
                path: {**entry, "seed": None if entry["seed"] is None else entry["seed"] ^ 1}
                for path, entry in state["layers"].items()
            }
        else:
            for entry in state["layers"].values():
                entry["states"] = None
        again.set_training_state(state)
        assert run(again, 2, 1) != losses, change


def test_another_process_goes_on_exactly(tmp_path):
    whole = make("nadam")
    run(whole, 3)
    stopped = make("nadam")
    run(stopped, 1)
    stopped.save(tmp_path / "a.safetensors")
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    code = """
        import hashlib, sys, numpy as np
        from fastrnn.models import load_model
        data = np.load(sys.argv[1] + "/data.npz")
        model = load_model(sys.argv[1] + "/a.safetensors")
        model.fit(data["x"], data["y"], batch_size=4, epochs=3, initial_epoch=1, verbose=0)
        print(hashlib.sha256(b"".join(w.tobytes() for w in model.get_weights())).hexdigest())
    """
    command = [sys.executable, "-P", "-c", textwrap.dedent(code), str(tmp_path)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == digest(whole)


# BackupAndRestore


class Dies(callbacks.Callback):
    def __init__(self, epoch, batch=0):
        self.at = epoch, batch
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise KeyboardInterrupt


def test_a_run_that_died_is_started_again_and_gives_the_same_bits(tmp_path):
    whole = make("adam")
    losses = run(whole, 5)
    backup = callbacks.BackupAndRestore(tmp_path / "backup")
    for epoch in (2, 4):
        with pytest.raises(KeyboardInterrupt):
            run(make("adam"), 5, callbacks=[backup, Dies(epoch, 1)])
        assert os.listdir(tmp_path / "backup") == ["latest.safetensors"]
    again = make("adam", seed=77)
    assert run(again, 5, callbacks=[backup]) == losses[4:] and digest(again) == digest(whole)
    assert not (tmp_path / "backup").exists()


def test_a_backup_every_so_many_batches_begins_the_epoch_again(tmp_path):
    backup = callbacks.BackupAndRestore(tmp_path / "backup", save_freq=3)
    with pytest.raises(KeyboardInterrupt):
        run(make("adam"), 3, callbacks=[backup, Dies(1, 3)])
    again = make("adam")
    assert len(run(again, 3, callbacks=[backup])) == 2
    assert again.optimizer.iterations == 6 + 8


def test_the_backup_before_the_last_stands_in_for_a_damaged_one(tmp_path):
    backup = callbacks.BackupAndRestore(tmp_path / "backup", double_checkpoint=True)
    with pytest.raises(KeyboardInterrupt):
        run(make("adam"), 4, callbacks=[backup, Dies(3)])
    latest = tmp_path / "backup" / "latest.safetensors"
    latest.write_bytes(latest.read_bytes()[:100])
    assert len(run(make("adam"), 4, callbacks=[backup])) == 2


def test_a_damaged_backup_alone_is_an_error(tmp_path):
    backup = callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(KeyboardInterrupt):
        run(make("adam"), 4, callbacks=[backup, Dies(3)])
    latest = tmp_path / "backup" / "latest.safetensors"
    latest.write_bytes(latest.read_bytes()[:100])
    with pytest.raises(SaveError, match=r"latest.safetensors"):
        run(make("adam"), 4, callbacks=[backup])


def test_a_kept_backup_and_the_files_of_others_stay(tmp_path):
    run(make("adam"), 1, callbacks=[callbacks.BackupAndRestore(tmp_path / "kept", delete_checkpoint=False)])
    assert os.listdir(tmp_path / "kept") == ["latest.safetensors"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    run(make("adam"), 1, callbacks=[callbacks.BackupAndRestore(tmp_path / "mine")])
    assert os.listdir(tmp_path / "mine") == ["notes.txt"]
