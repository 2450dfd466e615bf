"""The suite's tables are consistent, wrong results are caught, and the report says what the rows say."""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
SUITE = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def suite():
    """A function that imports a module of the suite, though the clone's root is not on the path."""
    spec = importlib.util.spec_from_file_location(
        "benchmarks", SUITE / "__init__.py", submodule_search_locations=[str(SUITE)]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "benchmarks", importlib.util.module_from_spec(spec))
        yield lambda name: importlib.import_module(f"benchmarks.{name}")
        for name in [n for n in sys.modules if n.startswith("benchmarks.")]:
            del sys.modules[name]


def row(case, subject, ms, repeat=0, variant=""):
    return {
        "case": case, "group": case.split("/")[0], "cell": "", "shape": "", "kind": "", "variant": variant,
        "subject": subject, "version": "1", "threads": 2, "repeat": repeat, "runs": 3, "difference": 0.0,
        "min_ms": ms, "median_ms": ms, "gflops": 1.0,
    }  # fmt: skip


ABOUT = {"date": "today", "cpu": "a CPU", "cores": 2, "isa": "", "command": "run", "not_installed": ["jax"]}
MACHINE = {
    "flops": 1e11, "l2": 1e11, "l3": 5e10, "memory": 1e10, "threads": 2, "l2_bytes": 2**19, "l3_bytes": 2**25,
    "why_unknown": "",
}  # fmt: skip


def lines(rows, machine=MACHINE):
    return [json.dumps(r) for r in (ABOUT, *rows, {"machine": machine})]


def cells(page, start):
    """The cells of the one table row that begins with `start`, numbers as numbers."""
    [found] = [line for line in page.splitlines() if line.startswith(f"| {start} |")]
    return [c.strip() for c in found.split("|")[2:-1]]


def test_every_case_has_its_own_name_and_ours_can_do_it(suite):
    cases = suite("cases")
    found = [case for group in cases.GROUPS.values() for case in group.cases]
    assert len({case.name for case in found}) == len(found)
    ours = (SUITE / "subjects" / "fastrnn.py").read_text()
    assert all(f"\ndef {case.kind}(" in ours for case in found)
    for name, group in cases.GROUPS.items():
        assert {case.group for case in group.cases} == {name} and group.subjects[0] == "fastrnn"
        assert all(set(cases.RIVALS[case.kind]) & set(group.subjects) or name == "threads" for case in group.cases)
        assert all((SUITE / "subjects" / f"{subject}.py").exists() for subject in group.subjects)


def test_flops_and_lengths_are_those_of_the_equations(suite):
    cases = suite("cases")
    lstm = cases.Case("forward", "LSTM", "tiny", "forward")
    assert lstm.flops() == 2 * 32 * 50 * (4 * 32) * (8 + 32)
    assert cases.Case("training", "LSTM", "tiny", "training").flops() == 3 * lstm.flops()
    masked = cases.Case("masked", "GRU", "medium", "forward", ("masked", "full"))
    lengths = masked.lengths("masked")
    assert lengths.min() >= 1 and lengths.max() == 50 and abs(lengths.mean() / 50 - 0.5) < 0.01
    assert masked.flops("masked") / masked.flops("full") == pytest.approx(lengths.mean() / 50)
    assert cases.Case("streaming", "LSTM", "stream32", "step").weight_reads() == (4 * 128 * 64, 1)
    assert cases.thread_counts(6) == ("1", "2", "4", "6")


def test_report_takes_the_median_of_each_repetitions_ratio_to_the_best_rival(suite):
    name = "training/LSTM/tiny"
    times = {"fastrnn": [1.0, 2.0, 1.0], "torch": [3.0, 8.0, 9.0], "jax": [5.0, 4.0, 4.0], "numpy": [0.5] * 3}
    rows = [row(name, subject, ms, i) for subject, values in times.items() for i, ms in enumerate(values)]
    rows += [row("training/LSTM/small", subject, ms) for subject, ms in (("fastrnn", 1.0), ("torch", 12.0))]
    page = suite("report").report(suite("results").Results(lines(rows)))
    assert cells(page, "**LSTM**, best of torch, jax") == ["3.00", "12.00", "6.00"]  # of 3, 2, 4
    assert cells(page, "LSTM, torch") == ["4.00", "12.00", "6.93"]
    assert cells(page, "LSTM, jax") == ["4.00", "", "4.00"]
    assert "Not installed, so left out: jax." in page and "3 repetitions" in page


