"""The floors of the house: imports go down only, and importing the package loads nothing that is not used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fastrnn

PACKAGE = Path(fastrnn.__file__).parent
FLOORS = {
    "_core": 1,
    "_version": 1,
    "activations": 2,
    "build_info": 2,
    "config": 2,
    "constraints": 2,
    "container": 2,
    "graph": 2,
    "initializers": 2,
    "losses": 2,
    "masks": 2,
    "metrics": 2,
    "optimizers": 2,
    "params": 2,
    "registry": 2,
    "regularizers": 2,
    "rng": 2,
    "states": 2,
    "threads": 2,
    "utils": 2,
    "layers": 3,
    "saving": 3,
    "models": 4,
    "backend": 5,
    "callbacks": 5,
    "__init__": 6,
}
FORBIDDEN = {"utils", "common", "helpers", "base", "misc"}
FILES = sorted(p for p in PACKAGE.rglob("*.py") if "_core" not in p.parts or p.name == "__init__.py")


def unit(path: Path) -> str:
    """The file's, or folder's, name on the first level of the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> list[tuple[str, bool]]:
    """The units that a file imports from, and whether that happens when it is loaded itself."""
    tree = ast.parse(path.read_text())
    late = {id(n) for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.If)) for n in ast.walk(f)}
    here = ["fastrnn", *path.relative_to(PACKAGE).parts[:-1]]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = here[: len(here) + 1 - node.level] if node.level else []
            full = [*base, *(node.module.split(".") if node.module else [])]
            names = [[*full, alias.name] for alias in node.names] if len(full) == 1 else [full]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        else:
            continue
        found += [(name[1], id(node) not in late) for name in names if name[0] == "fastrnn" and len(name) > 1]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down_only(path: Path) -> None:
    own = unit(path)
    assert own in FLOORS, f"{own} stands on no floor: add it to FLOORS"
    for other, early in imported(path):
        if other != own:
            assert other in FLOORS, f"{path} imports {other}, which stands on no floor"
            assert FLOORS[other] <= FLOORS[own], f"{path} (floor {FLOORS[own]}) imports {other} (floor {FLOORS[other]})"
            if FLOORS[other] == FLOORS[own] == 2 and early:
                assert own not in {name for p in FILES if unit(p) == other for name, e in imported(p) if e}, (
                    f"{own} and {other} import each other"
                )


def test_no_module_is_called_by_a_name_that_says_nothing() -> None:
    names = {p.stem for p in FILES} | {p.name for p in PACKAGE.rglob("*") if p.is_dir()}
    assert names & FORBIDDEN == {"utils"} and (PACKAGE / "utils.py").exists()


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 480


def run(code: str) -> str:
    command = [sys.executable, "-P", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_importing_the_package_loads_no_part_of_it() -> None:
    assert (
        run("import sys, fastrnn; print(sorted(m for m in sys.modules if m.startswith('fastrnn')))")
        == "['fastrnn', 'fastrnn._version']"
    )


def test_public_names_are_where_keras_users_look_for_them() -> None:
    from fastrnn import layers
    from fastrnn.callbacks import EarlyStopping
    from fastrnn.layers import LSTM
    from fastrnn.models import Sequential, load_model
    from fastrnn.optimizers.schedules import ExponentialDecay
    from fastrnn.utils import pad_sequences, set_random_seed, to_categorical

    assert fastrnn.Sequential is Sequential and fastrnn.layers is layers and layers.LSTM is LSTM
    assert fastrnn.callbacks.EarlyStopping is EarlyStopping and fastrnn.models.load_model is load_model
    assert fastrnn.optimizers.schedules.ExponentialDecay is ExponentialDecay
    assert fastrnn.saving.load_model is load_model and fastrnn.backend.floatx() == fastrnn.config.floatx()
    assert all(
        map(
            callable,
            (pad_sequences, set_random_seed, to_categorical, fastrnn.show_config, fastrnn.Model, fastrnn.Layer),
        )
    )
    assert fastrnn.get_num_threads() >= 1 and fastrnn.__version__ and set(dir(fastrnn)) == set(fastrnn.__all__)
    for name in fastrnn.__all__:
        assert getattr(fastrnn, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'wrong'"):
        _ = fastrnn.wrong
