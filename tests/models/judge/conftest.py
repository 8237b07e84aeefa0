"""A scripted judge for a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from models.judge.bench import Bench


@pytest.fixture
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """`@pytest.mark.parametrize("bench", [script], indirect=True)` says what the judge does."""
    made = Bench(tmp_path, getattr(request, "param", lambda prompt, times: f"Rating: [[{len(prompt)}]]"))
    with made.server.serving():
        yield made
