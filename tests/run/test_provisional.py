"""A provisional board has the finished rows of a run that was stopped, says so, and never is `board.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from inline import inline_workers
from test_compare import tiny_config

from harness.errors import HarnessError, InterruptedRunError
from harness.run.compare import RunOptions, compare
from harness.run.executors.events import Events, Outcome
from harness.run.executors.local import LocalExecutor
from harness.run.graph import Graph
from harness.run.provisional import has_unfinished_run, provisional_board


@pytest.fixture(scope="module", autouse=True)
def _no_worker_processes() -> Iterator[None]:
    with inline_workers():
        yield


class StoppedBefore:
    """An executor that is asked to end before the stages whose titles begin with `title`."""

    title = "train dpo"

    def __init__(self, workers: int, settings: Mapping[str, Any], logs: Path) -> None:
        self.local = LocalExecutor(workers, settings, logs)

    def run(self, graph: Graph, present: set[str], events: Events) -> Outcome:
        stopped = {stage.key for stage in graph if stage.title.startswith(self.title)}
        without = {stage.key for stage in graph if graph.ancestors(stage.key) & stopped}
        outcome = self.local.run(graph, present | without, events)
        outcome.stopped = True
        return outcome


class StoppedAtOnce(StoppedBefore):
    title = ""


def stopped(config: Mapping[str, Any], folder: Path, executor: Any) -> None:
    with pytest.raises(InterruptedRunError):
        compare(config, folder=folder / "run", store=folder / "store", workers=1, options=RunOptions(executor=executor))


def test_the_finished_rows_of_a_stopped_run(tiny_checkpoint: Path, tmp_path: Path) -> None:
    config = tiny_config(tiny_checkpoint) | {"methods": ["sft", "dpo"], "evaluators": ["preference_accuracy"]}
    stopped(config, tmp_path, StoppedAtOnce)
    assert has_unfinished_run(tmp_path / "run")
    with pytest.raises(
        HarnessError, match=r"the baseline 'sft' is not finished at any seed yet \(0 of \d+ stages done, interr"
    ):
        provisional_board(tmp_path / "run")
    stopped(config, tmp_path, StoppedBefore)
    before = sorted(path.name for path in (tmp_path / "run").iterdir())
    board = provisional_board(tmp_path / "run")
    assert [row.method for row in board.rows] == ["sft"] and board.rows[0].scores
    assert board.name.endswith("(provisional)")
    assert board.warnings[0].startswith("Provisional (") and "Not finished: dpo." in board.warnings[0]
    assert board.description.startswith(board.warnings[0])
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before and "board.json" not in before


def test_a_run_without_its_note(tmp_path: Path) -> None:
    assert not has_unfinished_run(tmp_path)
    status = {"name": "s", "state": "interrupted", "updated": "2026-01-15T00:00:00+00:00", "began": "2026-01-15T00:00:00+00:00"}
    (tmp_path / "status.json").write_text(json.dumps({**status, "work": 4, "work_done": 1, "done": 3, "stages": 9}))
    assert has_unfinished_run(tmp_path)
    with pytest.raises(HarnessError, match=r"run\.json is missing: a run writes it when it starts"):
        provisional_board(tmp_path)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(HarnessError, match=r"run\.json cannot be read"):
        provisional_board(tmp_path)
