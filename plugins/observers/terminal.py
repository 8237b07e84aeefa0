"""Progress on a terminal: what runs now, how far it is, and when the whole will be done."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from harness import hookimpl

TELLING_SHARE = 0.08  # of the work, before an estimate is worth showing: workers start slowly


class TerminalObserver:
    """One bar for the run and one line per running stage; nothing at all where nobody watches."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.name, self.interactive = "", False
        self.progress: Progress | None = None
        self.total: TaskID | None = None
        self.lines: dict[str, TaskID] = {}
        self.weights: dict[str, float] = {}
        self.done: float = 0.0
        self.finished: int = 0
        self.began = 0.0

    @hookimpl
    def harness_run_started(self, name: str, weights: dict[str, float], cached: int, interactive: bool) -> None:
        self.name, self.interactive = name, interactive
        self._extend(weights, f", {cached} found in the store" if cached else "")

    @hookimpl
    def harness_run_extended(self, weights: dict[str, float]) -> None:
        self._extend(weights, " for another seed")

    def _extend(self, weights: dict[str, float], note: str) -> None:
        """Announce stages that will run, and add them to the bar, which appears with the first of them."""
        if not self.interactive or not weights:
            return
        self.weights = {**self.weights, **weights}
        console = self.console if self.progress is None else self.progress.console
        console.print(Text.assemble((f"{_shown(self.name)} ", "bold"), f"· {len(weights)} stages to run{note}"))
        if self.progress is None:
            self._begin()
        elif self.total is not None:
            self.progress.update(self.total, total=sum(self.weights.values()))

    def _begin(self) -> None:
        self.began = time.monotonic()
        self.progress = Progress(
            TextColumn("{task.fields[title]}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            console=self.console,
            transient=True,
        )
        self.total = self.progress.add_task("", total=sum(self.weights.values()), title="all stages", note="")
        self.progress.start()

    @hookimpl
    def harness_stage_started(self, key: str, title: str) -> None:
        if self.progress is not None and key not in self.lines:  # it is there where a stage starts once more
            self.lines[key] = self.progress.add_task("", total=None, title=f"  {_shown(title)}", note="")

    @hookimpl
    def harness_stage_progress(self, key: str, done: int, total: int, note: str) -> None:
        if self.progress is not None and key in self.lines:
            self.progress.update(self.lines[key], completed=done, total=total, note=_shown(note))

    @hookimpl
    def harness_stage_finished(self, key: str, title: str, seconds: float, error: str | None) -> None:
        if self.progress is None or self.total is None:
            return
        self.progress.remove_task(self.lines.pop(key))
        if error is not None:
            self.progress.console.print(Text.assemble(("failed ", "bold red"), _shown(title), ": ", _shown(error, "\n")))
        self.done += self.weights.get(key, 0.0)
        self.finished += 1
        self.progress.update(self.total, completed=self.done, note=f"{self.finished} of {len(self.weights)}{self._left()}")

    @hookimpl
    def harness_run_finished(self) -> None:
        if self.progress is not None:
            self.progress.stop()
            spent = time.monotonic() - self.began
            self.console.print(Text(f"{self.finished} stages in {_clock(spent)}", style="dim"))

    def _left(self) -> str:
        """The estimate: what is left, at the pace so far; nothing while too little is done to tell."""
        total = sum(self.weights.values())
        if self.done < TELLING_SHARE * total:
            return ""
        return f" · about {_clock((time.monotonic() - self.began) * (total - self.done) / self.done)} left"


def _shown(text: str, keep: str = "") -> str:
    """`text` with control characters written out: titles and errors may quote what files hold."""
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
