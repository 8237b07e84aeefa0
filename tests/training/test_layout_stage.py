"""The train stage keeps which layout it used and what it spent, and a fallback's reason reaches the board once."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from trl_twin import preference_groups

import harness.training.layouts.probe as probe
from harness.graph import CHECKPOINT, Graph
from harness.models.checkpoint import Checkpoint
from harness.registry import Registry
from harness.resolve import describe
from harness.row_warnings import run_warnings
from harness.stages import RUNNERS
from harness.stages.context import Context
from harness.store import Store
from harness.training.layouts.choose import LayoutWarning
from harness.training.settings import TrainingSettings
from harness_plugins.only_prompting.simpo import SimPO

REASON = "its attention has sinks"


def trained(checkpoint: Path, folder: Path, **more: Any) -> tuple[Store, str]:
    """One train stage of SimPO on three groups, its payload with `more`: the store and the stage's key."""
    store = Store(folder / "store")
    context = Context(store, Registry.load(), {"tiny": Checkpoint(str(checkpoint)).as_dict()}, lambda done, total, note: None)
    with store.draft("groups", "a" * 64) as draft:
        draft.write_lines("groups.jsonl", [asdict(group) for group in preference_groups(3)])
    graph = Graph()
    payload = {"objective": describe(SimPO()), "settings": TrainingSettings().model_dump(mode="json"), "seed": 0, **more}
    graph.add("train", "train", payload, {"groups": "a" * 64, "model": f"{CHECKPOINT}tiny"})
    (stage,) = graph.stages.values()
    with store.draft("train", stage.key) as draft:
        RUNNERS["train"](stage, context, draft)
    return store, stage.key


def test_the_layout_is_a_fact_of_the_training(tiny_checkpoint: Path, tmp_path: Path) -> None:
    store, key = trained(tiny_checkpoint, tmp_path)
    assert (store.open(key).facts["layout"], store.open(key).facts["layout_warning"]) == ("shared_prefix", "")
    run = SimpleNamespace(
        store=store, graph=SimpleNamespace(rows=[SimpleNamespace(label="simpo", training=(key,), evaluations={})])
    )
    assert run_warnings(run, []) == []


def test_a_fallback_is_said_once(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "refusals", lambda model: [REASON])
    with pytest.warns(LayoutWarning, match=REASON):
        store, key = trained(tiny_checkpoint, tmp_path)
    assert store.open(key).facts["layout"] == "unique"
    row = SimpleNamespace(label="simpo", training=(key, "b" * 64), evaluations={})  # of two rounds, one not made
    run = SimpleNamespace(store=store, graph=SimpleNamespace(rows=[row, row]))
    assert run_warnings(run, []) == [
        f"LlamaForCausalLM does not honour the shared-prefix layout ({REASON}); training with padded rows, which is slower"
    ]


def test_a_limit_is_spent_and_no_more(tiny_checkpoint: Path, tmp_path: Path) -> None:
    store, key = trained(tiny_checkpoint, tmp_path, spending={"unit": "pairs", "amount": 40})
    facts = store.open(key).facts
    assert (facts["prompts"], facts["pairs"], facts["updates"]) == (3, 40, 3)  # one pair a prompt, 16 prompts a batch
    other, key = trained(tiny_checkpoint, tmp_path / "more", spending={"unit": "updates", "amount": 3})
    assert other.open(key).facts["updates"] == 3 and len(list(other.open(key).read_lines("history.jsonl"))) == 3
