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

HERE = "127.0.0.1"  # where a test's own servers are


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

    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def refused(*_: Any, **__: Any) -> Any:
        raise ConnectionRefusedError("the tests have no network")

    def nearby(self: socket.socket, address: Any) -> Any:
        return connect(self, address) if address[0] == HERE else refused()

    def found(host: Any, *rest: Any, **said: Any) -> Any:
        return look_up(host, *rest, **said) if host == HERE else refused()

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket, "getaddrinfo", found)
    monkeypatch.setattr(socket.socket, "connect", nearby)
    monkeypatch.chdir(tmp_path)
