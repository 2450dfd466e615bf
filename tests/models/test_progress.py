"""The progress bar: what it shows, how often, and that it stays plain outside terminals."""

from __future__ import annotations

import io
import re

import pytest

from fastrnn.models import progress
from fastrnn.models.progress import ProgressBar


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def window(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    yield
    assert progress._live is None


def screen(text: str) -> list[str]:
    """What a terminal shows after `text`: carriage returns go back to the beginning of the line."""
    lines = [""]
    for part in re.findall(r"\r|\n|[^\r\n]+", text):
        if part == "\n":
            lines.append("")
            column = 0
        elif part == "\r":
            column = 0
        else:
            column = 0 if not lines[-1] else column
            lines[-1] = lines[-1][:column] + part + lines[-1][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines]


def run(steps, *, total, verbose=1, stream=None, seconds=0.5, size=32, logs=None, title=""):
    clock, stream = Clock(), Terminal() if stream is None else stream
    bar = ProgressBar(total, title, verbose=verbose, stream=stream, clock=clock)
    for step in range(1, steps + 1):
        clock.now += seconds
        bar.update(step, {"loss": 1.0 / step} if logs is None else logs, size)
    bar.finish({"loss": 0.25, "val_loss": 0.5})
    return stream.getvalue()


def test_a_running_bar_shows_steps_time_left_rate_and_loss():
    clock, stream = Clock(), Terminal()
    bar = ProgressBar(100, "Epoch 1/3", verbose=1, stream=stream, clock=clock)
    for step in range(1, 26):
        clock.now += 2.0
        bar.update(step, {"loss": 0.5, "accuracy": 1 / 3}, 64)
    bar.abort()
    lines = screen(stream.getvalue())
    assert lines == [
        "Epoch 1/3",
        " 25/100 " + "━" * 6 + "╌" * 18 + " 2:30 left - 32 samples/s - loss: 0.5000 - accuracy: 0.3333",
        "",
    ]


def test_a_finished_bar_shows_the_time_taken_and_the_logs_of_the_epoch():
    lines = screen(run(4, total=4))
    assert lines == ["4/4 " + "━" * 24 + " 2.0s - 64 samples/s - loss: 0.2500 - val_loss: 0.5000", ""]


def test_the_first_step_does_not_count_for_the_time_left():
    clock, stream = Clock(), Terminal()
    bar = ProgressBar(11, verbose=1, stream=stream, clock=clock)
    clock.now += 50
    bar.update(1)
    clock.now += 1
    bar.update(2)
    bar.abort()
    assert "9.0s left" in screen(stream.getvalue())[0]


def test_validation_after_the_last_step_does_not_slow_the_rate():
    clock, stream = Clock(), Terminal()
    bar = ProgressBar(1, verbose=1, stream=stream, clock=clock)
    clock.now += 2
    bar.update(1, None, 100)
    clock.now += 8
    bar.finish()
    assert "10s - 50 samples/s" in screen(stream.getvalue())[0]


def test_at_most_ten_pictures_a_second_and_logs_are_made_only_to_draw():
    made = []
    text = run(1000, total=1000, seconds=0.002, logs=lambda: made.append(1) or {"loss": 1.0})
    assert 18 <= len(made) <= 23
    assert text.count("\r") == len(made) + 1


def test_the_last_step_is_always_drawn():
    clock, stream = Clock(), Terminal()
    bar = ProgressBar(2, verbose=1, stream=stream, clock=clock)
    bar.update(1)
    bar.update(2)
    bar.abort()
    assert screen(stream.getvalue())[0].startswith("2/2")


@pytest.mark.parametrize("columns", [10, 20, 40, 60, 79, 80, 81, 200])
def test_no_line_but_the_last_is_wider_than_the_window(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    logs = {"loss": 0.123456, "sparse_categorical_accuracy": 0.5, "a_very_long_name_of_a_metric": 1e-9}
    *running, last, _ = re.split(r"[\r\n]", run(30, total=12345, logs=logs))
    assert all(len(piece) < columns for piece in running)
    assert "val_loss: 0.5000" in last


def test_a_shorter_line_leaves_nothing_of_a_longer_one():
    clock, stream = Clock(), Terminal()
    bar = ProgressBar(None, verbose=1, stream=stream, clock=clock)
    clock.now += 1
    bar.update(1, {"a_long_name": 123456.0, "another": 5.0})
    clock.now += 1
    bar.update(2, {"x": 1.0})
    bar.abort()
    assert screen(stream.getvalue())[0] == "2 steps 2.0s - x: 1.0000"


def test_unknown_number_of_steps():
    lines = screen(run(7, total=None))
    assert lines[0] == "7 steps 3.5s - 64 samples/s - loss: 0.2500 - val_loss: 0.5000"


def test_a_line_an_epoch_has_no_control_characters():
    text = run(5, total=5, verbose=2, stream=io.StringIO(), title="Epoch 2/3")
    assert text == "Epoch 2/3 - 5/5 - 2.5s - 64 samples/s - loss: 0.2500 - val_loss: 0.5000\n"


def test_silence():
    assert run(5, total=5, verbose=0) == ""


def test_streams_without_unicode_get_plain_signs():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline="")
    stream.isatty = lambda: True
    clock = Clock()
    bar = ProgressBar(2, "Epoche ü", verbose=1, stream=stream, clock=clock)
    clock.now += 1
    bar.update(1, {"größe": 1.0}, 8)
    bar.abort()
    stream.seek(0)
    assert "1/2 ============............ 1.0s left - 8.00 samples/s - gr??e: 1.0000" in stream.read()


def test_verbose_is_resolved_by_the_stream(monkeypatch):
    assert [progress.resolve(v, Terminal()) for v in ("auto", 0, 1, 2, True, False)] == [1, 0, 1, 2, 1, 0]
    assert [progress.resolve(v, io.StringIO()) for v in ("auto", 0, 1, 2)] == [2, 0, 2, 2]
    monkeypatch.setenv("TERM", "dumb")
    assert progress.resolve("auto", Terminal()) == 2
    monkeypatch.setattr("sys.stdout", None)
    assert progress.resolve("auto") == 0


@pytest.mark.parametrize("verbose", ["loud", 3, -1, None, 1.5])
def test_unknown_verbose_is_refused(verbose):
    with pytest.raises(ValueError, match='verbose must be "auto", 0, 1 or 2'):
        progress.resolve(verbose)


def test_a_message_gets_a_line_of_its_own(monkeypatch):
    clock, stream = Clock(), Terminal()
    monkeypatch.setattr("sys.stdout", stream)
    bar = ProgressBar(2, verbose=1, clock=clock)
    clock.now += 1
    bar.update(1, {"loss": 1.0})
    progress.say("saved")
    bar.update(2, {"loss": 0.5})
    bar.finish({"loss": 0.5})
    lines = screen(stream.getvalue())
    assert lines[0] == "saved" and lines[1].startswith("2/2") and lines[2:] == [""]


def test_a_second_bar_starts_below_the_first():
    clock, stream = Clock(), Terminal()
    outer = ProgressBar(2, verbose=1, stream=stream, clock=clock)
    outer.update(1)
    inner = ProgressBar(1, verbose=1, stream=stream, clock=clock)
    inner.update(1)
    inner.finish()
    outer.update(2)
    outer.finish()
    lines = screen(stream.getvalue())
    assert [line[:3] for line in lines] == ["1/2", "1/1", "2/2", ""]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0124, "12ms"),
        (0.9996, "1.0s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (59.6, "1:00"),
        (307, "5:07"),
        (3723.2, "1:02:03"),
        (float("inf"), "?"),
        (float("nan"), "?"),
    ],
)
def test_durations(seconds, text):
    assert progress.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.5000"),
        (0, "0.0000"),
        (1e-3, "0.0010"),
        (5e-5, "5.0000e-05"),
        (-5e-5, "-5.0000e-05"),
        (1e9, "1.0000e+09"),
        (float("nan"), "nan"),
        ("abc", "abc"),
    ],
)
def test_numbers(value, text):
    assert progress.number(value) == text
