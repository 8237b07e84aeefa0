"""Stages cut into shards: the same artifacts to the byte, whatever their number, and whatever becomes of them."""

from __future__ import annotations

import json
import math
import shutil
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inline import inline_workers
from test_compare import tiny_config

from harness import EvaluationTask, Response, Score
from harness.api.registry import Registry
from harness.config import resolve
from harness.errors import ConfigError
from harness.models.logps import ScoredRows
from harness.run.compare import RunOptions, compare
from harness.run.executors.events import Events, Outcome
from harness.run.executors.schedule import Schedule
from harness.run.executors.worker import attempt, make_context
from harness.run.graph import SHARDS, Graph, Stage
from harness.run.plan import plan
from harness.run.recompute import recompute
from harness.run.shards import with_shards
from harness.run.stages import run_stage
from harness.run.stages.context import Context
from harness.run.stages.live import Live
from harness.run.stages.parts import ShardEndsError, unknown
from harness.store import Store
from harness.store.collect import needed_by_runs
from harness.training.layouts.layout import ScoredBundles
from harness_plugins.backends import TransformersBackend
from harness_plugins.evaluators.preference_accuracy import PreferenceAccuracy

BY_RESPONSE = {"name": "transformers", "random": "by_response", "rows_per_batch": 8}


EVALUATORS = [{"name": "gold_reward", "max_tokens": 8}, "preference_accuracy", {"name": "response_stats", "max_tokens": 8}]


def config(checkpoint: Path, shards: int | str = 1) -> dict[str, Any]:
    """A comparison whose two builders share samples, and whose responses and numbers are computed by several batches."""
    hidden = {"samples": 4, "keep": 0.5, "embedder": "hidden"}
    return tiny_config(checkpoint) | {
        "generation": {"max_tokens": 8, "backend": BY_RESPONSE},
        "methods": [
            "sft",
            {"method": "self_contrast", "data": hidden},
            {"method": "sr_dpo", "label": "fewer", "data": {**hidden, "name": "self_contrast", "samples": 2}},
        ],
        "evaluators": [*EVALUATORS, {"name": "reward_model", "max_tokens": 8, "reward": {"model": "sandbox"}}],
        "run": {"shards": shards},
    }


