"""Progress for people: bars where something can redraw, lines elsewhere, and the same numbers in both."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness_plugins.observers.terminal import Bar, PlainLines, RunningStage, RunState, TerminalObserver


def begun(display: str, weights: dict[str, float], name: str = "run", cached: int = 0) -> TerminalObserver:
    """An observer of a run that has just started on two workers."""
    observer = TerminalObserver()
    observer.console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    folder = Path("runs/run")
    observer.harness_run_started(name=name, weights=weights, cached=cached, folder=folder, display=display, workers=2)
    return observer


def written(observer: TerminalObserver) -> str:
    file = observer.console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_a_line_for_each_stage_with_count_note_and_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    observer = begun("lines", {"a": 1.0, "b": 1.0, "c": 2.0}, cached=5)
    observer.state.began -= 30.0
    for key, note, error in (("a", "loss 0.412", None), ("b", "", "no\nmemory\x1b[2J"), ("c", "", None)):
        observer.harness_stage_started(key=key, title=f"train {key}")
        observer.harness_stage_progress(key=key, done=1, total=2, note=note)
        observer.harness_stage_finished(key=key, title=f"train {key}", seconds=125.0, error=error)
    observer.harness_run_finished()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "run: 3 stages to run into runs/run; 5 are in the store; starting 2 worker processes",
        "1 of 3 · train a · 2 min 05 s · loss 0.412 · about 1 min 30 s left",
        r"2 of 3 · train b · 2 min 05 s · failed: no\nmemory\x1b[2J · about 30 s left",
        "3 of 3 · train c · 2 min 05 s",
        "all stages ended; computing the board",
        "3 of 3 stages, 1 failed in 30 s",
    ]


def test_long_stages_are_shown_after_a_while_and_not_after_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    state = RunState("run", weights=dict.fromkeys("abcde", 1.0))
    state.running = {key: RunningStage(f"train {key}", 45, 100, "loss 0.4") for key in "abcde"}
    lines = PlainLines(state, quiet_seconds=0.01)
    lines.announce("run: 5 stages to run")
    while "running" not in (err := capsys.readouterr().err):
        time.sleep(0.01)
    stage = "train {} 45 %, loss 0.4 (0.0 s)"
    expected = "; ".join(stage.format(key) for key in "abc")
    assert f"0 of 5 · running: {expected}; and 2 more" in err
    lines.close()
    lines._watch.join(5)
    assert not lines._watch.is_alive()


def test_nobody_needs_to_read_the_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Gone())
    observer = begun("lines", {"a": 1.0})
    observer.harness_stage_finished(key="a", title="train", seconds=1.0, error=None)
    observer.harness_run_finished()
    assert observer.state.ended == 1


@pytest.mark.parametrize("display", ["none", "lines", "bar"])
def test_a_run_whose_stages_are_all_in_the_store_shows_nothing(display: str, capsys: pytest.CaptureFixture[str]) -> None:
    observer = begun(display, {}, cached=3)
    observer.harness_run_finished()
    assert (*capsys.readouterr(), written(observer)) == ("", "", "")


def test_a_run_without_display_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    observer = begun("none", {"k": 1.0})
    observer.harness_run_extended(weights={"l": 1.0})
    observer.harness_stage_started(key="k", title="train")
    observer.harness_stage_finished(key="k", title="train", seconds=1.0, error=None)
    observer.harness_run_finished()
    assert (*capsys.readouterr(), written(observer)) == ("", "", "")


def test_the_bar_counts_the_stages_of_seeds_that_are_added() -> None:
    observer = begun("bar", {}, cached=2)
    assert observer.display is None  # all is in the store so far
    observer.harness_run_extended(weights={"k": 1.0})
    observer.harness_run_extended(weights={"l": 3.0})
    observer.harness_stage_started(key="l", title="train")
    observer.harness_stage_finished(key="l", title="train", seconds=1.0, error=None)
    assert isinstance(observer.display, Bar)
    task = observer.display.progress.tasks[0]
    assert (task.completed, task.total) == (3.0, 4.0)
    assert task.fields["note"].startswith("1 of 2")
    observer.harness_run_finished()
    assert written(observer).count("1 stage to run into runs/run, for another seed") == 2


def test_progress_of_a_stage_that_does_not_run_is_passed_over() -> None:
    early: Any = TerminalObserver()
    early.harness_stage_progress(key="k", done=1, total=2, note="before the run")
    observer = begun("bar", {"k": 1.0})
    observer.harness_stage_started(key="k", title="train")
    observer.harness_stage_finished(key="k", title="train", seconds=1.0, error=None)
    observer.harness_stage_progress(key="k", done=1, total=2, note="late")  # read after the stage's end
    assert isinstance(observer.display, Bar)
    assert [task.fields["title"] for task in observer.display.progress.tasks] == ["all stages"]
    observer.harness_run_finished()
    assert "late" not in written(observer)


def test_the_bar_shows_escape_sequences_and_markup_as_text() -> None:
    observer = begun("bar", {"k": 1.0}, name="run\x1b[2J")
    observer.harness_stage_started(key="k", title="train [/bold]\x1b]0;x\x07")
    observer.harness_stage_progress(key="k", done=1, total=2, note="[/x]\x1b[2J")
    assert isinstance(observer.display, Bar)
    observer.display.progress.refresh()
    observer.harness_stage_finished(key="k", title="train\x1b[2J", seconds=1.0, error="first\nsecond\x1b[2J")
    observer.harness_run_finished()
    shown = written(observer)
    assert "\x1b[2J" not in shown and "\x1b]0" not in shown and "\x07" not in shown
    assert "run\\x1b[2J" in shown and "train [/bold]\\x1b]0;x\\x07" in shown and "[/x]\\x1b[2J" in shown
    assert "failed train [/bold]" in shown and "second\\x1b[2J" in shown


def test_a_loss_is_readable_beside_a_long_title_at_80_columns() -> None:
    observer = begun("bar", {"k": 1.0})
    observer.harness_stage_started(key="k", title="train self_contrast_with_many_negatives, round 2 · seed 1000")
    observer.harness_stage_progress(key="k", done=1, total=2, note="loss 0.412")
    assert isinstance(observer.display, Bar)
    observer.display.progress.refresh()
    observer.harness_run_finished()
    assert "loss 0.412" in written(observer)
