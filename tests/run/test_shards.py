"""Generations cut into shards: the same artifacts to the byte, whatever their number, and whatever becomes of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from inline import inline_workers
from test_compare import tiny_config

from harness.api.registry import Registry
from harness.config import resolve
from harness.errors import ConfigError
from harness.run.compare import RunOptions, compare
from harness.run.executors.events import Events, Outcome
from harness.run.executors.schedule import Schedule
from harness.run.executors.worker import attempt, make_context
from harness.run.graph import Graph, Stage
from harness.run.plan import plan
from harness.run.recompute import recompute
from harness.run.shards import with_shards
from harness.run.stages import run_stage
from harness.run.stages.context import Context
from harness.run.stages.live import Live
from harness.store import Store
from harness_plugins.backends import TransformersBackend

BY_RESPONSE = {"name": "transformers", "random": "by_response", "rows_per_batch": 8}


@pytest.fixture(scope="module", autouse=True)
def _no_worker_processes() -> Iterator[None]:
    with inline_workers():
        yield


def config(checkpoint: Path, shards: int | str = 1) -> dict[str, Any]:
    """A comparison whose two builders share samples, and whose answers are drawn by several batches."""
    return tiny_config(checkpoint) | {
        "generation": {"max_tokens": 8, "backend": BY_RESPONSE},
        "methods": [
            "sft",
            {"method": "self_contrast", "data": {"samples": 4, "keep": 0.5}},
            {"method": "self_contrast", "label": "fewer", "data": {"samples": 2, "keep": 0.5}},
        ],
        "evaluators": [{"name": "gold_reward", "max_tokens": 8}],
        "run": {"shards": shards},
    }


class Here:
    """An executor that runs stages in this process, as two workers would."""

    fail: tuple[str, ...] = ()
    stages: list[Stage]

    def __init__(self, workers: int, settings: Mapping[str, Any], logs: Path) -> None:
        self.context = make_context(settings, lambda *progress: None, Live())

    def width(self) -> int:
        return 2

    def run(self, graph: Graph, present: set[str], events: Events) -> Outcome:
        Here.stages = list(graph)
        schedule = Schedule(graph, present)
        while (stage := schedule.take()) is not None:
            events.started(stage)
            failed = any(part in stage.title for part in self.fail)
            error = "made to fail" if failed else attempt(stage, lambda: self.context)["error"]
            schedule.finish(stage, error)
            events.finished(stage, 0.0, error)
        return schedule.outcome


def run(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The board, without what differs between two runs of one config."""
    options = RunOptions(executor=Here)
    result = compare(raw, folder=folder / "run", store=folder / "store", workers=2, options=options)
    assert result.outcome.failed == {} == result.outcome.skipped
    return {**result.board.without_times(), "config": None}


