"""The train stage keeps which layout it used and what it spent, and a fallback's reason reaches the board once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from trl_twin import preference_groups

import harness.training.layouts.probe as probe
from harness.api.registry import Registry
from harness.api.types import Group
from harness.config import describe
from harness.errors import StageError
from harness.models.checkpoint import Checkpoint
from harness.run.executors.events import Outcome
from harness.run.graph import CHECKPOINT, Graph, RowPlan, Stage
from harness.run.results import Run, run_warnings
from harness.run.stages import RUNNERS
from harness.run.stages.context import Context
from harness.store import Store
from harness.training.layouts.choose import LayoutWarning
from harness.training.settings import TrainingSettings
from harness_plugins.only_prompting.simpo import SimPO

REASON = "its attention has sinks"


COMPARISON = SimpleNamespace(config=SimpleNamespace(budget=SimpleNamespace(limit=None), training=TrainingSettings()), rows=[])


def trained(checkpoint: Path, folder: Path, groups: Sequence[Group] | None = None, **more: Any) -> tuple[Store, str]:
    """One train stage of SimPO on three groups, its payload with `more`: the store and the stage's key."""
    store = Store(folder / "store")
    context = Context(store, Registry.load(), {"tiny": Checkpoint(str(checkpoint)).as_dict()}, lambda done, total, note: None)
    with store.draft("groups", "a" * 64) as draft:
        draft.write_lines("groups.jsonl", [asdict(group) for group in groups or preference_groups(3)])
    graph = Graph()
    payload = {"objective": describe(SimPO()), "settings": TrainingSettings().model_dump(mode="json"), "seed": 0, **more}
    graph.add("train", "train", payload, {"groups": "a" * 64, "model": f"{CHECKPOINT}tiny"})
    (stage,) = graph.stages.values()
    with store.draft("train", stage.key) as draft:
        RUNNERS["train"](stage, context, draft)
    return store, stage.key


def warned(store: Store, *keys: str) -> list[str]:
    """Return the board's warnings for two rows with this training."""
    graph = Graph()
    graph.rows += [RowPlan("simpo", seed, keys[-1], (), keys, {}) for seed in (0, 1)]
    failed = {key: "out of memory" for key in keys if not store.holds(key)}
    graph.stages |= {key: Stage(key, "train", "train", {}, {}) for key in failed}
    return run_warnings(Run(COMPARISON, graph, store, Outcome(failed=failed)))


def test_the_layout_is_a_fact_of_the_training(tiny_checkpoint: Path, tmp_path: Path) -> None:
    store, key = trained(tiny_checkpoint, tmp_path)
    assert (store.open(key).facts["layout"], store.open(key).facts["layout_warning"]) == ("shared_prefix", "")
    assert warned(store, key) == []


def test_a_fallback_is_said_once(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "refusals", lambda model: [REASON])
    with pytest.warns(LayoutWarning, match=REASON):
        store, key = trained(tiny_checkpoint, tmp_path)
    assert store.open(key).facts["layout"] == "unique"
    assert warned(store, key, "b" * 64) == [  # of two rounds, one not made
        f"LlamaForCausalLM does not honour the shared-prefix layout ({REASON}); training with padded rows, which is slower"
    ]


def test_groups_without_negatives_are_counted_and_none_but_such_is_an_error(tiny_checkpoint: Path, tmp_path: Path) -> None:
    lone, *pairs = preference_groups(3)
    store, key = trained(tiny_checkpoint, tmp_path, [replace(lone, rejected=()), *pairs])
    assert warned(store, key) == ["1 groups have no rejected response and were not trained on"]
    with pytest.raises(StageError, match="none of 1 groups has a rejected response, and 'simpo' compares with one"):
        trained(tiny_checkpoint, tmp_path / "more", [replace(lone, rejected=())])


def test_a_limit_is_spent_and_no_more(tiny_checkpoint: Path, tmp_path: Path) -> None:
    store, key = trained(tiny_checkpoint, tmp_path, spending={"unit": "pairs", "amount": 40})
    facts = store.open(key).facts
    assert (facts["prompts"], facts["pairs"], facts["updates"]) == (3, 40, 3)  # one pair a prompt, 16 prompts a batch
    other, key = trained(tiny_checkpoint, tmp_path / "more", spending={"unit": "updates", "amount": 3})
    assert other.open(key).facts["updates"] == 3 and len(list(other.open(key).read_lines("history.jsonl"))) == 3
