"""The progress bar of `fit`, `evaluate` and `predict`.

On a terminal one line is redrawn in place, at most ten times a second and never wider than the window; only the last
picture, which stays, may need a second line. Anywhere else (a file, a pipe, a CI log) each epoch is one plain line,
without control characters.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

INTERVAL = 0.1
BAR_WIDTH = 24
SMALLEST_BAR = 8
Logs = Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None

_live: ProgressBar | None = None


def is_terminal(stream: Any) -> bool:
    """Whether a line on `stream` can be redrawn: terminals that are not dumb, and notebooks."""
    if "ipykernel" in sys.modules and type(stream).__module__.startswith("ipykernel"):
        return True
    try:
        return bool(stream.isatty()) and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):
        return False


def resolve(verbose: Any, stream: Any = None) -> int:
    """0 (silent), 1 (a bar) or 2 (a line an epoch) from what users write: "auto", 0, 1, 2 or a bool.

    A bar needs a terminal: elsewhere 1 and "auto" are 2.

    Raises:
        ValueError: for anything else.
    """
    if not (verbose == "auto" or (isinstance(verbose, (bool, int)) and verbose in (0, 1, 2))):
        raise ValueError(f'verbose must be "auto", 0, 1 or 2; received {verbose!r}')
    stream = sys.stdout if stream is None else stream
    if stream is None or verbose == 0:
        return 0
    return 1 if verbose in (1, "auto") and is_terminal(stream) else 2


def say(text: str) -> None:
    """Prints a line of its own, also while a bar is being drawn."""
    if _live is not None:
        _live.erase()
    print(text, flush=True)


def duration(seconds: float) -> str:
    """`"45ms"`, `"3.2s"`, `"47s"`, `"5:07"`, `"1:02:03"`."""
    if not math.isfinite(seconds) or seconds < 0:
        return "?"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, whole = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{whole:02d}" if hours else f"{minutes}:{whole:02d}"


def number(value: Any) -> str:
    """Four decimals, or four digits and an exponent for what four decimals cannot show."""
    try:
        value = float(value)
    except (TypeError, ValueError):
        return str(value)
    if value == 0 or not math.isfinite(value) or 1e-3 <= abs(value) < 1e7:
        return f"{value:.4f}"
    return f"{value:.4e}"


class ProgressBar:
    """One pass over the data: steps, time left (or taken), samples a second, loss and metrics.

    Args:
        total: number of steps, None if nobody knows.
        title: what stands before it: above the bar, or at the beginning of the line.
        verbose: 0, 1, 2 as `resolve` gives them.
        stream: where to write, `sys.stdout` by default.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        total: int | None,
        title: str = "",
        *,
        verbose: int = 1,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.total, self.title, self.verbose = total, title, verbose
        self.stream: Any = sys.stdout if stream is None else stream
        self.clock = clock
        self.step = self.samples = 0
        self.start = self.now = clock()
        self.first: tuple[float, int] | None = None
        self.due = self.start
        self.width = 0
        if verbose == 1:
            self._take_the_line()
            if title:
                self._write(f"{title}\n")

    def update(self, step: int, logs: Logs = None, size: int | None = None) -> None:
        """`step` steps are done, the last with `size` samples. A function given as `logs` is called only to draw."""
        self.step = step
        self.samples += size or 0
        if not self.verbose:
            return
        self.now = self.clock()
        if self.first is None:
            self.first = (self.now, step)
        if self.verbose == 1 and (self.now >= self.due or step == self.total):
            self.due = self.now + INTERVAL
            self._draw(self._fields(logs, running=True))

    def finish(self, logs: Logs = None) -> None:
        """The last picture, with the time the whole pass took."""
        if self.verbose == 1:
            self._draw(self._fields(logs, running=False), whole=True)
            self._release()
        elif self.verbose == 2:
            head = [self.title] if self.title else []
            self._write(" - ".join([*head, self._steps(), *self._fields(logs, running=False)]) + "\n")

    def abort(self) -> None:
        """Leaves the last picture standing and goes on to a new line."""
        if self.verbose == 1 and _live is self:
            self._release()

    def erase(self) -> None:
        """Clears the line; the next update draws it again."""
        if self.width:
            self._write("\r" + " " * self.width + "\r")
            self.width = 0
        self.due = self.start

    def _take_the_line(self) -> None:
        global _live
        if _live is not None:
            _live.abort()
        _live = self

    def _release(self) -> None:
        global _live
        if self.width:
            self._write("\n")
        self.width = 0
        if _live is self:
            _live = None

    def _steps(self) -> str:
        if self.total is None:
            return f"{self.step} steps"
        return f"{self.step:{len(str(self.total))}d}/{self.total}"

    def _fields(self, logs: Logs, running: bool) -> list[str]:
        taken = self.now - self.start
        fields = []
        if running and self.total is not None and self.step < self.total:
            fields.append(f"{duration(self._seconds_a_step() * (self.total - self.step))} left")
        else:
            fields.append(duration((self.now if running else self.clock()) - self.start))
        if self.samples and taken > 0:
            rate = self.samples / taken
            fields.append(f"{rate:,.0f} samples/s" if rate >= 10 else f"{rate:.2f} samples/s")
        shown = logs() if callable(logs) else logs
        fields += [f"{name}: {number(value)}" for name, value in (shown or {}).items()]
        return fields

    def _seconds_a_step(self) -> float:
        """Without the first step where there are more: it also sets things up."""
        if self.first is not None and self.step > self.first[1]:
            return (self.now - self.first[0]) / (self.step - self.first[1])
        return (self.now - self.start) / max(self.step, 1)

    def _draw(self, fields: list[str], whole: bool = False) -> None:
        if _live is not self:
            self._take_the_line()
        room = shutil.get_terminal_size((80, 24)).columns - 1
        steps, rest = self._steps(), " - ".join(fields)
        bar = ""
        if self.total:
            width = min(BAR_WIDTH, room - len(steps) - len(rest) - 2)
            if width >= SMALLEST_BAR:
                full = min(width, width * self.step // self.total)
                done, left = self._signs()
                bar = done * full + left * (width - full) + " "
        line = f"{steps} {bar}{rest}"
        if len(line) > room and not whole:
            line = line[: max(room - 3, 0)] + "..."
        self._write("\r" + line.ljust(min(self.width, room)))
        self.width = len(line)

    def _signs(self) -> tuple[str, str]:
        try:
            "━╌".encode(getattr(self.stream, "encoding", None) or "ascii")
        except (UnicodeEncodeError, LookupError):
            return "=", "."
        return "━", "╌"

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
        except UnicodeEncodeError:
            encoding = self.stream.encoding or "ascii"
            self.stream.write(text.encode(encoding, "replace").decode(encoding))
        self.stream.flush()