@pytest.fixture(scope="module")
def whole(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without shards."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "board.json").write_text(json.dumps(run(config(tiny_checkpoint), folder)))
    return folder


def drawn(folder: Path) -> dict[str, bytes]:
    """Answers and samples by their keys, as bytes."""
    return {path.parent.name: path.read_bytes() for path in (folder / "store" / "artifacts").glob("*/*/answers.jsonl")}


def test_a_sharded_run_makes_the_artifacts_and_the_board_of_one_without(
    tiny_checkpoint: Path, whole: Path, tmp_path: Path
) -> None:
    board = run(config(tiny_checkpoint, 2), tmp_path)
    assert sum(stage.kind == "shard" for stage in Here.stages) == 2 * (3 * 2 + 1)  # three rows' answers, and one set of samples
    assert board == json.loads((whole / "board.json").read_text())
    assert drawn(tmp_path) == drawn(whole) and len(drawn(whole)) > 6
    scores = [(folder / "run" / "scores.parquet").read_bytes() for folder in (whole, tmp_path)]
    assert scores[0] == scores[1]
    stages = len(Here.stages)
    assert run(config(tiny_checkpoint, 2), tmp_path) == board
    assert len(Here.stages) == stages - 14  # nothing is cut that is there


def test_a_failed_shard_is_drawn_where_it_is_needed(
    tiny_checkpoint: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Here, "fail", ("shard 2 of 3",))
    assert run(config(tiny_checkpoint, 3), tmp_path) == json.loads((whole / "board.json").read_text())
    assert drawn(tmp_path) == drawn(whole)


def test_shards_change_no_key_and_come_before_what_they_are_of(tiny_checkpoint: Path) -> None:
    graph = plan(resolve(config(tiny_checkpoint), Registry.load(), "test"))
    cut = with_shards(graph, set(), 3, 1)
    assert [key for key in cut.stages if cut.stages[key].kind != "shard"] == list(graph.stages)
    assert cut.rows == graph.rows and all(not stage.after for stage in graph)
    seen = set[str]()
    for stage in cut:
        assert set(stage.after) | stage.parents <= seen | {key for key in stage.parents if key not in cut.stages}
        assert len(stage.after) in ((3,) if stage.kind in ("answers", "groups") else (0,))
        seen.add(stage.key)
    # Both builders' samples are the larger request's, drawn once.
    shards = [stage for stage in cut if stage.kind == "shard" and stage.payload.get("blocks")]
    assert len(shards) == 3 and {stage.payload["sampling"]["n"] for stage in shards} == {4}
    assert with_shards(graph, set(graph.stages), 3, 1).stages == graph.stages


@pytest.mark.parametrize(("prompts", "workers", "shards"), [(24, 8, 1), (100, 8, 3), (1000, 8, 8), (None, 8, 8), (1000, 1, 1)])
def test_auto_is_one_shard_for_each_worker_of_enough_prompts(
    tiny_checkpoint: Path, prompts: int | None, workers: int, shards: int
) -> None:
    raw = config(tiny_checkpoint) | {"evaluation": {"prompts": prompts}}
    raw["source"] |= {"heldout": 1000}
    graph = plan(resolve(raw, Registry.load(), "test"))
    cut = with_shards(graph, set(), "auto", workers)
    counts = {len(stage.after) for stage in cut if stage.kind == "answers"}
    assert counts == {shards if shards > 1 else 0}


def test_one_stream_for_all_responses_cannot_be_cut(tiny_checkpoint: Path) -> None:
    raw = config(tiny_checkpoint, 4) | {"generation": {}}
    with pytest.raises(ConfigError, match=r"run\.shards = 4: transformers draws .* set generation\.backend\.random to by_res"):
        resolve(raw, Registry.load(), "test")
    for wrong in (0, "many", True):
        raw["run"] = {"shards": wrong}
        with pytest.raises(ConfigError, match=r"run\.shards = .*: it should be auto, or a whole number from 1 to 4096$"):
            resolve(raw, Registry.load(), "test")


def test_putting_together_loads_no_model(tiny_checkpoint: Path, whole: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """And a shard that is asked for again, as after a crash, resumes from its own chunks."""
    graph = with_shards(plan(resolve(config(tiny_checkpoint), Registry.load(), "test")), set(), 2, 1)
    answers = next(stage for stage in graph if stage.kind == "answers" and "sft" in stage.title)
    store = Store(whole / "store")
    context = Context(store, Registry.load(), graph.checkpoints, lambda *progress: None, checkpoint_minutes=0)
    calls = list[int]()
    generate = TransformersBackend.generate

    def killed(self: Any, *arguments: Any, **named: Any) -> Any:
        calls.append(1)
        return generate(self, *arguments, **named)

    monkeypatch.setattr(TransformersBackend, "generate", killed)
    shards = [graph.stages[key] for key in answers.after]
    for shard in shards:
        run_stage(shard, context)
    places = [
        [json.loads(line)[0] for path in store.place(shard.key).glob("*.jsonl") for line in path.read_text().splitlines()]
        for shard in shards
    ]
    assert sorted([*places[0], *places[1]]) == list(range(24)) and min(map(len, places)) >= 8
    assert len(calls) == 2
    kept = (store.place(answers.key) / "answers.jsonl").read_bytes()
    store.remove(next(entry for entry in store.entries() if entry.key == answers.key))
    run_stage(answers, replace(context))
    assert len(calls) == 2 and (store.place(answers.key) / "answers.jsonl").read_bytes() == kept
    # The time of the shards is the answers' time.
    seconds = sum(sum(store.open(shard.key).facts["drawn"].values()) for shard in shards)
    assert store.open(answers.key).seconds >= seconds > 0


@pytest.mark.slow
def test_a_sharded_board_is_verified_by_computing_again(tiny_checkpoint: Path, tmp_path: Path) -> None:
    run(config(tiny_checkpoint, 2), tmp_path)
    again = recompute(tmp_path / "run" / "board.json", 3, folder=tmp_path / "again", seed=0)
    assert again.exact and len(again.stages) >= 3 and again.differences == []
