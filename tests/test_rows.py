"""What a finished run hands to the board."""

from __future__ import annotations

from pathlib import Path

from harness.execute.events import Outcome
from harness.graph import Graph, RowPlan
from harness.rows import Run, run_warnings
from harness.store import Store


def test_a_failed_row_names_the_stage_and_the_reason(tmp_path: Path) -> None:
    graph = Graph()
    data = graph.add("source", "data", {}, {})
    trained = graph.add("train", "train dpo · seed 0", {}, {"groups": data})
    scored = graph.add("evaluate", "gold of dpo", {}, {"model": trained})
    other = graph.add("evaluate", "gold of sft", {}, {"source": data})
    run = Run(None, graph, Store(tmp_path), Outcome(failed={trained: "a bug"}, skipped={scored: trained}))  # type: ignore[arg-type]
    assert run.failure(trained) == run.failure(scored) == "train dpo · seed 0: a bug"
    assert run.failure(other) is None


def test_an_evaluator_that_failed_leaves_the_rest_of_the_row(tmp_path: Path) -> None:
    graph = Graph()
    trained = graph.add("train", "train dpo · seed 0", {}, {})
    gold, bench = (graph.add("evaluate", name, {"name": name}, {"model": trained}) for name in ("gold", "bench"))
    graph.rows.append(RowPlan("dpo", 0, trained, (), (trained,), {"gold_reward": gold, "lm_eval": bench}))
    run = Run(None, graph, Store(tmp_path), Outcome(failed={bench: "no disk"}))  # type: ignore[arg-type]
    assert run.failure(trained) is None
    assert run_warnings(run, []) == ["dpo, seed 0: no scores of lm_eval, since it failed (bench: no disk)"]
