"""examples/char_lm.py: trains, writes, saves, goes on; its baseline is the Kneser-Ney model of the books."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

_path = Path(__file__).parents[2] / "examples" / "char_lm.py"
_spec = importlib.util.spec_from_file_location("char_lm", _path)
char_lm = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(char_lm)


def run(capsys, *arguments):
    """What the example prints, and the held-out bits per character of the LSTM and of the 5-gram."""
    char_lm.main([str(a) for a in arguments])
    printed = capsys.readouterr().out
    return printed, [float(x) for x in re.search(r"LSTM ([\d.]+), Kneser-Ney 5-gram ([\d.]+)", printed).groups()]


def test_quick_run_learns_writes_saves_and_goes_on(capsys, tmp_path):
    saved = tmp_path / "model.safetensors"
    printed, (first, baseline) = run(capsys, "--quick", "--epochs", 1, "--save", saved)
    assert re.search(r"[\d,]+ characters to learn, [\d,]+ held out; sha256 [0-9a-f]{16}", printed)
    assert "\nclass " in printed
    assert 1.5 < baseline < 3.0
    assert first < 3.5, "less than the 4.5 bits or so of single characters: it has learned to use their order"
    _, (second, again) = run(capsys, "--quick", "--epochs", 1, "--resume", saved, "--save", saved)
    assert again == baseline
    assert second < first - 0.05


def test_runs_of_so_many_epochs_repeat(capsys, tmp_path):
    text = tmp_path / "text"
    text.write_bytes(b"the quick brown fox jumps over the lazy dog. " * 400)
    options = ("--text", text, "--epochs", 2, "--units", 8, "--batch", 4, "--window", 16, "--length", 50)
    results = [run(capsys, *options, "--save", tmp_path / "m.safetensors")[1] for _ in range(2)]
    assert results[0] == results[1]


def test_stops_when_the_time_is_up(capsys, tmp_path):
    char_lm.main(["--megabytes", "0.3", "--units", "16", "--seconds", "0.5", "--save", str(tmp_path / "m.safetensors")])
    assert "training for 0.5 seconds" in capsys.readouterr().out


def test_text_that_is_too_short_is_refused_before_training(tmp_path):
    (tmp_path / "text").write_bytes(b"too short to hold out a tenth " * 100)
    with pytest.raises(SystemExit, match="300 characters are too few for 32 streams of 64"):
        char_lm.main(["--text", str(tmp_path / "text"), "--save", str(tmp_path / "m.safetensors")])


def test_streams_go_on_from_batch_to_batch():
    text = np.arange(100)
    x, y = char_lm.streams(text, batch=3, window=4)
    assert x.shape == y.shape == (24, 4)
    np.testing.assert_array_equal(y, x + 1)
    for k, start in enumerate((0, 32, 64)):
        np.testing.assert_array_equal(x[k::3].reshape(-1), np.arange(start, start + 32))
    with pytest.raises(SystemExit, match="too few"):
        char_lm.streams(np.arange(12), batch=3, window=4)


def naive_kneser_ney(text, order):
    """p(character | context) from dictionaries, straight from Chen and Goodman's equations."""
    counts = {order: Counter(tuple(text[i : i + order]) for i in range(len(text) - order + 1))}
    for n in range(order - 1, 0, -1):
        counts[n] = Counter(gram[1:] for gram in counts[n + 1])
    following = {n: defaultdict(dict) for n in counts}
    discounts = {}
    for n, grams in counts.items():
        for gram, c in grams.items():
            following[n][gram[:-1]][gram[-1]] = c
        n1, n2, n3, n4 = (max(1, sum(c == i for c in grams.values())) for i in (1, 2, 3, 4))
        y = n1 / (n1 + 2 * n2)
        steps = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        discounts[n] = [min(max(d, 0), i) for i, d in enumerate(steps, start=1)]

    def p(character, context):
        n = len(context) + 1
        lower = p(character, context[1:]) if context else 1 / 256
        seen = following[n].get(context)
        if not seen:
            return lower
        taken = [discounts[n][min(c, 3) - 1] for c in seen.values()]
        c = seen.get(character, 0)
        own = c - discounts[n][min(c, 3) - 1] if c else 0
        return (own + sum(taken) * lower) / sum(seen.values())

    return p


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_baseline_is_kneser_ney(order):
    rng = np.random.default_rng(0)
    text = rng.choice(6, 700, p=[0.5, 0.2, 0.1, 0.1, 0.05, 0.05]).cumsum() % 7 + 97
    held_out = np.concatenate([text[100:140], [98, 98, 250, 99], rng.integers(97, 106, 60)])
    p = naive_kneser_ney(text.tolist(), order)
    grams = [tuple(held_out[i : i + order].tolist()) for i in range(len(held_out) - order + 1)]
    expected = -np.mean([np.log2(p(gram[-1], gram[:-1])) for gram in grams])
    assert char_lm.KneserNey(text, order).bits(held_out) == pytest.approx(expected, rel=1e-12)
    for context in {gram[:-1] for gram in grams}:
        assert sum(p(character, context) for character in range(256)) == pytest.approx(1)
