"""What signals do, whenever they come."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Iterator

import pytest

from harness.cli.compare import finish_first, leave
from harness.run.executors.events import Stop

FIRST = "finishing the running stages first; press Ctrl-C again to end at once\n"
SECOND = "interrupted; finished stages are kept, and the same command continues from them\n"


@pytest.fixture
def stop() -> Iterator[Stop]:
    before = signal.getsignal(signal.SIGINT)
    stop = Stop()
    finish_first(stop)
    yield stop
    signal.signal(signal.SIGINT, before)


def test_the_first_asks_and_the_second_ends(stop: Stop, capsys: pytest.CaptureFixture[str]) -> None:
    signal.raise_signal(signal.SIGINT)
    assert stop.asked
    with pytest.raises(SystemExit) as raised:
        signal.raise_signal(signal.SIGINT)
    assert raised.value.code == 130
    assert capsys.readouterr() == ("", FIRST + SECOND)


class Impatient(io.StringIO):
    """A terminal whose reader presses Ctrl-C when told how."""

    def write(self, text: str) -> int:
        written = super().write(text)
        if text == FIRST:
            signal.raise_signal(signal.SIGINT)
        return written


def test_a_second_that_comes_while_the_first_is_answered(stop: Stop, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Impatient()
    monkeypatch.setattr(sys, "stderr", terminal)
    with pytest.raises(SystemExit) as raised:
        signal.raise_signal(signal.SIGINT)
    assert raised.value.code == 130
    assert terminal.getvalue() == FIRST + SECOND


class Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_nobody_needs_to_read_it(stop: Stop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Gone())
    signal.raise_signal(signal.SIGINT)
    assert stop.asked
    with pytest.raises(SystemExit) as raised:
        leave(signal.SIGTERM, None)
    assert raised.value.code == 143
