"""Progress for people: a bar on a terminal or in a notebook, plain lines where standard error goes elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from harness import hookimpl

TELLING_SHARE = 0.08  # of the work, before an estimate is worth showing: workers start slowly
QUIET_SECONDS = 30.0  # without a line, before a line about the stages that still run
MOST_RUNNING = 3  # stages in such a line


@dataclass
class RunningStage:
    """A stage that runs: its title, how far it is (`total` 0 while unknown) and its last note, such as `loss 0.412`."""

    title: str
    done: int = 0
    total: int = 0
    note: str = ""
    began: float = field(default_factory=time.monotonic)

    @property
    def percent(self) -> int | None:
        return 100 * self.done // self.total if self.total else None


@dataclass
class RunState:
    """The stages of a run and how much of their work is done.

    Attributes:
        weights: key -> work of each stage that this run has to do, in relative units.
        done: work of the stages that ended, in the same units.
        ended: number of stages that ended, the failed ones included.
    """

    name: str
    folder: str = ""
    workers: int = 0
    weights: dict[str, float] = field(default_factory=dict)
    running: dict[str, RunningStage] = field(default_factory=dict)
    done: float = 0.0
    ended: int = 0
    failed: int = 0
    began: float = field(default_factory=time.monotonic)

    @property
    def work(self) -> float:
        return sum(self.weights.values())

    @property
    def count(self) -> str:
        return f"{self.ended} of {len(self.weights)}"

    def left(self) -> str:
        """Return the time left at the pace so far; nothing while too little is done to tell, or nothing is left."""
        if self.done < TELLING_SHARE * self.work or self.ended == len(self.weights):
            return ""
        seconds = (time.monotonic() - self.began) * (self.work - self.done) / self.done
        return f" · about {_clock(60 * round(seconds / 60) if seconds > 100 else max(10.0, seconds))} left"

    def summary(self) -> str:
        """Return one line for the end of the run."""
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.count} stages{failed} in {_clock(time.monotonic() - self.began)}"


class ProgressDisplay(ABC):
    """A way to show a run. It is told about a stage after the run's state has changed."""

    def __init__(self, state: RunState) -> None:
        self.state = state

    @abstractmethod
    def announce(self, text: str) -> None:
        """Stages will run: show a line about them."""

    @abstractmethod
    def started(self, key: str) -> None:
        """Show a stage that runs."""

    @abstractmethod
    def progressed(self, key: str) -> None:
        """Show how far a running stage is."""

    @abstractmethod
    def finished(self, key: str, stage: RunningStage, seconds: float, error: str | None) -> None:
        """Show that a stage ended."""

    @abstractmethod
    def close(self) -> None:
        """Show that the run ended."""


class Bar(ProgressDisplay):
    """One bar for the run and one line for each running stage, redrawn in place."""

    def __init__(self, state: RunState, console: Console) -> None:
        super().__init__(state)
        self.progress = Progress(
            # Cut a long title, so that the note (a loss, a count) is still on a line of 80 characters.
            TextColumn("{task.fields[title]}", markup=False, table_column=Column(ratio=5, no_wrap=True, overflow="ellipsis")),
            BarColumn(bar_width=14),
            TextColumn(
                "{task.fields[note]}",
                style="dim",
                markup=False,
                table_column=Column(ratio=4, no_wrap=True, overflow="ellipsis"),
            ),
            console=console,
            transient=True,
        )
        self.lines: dict[str, TaskID] = {}
        self.total = self.progress.add_task("", total=0.0, title="all stages", note="")

    def announce(self, text: str) -> None:
        self.progress.console.print(Text(text))
        self.progress.update(self.total, total=self.state.work, note=self.state.count)
        self.progress.start()

    def started(self, key: str) -> None:
        if key not in self.lines:  # it has a line where a stage starts once more
            self.lines[key] = self.progress.add_task("", total=None, title=f"  {self.state.running[key].title}", note="")

    def progressed(self, key: str) -> None:
        stage = self.state.running[key]
        self.progress.update(self.lines[key], completed=stage.done, total=stage.total or None, note=stage.note)

    def finished(self, key: str, stage: RunningStage, seconds: float, error: str | None) -> None:
        self.progress.remove_task(self.lines.pop(key))
        if error is not None:
            self.progress.console.print(Text.assemble(("failed ", "bold red"), stage.title, ": ", _shown(error, "\n")))
        note = f"{self.state.count}{self.state.left()}"
        if self.state.ended == len(self.state.weights):
            note += " · computing the board"
        self.progress.update(self.total, completed=self.state.done, note=note)

    def close(self) -> None:
        self.progress.stop()
        self.progress.console.print(Text(self.state.summary(), style="dim"))


