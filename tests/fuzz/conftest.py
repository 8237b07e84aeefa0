"""What every fuzz test runs under: no network, a folder of its own, and an end."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from fuzz.budget import HANGS_AFTER_SECONDS


class Hangs(BaseException):
    """No `Exception`, so that nothing takes it for a mistake of the input."""


@pytest.fixture(autouse=True)
def _ends() -> Iterator[None]:
    """A test that hangs fails."""

    def hangs(number: int, frame: FrameType | None) -> None:
        raise Hangs(f"not done after {HANGS_AFTER_SECONDS} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(HANGS_AFTER_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever an input names, no test asks the network; and what it names relative to here is in the test's own folder."""
    from huggingface_hub import constants

    def refused(*_: Any, **__: Any) -> Any:
        raise ConnectionRefusedError("the tests have no network")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.chdir(tmp_path)
