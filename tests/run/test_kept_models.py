"""Models are dropped as the policy says, never while they are needed, and made again to the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from inline import inline_workers
from test_compare import tiny_config

from harness.errors import StoreError
from harness.run.compare import compare
from harness.run.executors.schedule import Schedule
from harness.run.graph import Graph, RowPlan
from harness.run.kept_models import KeptModels, stages_in_store
from harness.run.stages.context import stored_model
from harness.store import Store
from harness.store.roots import Root, register

VALUES = {"a": 0.2, "b": 0.9, "c": 0.5}


@pytest.fixture(scope="module", autouse=True)
def _no_worker_processes() -> Iterator[None]:
    with inline_workers():
        yield


def comparison() -> Graph:
    """Three rows from one SFT model; `c` has two rounds."""
    graph = Graph()
    start = graph.add("sft", "SFT", {}, {})
    for label in VALUES:
        model = graph.add("train", f"train {label}", {"of": label}, {"model": start})
        if label == "c":
            model = graph.add("train", "train c again", {"of": label}, {"model": model})
        scores = graph.add("evaluate", f"scores of {label}", {"of": label}, {"model": model, "start": start})
        graph.rows.append(RowPlan(label, 0, model, (), (), {"accuracy": (scores,)}, start))
    return graph


def key(graph: Graph, title: str) -> str:
    return next(stage.key for stage in graph if stage.title == title)


def run(graph: Graph, store: Store, policy: Any, failing: str = "", at_end: bool = False) -> tuple[list[str], list[str]]:
    """Make all stages in the schedule's order. Return the titles in that order, and those whose model is there at the end."""
    root = Root.of("own", store.root / "own", set(graph.stages))
    keeper = KeptModels(policy, store, root, at_end, lambda row: VALUES[row.label])
    present = stages_in_store(graph, store.holds, store.dropped)
    schedule, order = Schedule(graph, present, models_first=policy != "all"), []
    keeper.watch(graph, present)
    while (stage := schedule.take()) is not None:
        order.append(stage.title)
        if stage.title != failing:
            with store.draft(stage.kind, stage.key) as draft:
                (draft.folder / "model").mkdir()
                (draft.folder / "model" / "weights").write_text(stage.title)
        error = "no" if stage.title == failing else None
        schedule.finish(stage, error)
        keeper.finished(stage, 1.0, error)
    keeper.finish([graph])
    return order, [stage.title for stage in graph if (store.place(stage.key) / "model").exists() and stage.kind != "evaluate"]


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        ("all", ["SFT", "train a", "train b", "train c", "train c again"]),
        ("best", ["SFT", "train b"]),
        ("none", ["SFT"]),
    ],
)
def test_the_policy_decides_which_models_stay(tmp_path: Path, policy: str, kept: list[str], at_end: bool) -> None:
    assert run(comparison(), Store(tmp_path), policy, at_end=at_end)[1] == kept


def test_a_model_is_used_and_dropped_before_the_next_is_trained(tmp_path: Path) -> None:
    order, _ = run(comparison(), Store(tmp_path), "none")
    assert [title for title in order if title.endswith((" a", " b"))] in (
        ["train a", "scores of a", "train b", "scores of b"],
        ["train b", "scores of b", "train a", "scores of a"],
    )


def test_what_is_still_needed_stays(tmp_path: Path) -> None:
    """By a stage that failed, and by another run of the store, until its folder is deleted."""
    graph, store, other = comparison(), Store(tmp_path / "store"), tmp_path / "other"
    other.mkdir()
    register(store.root, Root.of("other", other, {key(graph, "train a")}))
    assert run(graph, store, "none", failing="scores of c")[1] == ["SFT", "train a", "train c again"]
    other.rmdir()
    assert run(graph, store, "none")[1] == ["SFT"]


def test_a_shard_that_failed_keeps_no_model(tmp_path: Path) -> None:
    graph = comparison()
    graph.add("scoring_shard", "shard of scores of a", {}, {"model": key(graph, "train a")})
    assert run(graph, Store(tmp_path), "none", failing="shard of scores of a")[1] == ["SFT"]


def test_a_missing_stage_has_the_models_made_again_that_it_needs(tmp_path: Path) -> None:
    graph, store = comparison(), Store(tmp_path)
    run(graph, store, "none")
    assert stages_in_store(graph, store.holds, store.dropped) == set(graph.stages)
    with pytest.raises(StoreError, match=r"--set run\.keep_models=all makes them again"):
        stored_model(store, key(graph, "train c again"))
    graph.add("evaluate", "more of c", {}, {"model": key(graph, "train c again")})
    order, kept = run(graph, store, "none")
    assert (order, kept) == (["train c", "train c again", "more of c"], ["SFT"])


def test_a_comparison_without_its_models_has_the_same_board(tiny_checkpoint: Path, tmp_path: Path) -> None:
    config = tiny_config(tiny_checkpoint) | {"methods": ["sft", "dpo"], "evaluators": ["preference_accuracy"]}
    store, options = tmp_path / "store", {"folder": tmp_path / "run", "store": tmp_path / "store", "workers": 1}
    whole = compare(config | {"run": {"keep_models": "all"}}, **options)
    (trained,) = [entry for entry in Store(store).entries() if entry.kind == "train"]
    weights = (Store(store).open(trained.key) / "model" / "model.safetensors").read_bytes()
    without = compare(config | {"run": {"keep_models": "none"}}, **options)
    assert list(Store(store).dropped(trained.key)) and not without.outcome.ran
    assert [row.scores for row in without.board.rows] == [row.scores for row in whole.board.rows]
    again = compare(config | {"run": {"keep_models": "all"}}, **options)
    assert again.outcome.ran == {trained.key}
    artifact = Store(store).open(trained.key)
    assert (artifact / "model" / "model.safetensors").read_bytes() == weights and not artifact.changed
