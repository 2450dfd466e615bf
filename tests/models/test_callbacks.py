"""The callback list and its hooks, the bar, and the callbacks that log or stop."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest
from played_fit import Model, fit

from fastrnn import registry
from fastrnn.models import callbacks as C
from fastrnn.models.callback_list import BATCH_HOOKS, HOOKS


class Recorder(C.Callback):
    """Overrides every hook."""

    def __init__(self):
        self.calls = []


def _recorded(hook):
    def method(self, *args):
        self.calls.append((hook, *args))

    return method


for _hook in HOOKS:
    setattr(Recorder, _hook, _recorded(_hook))


# the list


def test_every_hook_is_called_in_order():
    recorder = Recorder()
    fit([recorder], [0.5], steps=1)
    names = [call[0] for call in recorder.calls]
    assert names == [
        "on_train_begin",
        "on_epoch_begin",
        "on_train_batch_begin",
        "on_train_batch_end",
        "on_epoch_end",
        "on_train_end",
    ]
    assert recorder.calls[3] == ("on_train_batch_end", 0, {"loss": 0.5})


@pytest.mark.parametrize("hook", HOOKS)
def test_each_hook_reaches_its_callback(hook):
    recorder = Recorder()
    every = C.CallbackList([recorder])
    arguments = (3, {"loss": 1.0}) if "batch" in hook or "epoch" in hook else ({"loss": 1.0},)
    getattr(every, hook)(*arguments)
    assert recorder.calls == [(hook, *arguments)]


def test_nobody_makes_logs_for_nobody():
    def logs():
        raise AssertionError("logs were made")

    every = C.CallbackList(
        [C.Callback(), C.EarlyStopping(), C.CSVLogger("x.csv")],
        add_history=True,
        add_progbar=True,
        verbose=0,
        epochs=1,
        steps=1,
    )
    assert not any(every._hooks[hook] for hook in BATCH_HOOKS)
    every.on_epoch_begin(0)
    for hook in ("on_train_batch_end", "on_test_batch_end", "on_predict_batch_end"):
        getattr(every, hook)(0, logs, 32)


def test_older_names_of_the_batch_hooks_work():
    class Old(C.Callback):
        calls = ()

        def on_batch_begin(self, batch, logs=None):
            self.calls += (("begin", batch),)

        def on_batch_end(self, batch, logs=None):
            self.calls += (("end", batch, logs),)

    old = Old()
    fit(old, [0.5], steps=2)
    assert old.calls == (("begin", 0), ("end", 0, {"loss": 0.5}), ("begin", 1), ("end", 1, {"loss": 0.5}))


def test_nested_lists_are_flattened_and_the_model_and_params_are_handed_over():
    a, b = C.Callback(), C.Callback()
    model = Model()
    every = C.CallbackList([a, [(b,)]], model=model, epochs=7)
    assert a.model is b.model is model and b.params == {"epochs": 7}
    later = C.Callback()
    every.append(later)
    assert later.model is model and later.params == {"epochs": 7}


def test_history_and_bar_are_not_added_twice():
    mine = C.History()
    every = C.CallbackList([mine, C.ProgbarLogger()], add_history=True, add_progbar=True)
    assert every.history is mine and len(every.callbacks) == 2


@pytest.mark.parametrize("bad", [[42], "EarlyStopping", [C.EarlyStopping], [lambda: None]])
def test_what_is_no_callback_is_refused(bad):
    with pytest.raises(TypeError, match="callbacks must be objects of"):
        C.CallbackList(bad)


def test_subclasses_need_not_call_super():
    class Mine(C.Callback):
        def __init__(self):
            pass

        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    assert len(fit([Mine()], [1.0, 1.0])[1].epoch) == 1


@pytest.mark.parametrize(
    "make",
    [
        C.EarlyStopping,
        C.ReduceLROnPlateau,
        C.TerminateOnNaN,
        lambda: C.ModelCheckpoint("a.safetensors"),
        lambda: C.CSVLogger("a.csv", ";", True),
        lambda: C.BackupAndRestore("x"),
        C.History,
    ],
)
def test_callbacks_have_configurations(make):
    callback = make()
    again = registry.deserialize(registry.serialize(callback))
    assert type(again) is type(callback) and again.get_config() == callback.get_config()


# History


def test_history_records_what_earlier_callbacks_added():
    class Adds(C.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["extra"] = epoch * 10

    model, history = fit([Adds()], [0.5, 0.25])
    assert history.history == {"loss": [0.5, 0.25], "extra": [0, 10]} and history.epoch == [0, 1]
    assert model.history is history


# the others


def test_nan_stops_training_quietly_at_its_batch(capsys):
    batches = []
    model, history = fit(
        [C.TerminateOnNaN(), C.LambdaCallback(on_train_batch_end=lambda batch, logs: batches.append(batch))],
        [1.0, math.nan, 1.0],
        steps=3,
    )
    assert model.stop_training and history.epoch == [0, 1] and batches == [0, 1, 2, 0]
    assert "loss is nan" in capsys.readouterr().out


def test_infinite_loss_raises_if_asked():
    with pytest.raises(RuntimeError, match="the loss is inf at batch 0"):
        fit([C.TerminateOnNaN(raise_error=True)], [math.inf])


def test_lambda_hooks():
    seen = []
    hooks = {
        "on_test_begin": lambda logs: seen.append("test"),
        "on_predict_batch_end": lambda batch, logs: seen.append(batch),
    }
    every = C.CallbackList(
        [
            C.LambdaCallback(
                lambda epoch, logs: seen.append(("begin", epoch)),
                lambda epoch, logs: seen.append(("end", logs["loss"])),
                **hooks,
            )
        ]
    )
    every.on_epoch_begin(0)
    every.on_epoch_end(0, {"loss": 1})
    every.on_test_begin()
    every.on_predict_batch_end(4)
    assert seen == [("begin", 0), ("end", 1), "test", 4]


def test_lambda_refuses_unknown_hooks():
    with pytest.raises(TypeError, match=r"no hook 'on_epoch_ends'; known are: .*on_epoch_end"):
        C.LambdaCallback(on_epoch_ends=print)


def read(path, separator=","):
    with open(path, newline="") as file:
        return list(csv.reader(file, delimiter=separator))


def test_csv_has_a_row_an_epoch(tmp_path):
    path = tmp_path / "log.csv"
    fit([C.CSVLogger(path)], [{"loss": 1.0, "accuracy": 0.5, "val_loss": 2.0}, {"loss": 0.5, "accuracy": 0.75}])
    assert read(path) == [
        ["epoch", "accuracy", "loss", "val_loss"],
        ["0", "0.5", "1.0", "2.0"],
        ["1", "0.75", "0.5", "NA"],
    ]


def test_csv_has_room_for_validation_that_comes_later(tmp_path):
    path = tmp_path / "log.csv"
    fit([C.CSVLogger(path, separator=";")], [{"loss": 1.0}, {"loss": 0.5, "val_loss": np.float32(0.25)}])
    assert read(path, ";") == [["epoch", "loss", "val_loss"], ["0", "1.0", "NA"], ["1", "0.5", "0.25"]]


def test_csv_appends_below_the_same_header(tmp_path):
    path = tmp_path / "log.csv"
    for _ in range(2):
        fit([C.CSVLogger(path, append=True)], [{"loss": 1.0, "val_loss": 2.0}])
    assert read(path) == [["epoch", "loss", "val_loss"], ["0", "1.0", "2.0"], ["0", "1.0", "2.0"]]
    fit([C.CSVLogger(path)], [{"loss": 3.0, "val_loss": 2.0}])
    assert len(read(path)) == 2


def test_csv_refuses_columns_the_file_does_not_have(tmp_path):
    path = tmp_path / "log.csv"
    fit([C.CSVLogger(path)], [{"loss": 1.0}])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="has the columns epoch, loss, val_loss; received also accuracy"):
        fit([C.CSVLogger(path, append=True)], [{"loss": 1.0, "accuracy": 1.0}])
    assert path.read_bytes() == before


def test_csv_is_on_disk_after_each_epoch_and_closed_by_abort(tmp_path):
    logger = C.CSVLogger(tmp_path / "log.csv")
    logger.on_train_begin()
    logger.on_epoch_end(0, {"loss": 1.0})
    assert len(read(tmp_path / "log.csv")) == 2
    file = logger._file
    C.CallbackList([logger]).abort()
    assert file.closed


# the bar


def shown(monkeypatch, terminal, work):
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("sys.stdout", stream)
    work()
    return stream.getvalue()


def test_bar_of_fit_names_the_epochs(monkeypatch):
    text = shown(monkeypatch, True, lambda: fit([], [0.5, 0.25], verbose="auto"))
    assert "Epoch 1/2\n" in text and "Epoch 2/2\n" in text and "loss: 0.2500" in text and text.endswith("\n")


def test_bar_of_one_epoch_does_not_count_it(monkeypatch):
    assert "Epoch" not in shown(monkeypatch, True, lambda: fit([], [0.5], verbose=1))


def test_outside_terminals_fit_prints_a_line_an_epoch(monkeypatch):
    text = shown(monkeypatch, False, lambda: fit([], [0.5, 0.25], verbose="auto"))
    lines = text.splitlines()
    assert len(lines) == 2 and lines[0].startswith("Epoch 1/2 - 2/2 - ") and lines[1].endswith("loss: 0.2500")
    assert "\r" not in text and "\x1b" not in text


def test_evaluation_inside_fit_is_silent_and_alone_it_is_not(monkeypatch):
    def work(inside):
        every = C.CallbackList(add_progbar=True, verbose=2, epochs=1, steps=1)
        if inside:
            every.on_train_begin()
        every.on_test_begin()
        every.on_test_batch_end(0, {"loss": 1.0}, 8)
        every.on_test_end({"loss": 1.0})

    assert shown(monkeypatch, False, lambda: work(True)) == ""
    assert shown(monkeypatch, False, lambda: work(False)).startswith("1/1 - ")


def test_the_number_of_steps_is_known_after_the_first_epoch(monkeypatch):
    def work():
        every = C.CallbackList(add_progbar=True, verbose=2, epochs=2, steps=None)
        every.on_train_begin()
        for epoch in range(2):
            every.on_epoch_begin(epoch)
            for step in range(3):
                every.on_train_batch_end(step, {}, 8)
            every.on_epoch_end(epoch, {})
        every.on_train_end()

    first, second = shown(monkeypatch, False, work).splitlines()
    assert first.startswith("Epoch 1/2 - 3 steps - ") and second.startswith("Epoch 2/2 - 3/3 - ")


def test_an_interrupted_bar_ends_its_line(monkeypatch):
    def work():
        every = C.CallbackList(add_progbar=True, verbose=1, epochs=1, steps=5)
        every.on_train_begin()
        every.on_epoch_begin(0)
        every.on_train_batch_end(0, {}, 8)
        every.abort()

    assert shown(monkeypatch, True, work).endswith("\n")
