"""What a run tells: observers in their order, and the board what failed in other processes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from test_compare import tiny_config

from harness.errors import InterruptedRunError, TimeOverError
from harness.run.compare import RunOptions, compare
from harness.run.executors.events import Events, Outcome
from harness.run.executors.journal import read_status
from harness.run.graph import Graph
from harness.run.observers import Observers


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hooks of the run, as they are called."""
    hooks: list[str] = []

    class Kept(Observers):
        def call(self, hook: str, **arguments: Any) -> None:
            hooks.append(hook)

    monkeypatch.setattr("harness.run.compare.Observers", Kept)
    return hooks


class Stopped:
    """An executor that was asked to end."""

    def __init__(self, *_: object) -> None:
        pass

    def run(self, graph: Graph, present: set[str], events: Events) -> Outcome:
        return Outcome(stopped=True)


def test_a_run_ends_after_its_board_which_says_that_workers_left_the_mirror_out(
    told: list[str], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    config = tiny_config(tiny_checkpoint) | {"methods": ["sft"], "evaluators": ["preference_accuracy"]}
    options = RunOptions(mirror="file:///proc/mirror")  # nothing is there, and nothing can be put there
    board = compare(config, folder=tmp_path / "run", store=tmp_path / "store", workers=1, options=options).board
    assert [
        warning for warning in board.warnings if warning.startswith("the mirror file:///proc/mirror failed and was left out")
    ]
    assert told[0] == "harness_run_started"
    assert told[-2:] == ["harness_board_ready", "harness_run_finished"]
    assert not (tmp_path / "run" / ".lock").exists()


def test_a_run_whose_hours_are_over_ends_with_a_code_of_its_own(tiny_checkpoint: Path, tmp_path: Path) -> None:
    config = tiny_config(tiny_checkpoint) | {"run": {"max_hours": 1e-9}}
    given: list[Mapping[str, Any]] = []

    class Late(Stopped):
        def __init__(self, workers: int, settings: Mapping[str, Any], logs: Path) -> None:
            given.append(settings)

    with pytest.raises(TimeOverError, match=r"run\.max_hours = 1e-09 are over, and 0 stages") as ended:
        compare(config, folder=tmp_path / "run", store=tmp_path / "store", workers=1, options=RunOptions(executor=Late))
    assert ended.value.exit_code == 75 and given[0]["ends_at"] <= time.time()
    status = read_status(tmp_path / "run")
    assert (status["state"], status["note"]) == ("interrupted", str(ended.value))


def test_a_run_that_has_no_board_ends_too(told: list[str], tiny_checkpoint: Path, tmp_path: Path) -> None:
    config = tiny_config(tiny_checkpoint)
    with pytest.raises(InterruptedRunError):
        compare(config, folder=tmp_path / "run", store=tmp_path / "store", workers=1, options=RunOptions(executor=Stopped))
    assert told == ["harness_run_started", "harness_run_finished"]
