"""A viewer of a folder with a made-up run, asked without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from made_runs import write_running
from starlette.testclient import TestClient
from viewer_client import TOKEN, Connect

from harness.view.app import build
from harness.view.folders import Runs


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of runs with one that runs, `half`."""
    folder = tmp_path / "runs"
    write_running(folder / "half")
    return folder


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Opens a client of a viewer; paths begin with the token unless `bare`."""
    opened: list[TestClient] = []

    def open_client(folder: Path, *, bare: bool = False) -> TestClient:
        app, _ = build(Runs.of(folder), TOKEN)
        opened.append(TestClient(app, base_url=f"http://127.0.0.1:8765{'' if bare else f'/{TOKEN}'}"))
        return opened[-1]

    yield open_client
    for client in opened:
        client.close()
