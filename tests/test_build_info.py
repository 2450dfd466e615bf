"""show_config: what it prints and what it returns."""

from __future__ import annotations

import numpy as np
import pytest

from fastrnn import build_info, threads
from fastrnn._core import kernels


def test_dict_names_builds_and_threads():
    found = build_info.show_config(mode="dict")
    assert found["threads"] == threads.get_num_threads() and found["numpy"] == np.__version__
    core = found["kernels"]
    assert core["chosen"] == kernels.isa and core["chosen"] in core["available"]
    assert set(core["available"]) <= set(core["compiled"])


def test_printed_lines_name_the_same(capsys):
    assert build_info.show_config() is None
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["kernels"].startswith(kernels.isa) and lines["threads"] == str(threads.get_num_threads())
    assert list(lines) == ["fastrnn", "kernels", "compiler", "openmp", "threads", "numpy", "python"]


def test_unknown_mode_is_refused():
    with pytest.raises(ValueError, match='mode "stdout" or "dict"; received \'json\''):
        build_info.show_config("json")
