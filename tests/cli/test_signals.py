"""What signals do, whenever they come."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.cli.compare import finish_first
from harness.interrupts import KEPT, forget, leave, runs_as_command
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
    forget()


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


# A package that `harness` imports early, in whose place a signal comes.
PRESSING = "import os, signal\nos.kill(os.getpid(), signal.{})\nraise SystemExit('nobody noticed')\n"


@pytest.mark.parametrize(
    ("module", "number", "line"),
    [("pluggy", signal.SIGINT, "interrupted\n"), ("typer", signal.SIGTERM, "terminated\n")],  # of facade and command line
)
def test_imports_are_interrupted_in_one_line(module: str, number: signal.Signals, line: str, tmp_path: Path) -> None:
    (tmp_path / f"{module}.py").write_text(PRESSING.format(number.name))
    command = [sys.executable, "-m", "harness", "--version"]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        # A shell's background job ignores Ctrl-C, and so would what the tests start from one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", line)


# What is left of a process that signals itself while Python takes its modules apart, after all that runs at exit.
LATE = """
import os, signal, sys
from harness import interrupts

signal.signal(signal.SIGINT, interrupts.end_at_once)
signal.signal(signal.SIGTERM, interrupts.end_at_once)
{}


class Late:
    def __del__(self, press=os.kill, own=os.getpid()):
        press(own, {:d})


late = Late()
sys.exit(7)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("kept", "code"), [("interrupts.keep_exit_code()", lambda _: 7), ("", lambda number: -number)])
def test_a_signal_at_the_very_end_does_not_change_the_exit_code(
    kept: str, code: Callable[[int], int], number: signal.Signals
) -> None:
    done = subprocess.run([sys.executable, "-c", LATE.format(kept, number)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code(number), "")


def test_next_to_nothing_is_imported_before_signals_are_handled() -> None:
    """Each module that stands between the start of Python and our handlers lengthens the time without them."""
    package = Path(__file__).parents[2] / "harness"
    code = (
        "import sys, types; package = sys.modules['harness'] = types.ModuleType('harness')\n"
        f"package.__path__ = [{str(package)!r}]\n"
        "import harness.interrupts; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True)
    assert "signal" in done.stdout.split(), done.stderr
    assert not {"typing", "pathlib", "contextlib", "re", "pydantic"} & set(done.stdout.split())
    first = (package / "__init__.py").read_text().partition("end_on_interrupt()")[0]
    assert [line for line in first.splitlines() if line.startswith(("import", "from"))] == [
        "import sys",
        "from harness.interrupts import end_on_interrupt, runs_as_command",
    ]


# Runs that a signal meets where a library drops its exception, keeps it, or makes another of it; and two signals.
MEETING = """
import json, os, signal, sys
from pathlib import Path
from harness.interrupts import ended_by, leave_run
from harness.run.executors.journal import Journal
from harness.run.graph import Graph

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), number)

def come():
    os.kill(os.getpid(), number)

def statement():
    come()

def finalizer():
    Finalized()

def swallowed():
    try:
        come()
    except BaseException:
        pass

def renamed():
    try:
        come()
    except BaseException as error:
        raise ValueError("the library's own words") from error

def callback():
    json.dumps(object(), default=lambda _: come())

def twice():
    try:
        come()
    finally:
        come()

def while_it_is_noted():
    write = Journal._write
    def coming(journal):
        write(journal)
        if journal.state["state"] == "finished":
            come()
    Journal._write = coming

folder, number = Path(sys.argv[1]), getattr(signal, sys.argv[2])
for kind in (statement, finalizer, swallowed, renamed, callback, twice, while_it_is_noted):
    (folder / kind.__name__).mkdir()
    if not (process := os.fork()):
        os.dup2(os.open(folder / kind.__name__ / "stderr", os.O_CREAT | os.O_WRONLY), 2)
        signal.signal(number, leave_run)
        journal = Journal(folder / kind.__name__, "test")
        try:
            with journal.told():
                journal.begin(Graph(), set())
                kind()
        except SystemExit as left:
            os._exit(left.code)
        os._exit(1)
    print(kind.__name__, os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


@pytest.mark.parametrize(("number", "word"), [(signal.SIGTERM, "terminated"), (signal.SIGINT, "interrupted")])
def test_a_run_ends_as_it_should_wherever_a_signal_meets_it(number: signal.Signals, word: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", MEETING, str(tmp_path), number.name], capture_output=True, text=True)
    ended = dict(line.split() for line in done.stdout.splitlines())
    assert len(ended) == 7, done.stderr
    for kind, code in ended.items():
        assert (kind, int(code)) == (kind, 128 + number)
        assert (kind, json.loads((tmp_path / kind / "status.json").read_text())["state"]) == (kind, word)
        assert (tmp_path / kind / "stderr").read_text() == f"{word}; {KEPT}\n", kind
        assert sorted(path.name for path in (tmp_path / kind).iterdir()) == ["events.jsonl", "status.json", "stderr"]


def test_only_the_command_itself_has_our_ctrl_c(tmp_path: Path) -> None:
    assert runs_as_command([f"{sys.prefix}/bin/harness", "plan"], [])
    assert runs_as_command(["-m", "plan"], ["python", "-m", "harness", "plan"])
    assert not runs_as_command(["-m"], ["python", "-m", "harness.run.executors.worker"])
    assert not runs_as_command([str(tmp_path / "harness")], ["python", str(tmp_path / "harness")])
    assert not runs_as_command([], ["python"])