def test_share_of_the_limit_is_the_least_possible_time_by_ours(suite):
    results = suite("results").Results(lines([row("forward/LSTM/large", "fastrnn", 100.0)]))
    [case] = results.cases("forward")
    assert results.limit(case) == (pytest.approx(case.flops() / 1e11 * 1e3), "FMA")
    assert cells(suite("report").report(results), "LSTM") == ["134 % FMA"]
    one_row = suite("cases").Case("sequences", "LSTM", "seq512", "forward")
    least, which = results.limit(one_row)
    in_l2 = 2 * 2**19
    assert which == "reads"
    assert least == pytest.approx(100 * (in_l2 / 1e11 + (4 * 4 * 512 * 512 - in_l2) / 5e10) * 1e3)


def test_report_without_limits_or_with_failures_says_so(suite):
    failed = {"case": "fit/words", "group": "fit", "subject": "", "failed": "fit/words: results differ"}
    left = row("training/GRU/tiny", "openvino", 1.0) | {"left_out": "no training", "kind": "training"}
    del left["min_ms"]
    unknown = dict.fromkeys(("flops", "l2", "l3", "memory"), 0.0) | {"why_unknown": "no C compiler", "threads": 2}
    rows = [row("forward/GRU/tiny", "fastrnn", 1.0), left, failed]
    page = suite("report").report(suite("results").Results(lines(rows, unknown)))
    assert "Unknown: no C compiler." in page and "share of the machine's limit" not in page
    assert "- failed: fit/words: results differ" in page and "openvino, training training: no training" in page


def test_special_tables_divide_the_right_way(suite):
    rows = [
        row("masked/GRU/medium/forward", "fastrnn", 6.0, variant="masked"),
        row("masked/GRU/medium/forward", "fastrnn", 10.0, variant="full"),
        row("masked/GRU/medium/forward", "torch", 9.0, variant="masked"),
        row("fit/weather", "fastrnn", 500.0),
        row("fit/weather", "keras", 2000.0),
        *(
            {**row("memory/GRU/large/training", subject, 1.0), "growth_mb": mb}
            for subject, mb in (("fastrnn", 40), ("torch", 80))
        ),
    ]
    page = suite("report").report(suite("results").Results(lines(rows)))
    assert cells(page, "GRU forward, medium") == ["0.60", "1.50"]
    assert cells(page, "weather") == ["16384", "4096", "4.00"]
    assert cells(page, "GRU, large") == ["40.0", "80.0", "0.50"]


def test_geometric_mean_skips_what_is_missing(suite):
    mean = suite("results").geometric_mean
    assert mean([2.0, math.nan, 8.0]) == pytest.approx(4.0) and math.isnan(mean([math.nan]))


def test_a_subject_with_other_results_fails_the_case(suite):
    run, cases = suite("run"), suite("cases")

    class Told:
        def __init__(self, *results):
            self.results = results

        def ask(self, check):
            np.savez(check, *self.results)

    y = np.linspace(1, 2, 5)
    case = cases.Case("forward", "GRU", "tiny", "forward")
    ours, peer = run.Contestant("fastrnn", "", 2), run.Contestant("torch", "", 2)
    found = run.check(case, {ours: Told(y), peer: Told(y * (1 + 1e-6))})
    assert found[ours] == 0 and found[peer] == pytest.approx(1e-6)
    for wrong in (y * (1 + 1e-4), y * np.nan):
        with pytest.raises(run.Failed, match="torch"):
            run.check(case, {ours: Told(y), peer: Told(wrong)})


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_the_suite_runs_from_end_to_end(tmp_path):
    """A naive loop in NumPy and we compute the same, in training and step by step."""
    out = tmp_path / "results.jsonl"
    options = [
        "--groups",
        "training,streaming,memory",
        "--subjects",
        "fastrnn,numpy",
        "--cases",
        "LSTM/tiny,GRU/stream32,memory/GRU",
    ]
    brief = ["--turns", "1", "--seconds", "0.001", "--out", str(out)]
    command = [sys.executable, "-m", "benchmarks.run", *options, *brief]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()][1:-1]
    timed = {(r["case"], r["subject"]): r["min_ms"] for r in rows if "min_ms" in r}
    assert len(timed) == 4 and all(ms > 0 for ms in timed.values())
    growth = {r["subject"]: r["growth_mb"] for r in rows if "growth_mb" in r}
    assert set(growth) == {"fastrnn", "numpy"} and all(1 < mb < 1000 for mb in growth.values())
    report = [sys.executable, "-m", "benchmarks.report", str(out)]
    page = subprocess.run(report, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "LSTM, numpy" in page and "## The machine's limits" in page