@pytest.fixture(scope="module", autouse=True)
def small_batches() -> Iterator[None]:
    """So few tokens at once, in this process, that each request has several batches."""
    with inline_workers(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.models.logps.LOGITS", 2**16)
        patch.setattr("harness.models.embed.TOKENS_PER_BATCH", 128)
        patch.setattr("harness.models.reward.TOKENS_PER_BATCH", 128)
        patch.setattr("harness.run.stages.reference.ScoredBundles", partial(ScoredBundles, tokens_per_batch=128))
        yield


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


def made(folder: Path) -> dict[str, bytes]:
    """Everything that is drawn or computed, by the keys of its artifacts, as bytes."""
    names = ("answers", "groups", "logps", "rewards", "scores", "similarity")
    artifacts = folder / "store" / "artifacts"
    return {f"{path.parent.name} {name}": path.read_bytes() for name in names for path in artifacts.glob(f"*/*/{name}.jsonl")}


def count(stages: Iterable[Stage]) -> dict[tuple[str, str], int]:
    """How many shards there are, by their kind and the whole stage's."""
    shards = [stage for stage in stages if stage.kind in SHARDS]
    return Counter(
        (stage.kind, stage.payload.get("kind") or ("groups" if stage.payload.get("blocks") else "answers")) for stage in shards
    )


# Three rows with two samplings each, and one set of samples; two builders that embed, DPO's and Sr-DPO's references (plain
# and augmented), and of each row the three evaluators that score.
TWO_SHARDS = {
    ("shard", "answers"): 2 * 6,
    ("shard", "groups"): 2,
    ("scoring_shard", "groups"): 2 * 2,
    ("scoring_shard", "reference"): 2 * 3,
    ("scoring_shard", "evaluate"): 2 * 9,
}


def test_a_sharded_run_makes_the_artifacts_and_the_board_of_one_without(
    tiny_checkpoint: Path, whole: Path, tmp_path: Path
) -> None:
    board = run(config(tiny_checkpoint, 2), tmp_path)
    assert count(Here.stages) == TWO_SHARDS
    assert board == json.loads((whole / "board.json").read_text())
    assert made(tmp_path) == made(whole)
    assert Counter(name.partition(" ")[2] for name in made(whole)).keys() == {
        "answers", "groups", "logps", "rewards", "scores", "similarity"
    }  # fmt: skip
    scores = [(folder / "run" / "scores.parquet").read_bytes() for folder in (whole, tmp_path)]
    assert scores[0] == scores[1]
    stages, store = len(Here.stages), Store(tmp_path / "store")
    # Most requests have a part of either shard; after the run nothing needs the shards.
    parts = [entry.key for entry in store.entries() if entry.kind == "parts"]
    assert len(parts) > 20 and {entry.kind for entry in store.entries()} >= SHARDS
    needed = needed_by_runs(store)
    assert not [entry for entry in store.entries() if entry.key in needed and entry.kind in {*SHARDS, "parts"}]
    assert run(config(tiny_checkpoint, 2), tmp_path) == board
    assert len(Here.stages) == stages - sum(TWO_SHARDS.values())  # nothing is cut that is there


@pytest.mark.parametrize("failing", ["shard 2 of 3", "scores"])
def test_what_a_failed_shard_left_out_is_made_where_it_is_needed(
    tiny_checkpoint: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    monkeypatch.setattr(Here, "fail", (failing,))
    assert run(config(tiny_checkpoint, 3), tmp_path) == json.loads((whole / "board.json").read_text())
    assert made(tmp_path) == made(whole)


def test_shards_change_no_key_and_come_before_what_they_are_of(tiny_checkpoint: Path) -> None:
    graph = plan(resolve(config(tiny_checkpoint), Registry.load(), "test"))
    cut = with_shards(graph, set(), 3, 1)
    assert [key for key in cut.stages if cut.stages[key].kind not in SHARDS] == list(graph.stages)
    assert cut.rows == graph.rows and all(not stage.after for stage in graph)
    seen = set[str]()
    for stage in cut:
        assert set(stage.after) | stage.parents <= seen | {key for key in stage.parents if key not in cut.stages}
        seen.add(stage.key)
    before = {stage.kind: len(stage.after) for stage in cut if stage.after and "gold" not in stage.title}
    assert before == {"groups": 6, "reference": 3, "answers": 3, "evaluate": 3, "scoring_shard": 3}
    assert sum(stage.weight for stage in cut) == pytest.approx(sum(stage.weight for stage in graph))
    # Both builders' samples are the larger request's, drawn once.
    shards = [stage for stage in cut if stage.kind == "shard" and stage.payload.get("blocks")]
    assert len(shards) == 3 and {stage.payload["sampling"]["n"] for stage in shards} == {4}
    assert with_shards(graph, set(graph.stages), 3, 1).stages == graph.stages


def test_one_stream_of_random_numbers_leaves_generations_whole(tiny_checkpoint: Path) -> None:
    raw = config(tiny_checkpoint, "auto") | {"generation": {}}
    cut = with_shards(plan(resolve(raw, Registry.load(), "test")), set(), 2, 2)
    assert count(cut) == {each: shards for each, shards in TWO_SHARDS.items() if each[0] == "scoring_shard"}


@pytest.mark.parametrize(
    ("prompts", "workers", "drawn", "scored"),
    [(24, 8, 1, 1), (100, 8, 3, 1), (500, 8, 8, 3), (1024, 8, 8, 8), (None, 8, 8, 8), (1000, 1, 1, 1)],
)
def test_auto_is_one_shard_for_each_worker_of_enough_prompts(
    tiny_checkpoint: Path, prompts: int | None, workers: int, drawn: int, scored: int
) -> None:
    raw = config(tiny_checkpoint) | {"evaluation": {"prompts": prompts}}
    raw["source"] |= {"heldout": 1024}
    graph = plan(resolve(raw, Registry.load(), "test"))
    cut = with_shards(graph, set(), "auto", workers)
    for kind, shards in (("answers", drawn), ("evaluate", scored)):
        counts = {len(stage.after) for stage in cut if stage.kind == kind and "gold_reward" not in stage.title}
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


def test_putting_numbers_together_loads_no_model(tiny_checkpoint: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = with_shards(plan(resolve(config(tiny_checkpoint), Registry.load(), "test")), set(), 2, 1)
    titles = ("reference of self_contrast · seed 0", "preference_accuracy of sft · seed 0")
    store = Store(whole / "store")
    context = Context(store, Registry.load(), graph.checkpoints, lambda *progress: None)
    for stage in [next(stage for stage in graph if stage.title == title) for title in titles]:
        used = store.open(stage.key).facts.get("used", [])
        kept = made(whole)
        for key in (stage.key, *used):
            store.remove(next(entry for entry in store.entries() if entry.key == key))
        for shard in stage.after:
            run_stage(graph.stages[shard], context)
        with monkeypatch.context() as patch:
            patch.setattr(Context, "load_model", lambda *given: pytest.fail("a model is loaded"))
            run_stage(stage, context)
        assert made(whole) == kept and store.open(stage.key).facts.get("used", []) == used


def test_a_number_that_a_shard_does_not_know_cannot_be_looked_at() -> None:
    ((number, _),) = unknown([["a", "b"]])
    looks: list[Callable[[float], object]] = [
        float, math.isnan, lambda value: value + 1, lambda value: 2 * value, lambda value: sorted([value, value]),
        lambda value: value == 0, bool, lambda value: f"{value:.2f}", lambda value: {value}, lambda value: np.mean([value]),
    ]  # fmt: skip
    for look in looks:
        with pytest.raises(ShardEndsError):
            look(number)


@pytest.mark.parametrize("look", [np.isfinite, statistics.mean])
def test_a_shard_ends_where_a_library_refuses_a_number_that_is_not_known(
    tiny_checkpoint: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: Callable[[Any], object]
) -> None:
    """By an error of its own; one of computing fails the shard."""
    graph = with_shards(plan(resolve(config(tiny_checkpoint), Registry.load(), "test")), set(), 2, 1)
    stage = next(stage for stage in graph if stage.title == "preference_accuracy of self_contrast · seed 0")
    shutil.copytree(whole / "store", tmp_path / "store")
    store = Store(tmp_path / "store")
    context = Context(store, Registry.load(), graph.checkpoints, lambda *progress: None)
    lost = {stage.key, *store.open(stage.key).facts["used"]}
    for entry in [entry for entry in store.entries() if entry.key in lost]:
        store.remove(entry)

    def evaluate(self: PreferenceAccuracy, task: EvaluationTask) -> Iterator[Score]:
        numbers = task.logps([[Response(example.ranked[0])] for example in task.examples])
        look(numbers[0])
        yield from ()

    monkeypatch.setattr(PreferenceAccuracy, "evaluate", evaluate)
    first, second = (graph.stages[key] for key in stage.after)
    with monkeypatch.context() as patch:
        patch.setattr(ScoredRows, "compute", lambda *given: statistics.mean([]))
        with pytest.raises(statistics.StatisticsError):
            run_stage(first, context)
    for shard in (first, second):
        run_stage(shard, context)
        assert len(store.open(shard.key).facts["parts"]) == 1


@pytest.mark.slow
def test_a_sharded_board_is_verified_by_computing_again(tiny_checkpoint: Path, tmp_path: Path) -> None:
    run(config(tiny_checkpoint, 2), tmp_path)
    again = recompute(tmp_path / "run" / "board.json", 3, folder=tmp_path / "again", seed=0)
    assert again.exact and len(again.stages) >= 3 and again.differences == []
