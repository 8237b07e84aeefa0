"""What signals do, whenever they come."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cli.compare import finish_first, leave
from harness.interrupts import runs_as_command
from harness.run.executors.events import Stop

FIRST = "finishing the running stages first; press Ctrl-C again to end at once\n"
SECOND = "interrupted; finished stages are kept, and the same command continues from them\n"


@pytest.fixture
def stop() -> Iterator[Stop]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    stop = Stop(running=True)
    finish_first(stop)
    yield stop
    for number, handler in before.items():
        signal.signal(number, handler)


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_without_running_stages_ends_at_once(
    stop: Stop, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    stop.running = False
    with pytest.raises(SystemExit) as raised:
        signal.raise_signal(number)
    assert raised.value.code == 128 + number
    assert capsys.readouterr().err.endswith("; finished stages are kept, and the same command continues from them\n")


# A package that `harness` imports early, in whose place Ctrl-C is pressed.
PRESSING = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nraise SystemExit('nobody noticed')\n"


@pytest.mark.parametrize("module", ["pluggy", "typer"])  # of the facade, and of the command line
def test_imports_are_interrupted_in_one_line(module: str, tmp_path: Path) -> None:
    (tmp_path / f"{module}.py").write_text(PRESSING)
    command = [sys.executable, "-m", "harness", "--version"]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        # A shell's background job ignores Ctrl-C, and so would what the tests start from one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_only_the_command_itself_has_our_ctrl_c(tmp_path: Path) -> None:
    assert runs_as_command([f"{sys.prefix}/bin/harness", "plan"], [])
    assert runs_as_command(["-m", "plan"], ["python", "-m", "harness", "plan"])
    assert not runs_as_command(["-m"], ["python", "-m", "harness.run.executors.worker"])
    assert not runs_as_command([str(tmp_path / "harness")], ["python", str(tmp_path / "harness")])
    assert not runs_as_command([], ["python"])
