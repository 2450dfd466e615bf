"""What several tests of models need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fastrnn import config, threads
from fastrnn.models import recorded


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Puts back what tests set for the whole process."""
    count, epsilon = threads.get_num_threads(), config.epsilon()
    yield
    threads.set_num_threads(count)
    config.set_epsilon(epsilon)


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """One entry for each step that was replayed by itself: its number of rows. No steps are taken together."""
    found: list[int] = []
    before = recorded.Repeated._replay

    def counted(self: Any, form: Any, step: Any, batch: Any, settings: Any) -> Any:
        gradients = before(self, form, step, batch, settings)
        found.append(batch.size)
        return gradients

    monkeypatch.setattr(recorded.Repeated, "_replay", counted)
    monkeypatch.setattr(recorded, "RUN_SECONDS", 0)
    yield found