class PlainLines(ProgressDisplay):
    """A line for each stage that ends, and one about the running stages when there was none for a while.

    A thread writes the latter, since many stages report nothing for minutes.
    """

    def __init__(self, state: RunState, quiet_seconds: float = QUIET_SECONDS) -> None:
        super().__init__(state)
        self.quiet_seconds = quiet_seconds
        self._lock = threading.RLock()  # reentrant: a signal's handler may end the run in the middle of a line
        self._closed = threading.Event()
        self._last = time.monotonic()
        self._watch = threading.Thread(target=self._speak_up, daemon=True)

    def announce(self, text: str) -> None:
        self._write(text)
        if not self._watch.is_alive():
            self._watch.start()

    def started(self, key: str) -> None:
        """Write nothing: a line tells when the stage ends, or after a while."""

    def progressed(self, key: str) -> None:
        """Write nothing: the thread looks at the state."""

    def finished(self, key: str, stage: RunningStage, seconds: float, error: str | None) -> None:
        parts = [f"{self.state.count} · {stage.title} · {_clock(seconds)}"]
        if error is not None:
            parts.append(f"failed: {_shown(error)}")
        elif stage.note:
            parts.append(stage.note)
        self._write(" · ".join(parts) + self.state.left())
        if self.state.ended == len(self.state.weights):
            self._write("all stages ended; computing the board")

    def close(self) -> None:
        self._closed.set()
        self._write(self.state.summary())

    def _speak_up(self) -> None:
        while not self._closed.wait(max(0.01, self._last + self.quiet_seconds - time.monotonic())):
            if time.monotonic() >= self._last + self.quiet_seconds:
                self._write(self._running_line())

    def _running_line(self) -> str:
        stages = list(self.state.running.values())
        if not stages:
            return f"{self.state.count} · no stage runs now"
        shown = "; ".join(_running(stage) for stage in stages[:MOST_RUNNING])
        more = f"; and {len(stages) - MOST_RUNNING} more" if len(stages) > MOST_RUNNING else ""
        return f"{self.state.count} · running: {shown}{more}{self.state.left()}"

    def _write(self, line: str) -> None:
        # Nobody may read it any more, or be in the middle of another write (a RuntimeError in a signal's handler).
        with self._lock, suppress(OSError, RuntimeError, ValueError):
            self._last = time.monotonic()
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


def _running(stage: RunningStage) -> str:
    percent = "" if stage.percent is None else f" {stage.percent} %"
    note = f", {stage.note}" if stage.note else ""
    return f"{stage.title}{percent}{note} ({_clock(time.monotonic() - stage.began)})"


class TerminalObserver:
    """Keeps the run's state and passes its changes to the display that the run asks for."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.display: ProgressDisplay | None = None
        self.state = RunState("")
        self.wanted = "none"

    @hookimpl
    def harness_run_started(
        self, name: str, weights: dict[str, float], cached: int, folder: Path, display: str, workers: int
    ) -> None:
        self.display, self.wanted = None, display
        self.state = RunState(_shown(name), _shown(str(folder)), workers)
        self._extend(weights, f"; {cached} are in the store" if cached else "")

    @hookimpl
    def harness_run_extended(self, weights: dict[str, float]) -> None:
        self._extend(weights, ", for another seed")

    def _extend(self, weights: dict[str, float], note: str) -> None:
        """Announce stages that will run. The display opens with the first of them."""
        self.state.weights |= weights
        if self.wanted == "none" or not weights:
            return
        workers = min(self.state.workers, len(weights))
        if self.display is None:
            self.display = Bar(self.state, self.console) if self.wanted == "bar" else PlainLines(self.state)
            note += f"; starting {_counted(workers, 'worker process', 'es')}" if workers else ""
        self.display.announce(f"{self.state.name}: {_counted(len(weights), 'stage')} to run into {self.state.folder}{note}")

    @hookimpl
    def harness_stage_started(self, key: str, title: str) -> None:
        self.state.running[key] = RunningStage(_shown(title))
        if self.display is not None:
            self.display.started(key)

    @hookimpl
    def harness_stage_progress(self, key: str, done: int, total: int, note: str) -> None:
        if (stage := self.state.running.get(key)) is None:
            return  # read after the stage's end
        stage.done, stage.total, stage.note = done, total, _shown(note)
        if self.display is not None:
            self.display.progressed(key)

    @hookimpl
    def harness_stage_finished(self, key: str, title: str, seconds: float, error: str | None) -> None:
        stage = self.state.running.pop(key, None) or RunningStage(_shown(title))
        self.state.done += self.state.weights.get(key, 0.0)
        self.state.ended += 1
        self.state.failed += error is not None
        if self.display is not None:
            self.display.finished(key, stage, seconds, error)

    @hookimpl
    def harness_run_finished(self) -> None:
        if self.display is not None:
            self.display.close()


def _shown(text: str, keep: str = "") -> str:
    """Return `text` with control characters written out: titles and errors may quote what files hold."""
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def _counted(number: int, noun: str, plural: str = "s") -> str:
    return f"{number} {noun}{'' if number == 1 else plural}"


def _clock(seconds: float) -> str:
    """Return a duration, e.g. `0.4 s`, `42 s`, `3 min`, `3 min 05 s` or `2 h 10 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return (f"{minutes} min" + (f" {rest:02d} s" if rest else "")) if minutes else f"{rest} s"
