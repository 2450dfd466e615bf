"""README's promises: its examples run as printed, and its two commands are each one line."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_examples_run_in_order_in_one_session(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 6
    session: dict = {"__name__": "readme"}
    for number, block in enumerate(blocks):
        exec(compile(block, f"README.md example {number + 1}", "exec"), session)
    error = float(re.search(r"test error: (\S+)", capsys.readouterr().out)[1])
    assert error < 0.05


@pytest.mark.parametrize("last", ["python examples/char_lm.py", "pytest"])
def test_each_command_is_one_line_that_does_all_set_up(last):
    [line] = re.findall(rf"^ {{4}}(python3 -m venv \.venv && .*{re.escape(last)})$", README, re.MULTILINE)
    assert "pip install" in line


def test_files_that_readme_links_to_exist():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_minimum_python_is_the_one_of_the_package_metadata():
    import tomllib

    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert required.removeprefix(">=") in README
    assert sys.version_info >= tuple(map(int, required.removeprefix(">=").split(".")))
