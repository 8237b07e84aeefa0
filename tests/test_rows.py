"""What a finished run hands to the board."""

from __future__ import annotations

from pathlib import Path

from harness.execute.events import Outcome
from harness.graph import Graph, RowPlan
from harness.rows import Run
from harness.store import Store


def test_a_failed_row_names_the_stage_and_the_reason(tmp_path: Path) -> None:
    graph = Graph()
    data = graph.add("source", "data", {}, {})
    trained = graph.add("train", "train dpo · seed 0", {}, {"groups": data})
    scored = graph.add("evaluate", "gold of dpo", {}, {"model": trained})
    other = graph.add("evaluate", "gold of sft", {}, {"source": data})
    run = Run(None, graph, Store(tmp_path), Outcome(failed={trained: "a bug"}, skipped={scored: trained}))  # type: ignore[arg-type]
    assert run.failure(RowPlan("dpo", 0, trained, (), (trained,), {"gold": scored})) == "train dpo · seed 0: a bug"
    assert run.failure(RowPlan("sft", 0, data, (), (), {"gold": other})) is None
