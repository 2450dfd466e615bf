"""examples/stream.py: live forecasts are those of predict."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

_path = Path(__file__).parents[2] / "examples" / "stream.py"
_spec = importlib.util.spec_from_file_location("stream", _path)
stream = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(stream)


def test_live_forecasts_are_those_of_predict(capsys):
    error, equal, microseconds = stream.main(["--quick"])
    assert equal == 1 and error < 0.95 and microseconds > 0
    assert re.search(
        r"100.00% of them are those of predict; a step of LSTM\(32\) takes [\d.]+ us", capsys.readouterr().out
    )
