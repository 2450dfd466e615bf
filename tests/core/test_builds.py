"""What the compiled module says about itself, and how a build is forced."""

from __future__ import annotations

import os

import pytest
from fresh_python import start
from kernel_cases import BUILDS

from fastrnn._core import kernels

ORDER = ("avx512", "avx2", "baseline")


@pytest.mark.parametrize(
    ("cell", "gates", "states", "bias_rows"),
    (("rnn", "h", 1, 1), ("lstm", "ifco", 2, 1), ("gru", "zrh", 1, 2), ("gru_reset_before", "zrh", 1, 1)),
)
def test_cells_in_keras_gate_order(cell, gates, states, bias_rows):
    about = kernels.cells[cell]
    assert (about.name, about.gates, about.states, about.bias_rows) == (cell, gates, states, bias_rows)
    assert set(about.activations) <= set(kernels.activations)


def test_every_activation_of_keras_whose_slope_follows_from_its_output():
    wanted = "tanh sigmoid relu linear hard_sigmoid softsign elu selu softplus exponential"
    assert sorted(kernels.activations) == sorted(wanted.split())


def test_the_build_in_use_is_available_and_the_best():
    assert kernels.isa in BUILDS
    assert isinstance(kernels.config(), dict)
    if "FASTRNN_ISA" not in os.environ:
        assert kernels.isa == BUILDS[0]


def import_with(isa):
    return start("from fastrnn._core import kernels; print(kernels.isa, *kernels.available)", FASTRNN_ISA=isa)


def test_builds_are_known_best_first():
    assert list(BUILDS) == [isa for isa in ORDER if isa in BUILDS] and BUILDS[-1] == "baseline"


@pytest.mark.parametrize("isa", BUILDS)
def test_a_forced_build_is_used(isa):
    done = import_with(isa)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == isa


def test_an_unknown_build_is_an_import_error_that_lists_those_there_are():
    done = import_with("sse9")
    assert done.returncode != 0 and "ImportError" in done.stderr and "sse9" in done.stderr
    for isa in BUILDS:
        assert isa in done.stderr
