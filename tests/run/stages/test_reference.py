"""The reference under a view of an objective's own: made once for all objectives that ask the same, and right."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

import harness.run.stages.reference as reference
from harness.api.interfaces import Objective
from harness.api.registry import Registry
from harness.api.types import Group, Prompt, Response
from harness.config import describe
from harness.models.checkpoint import Checkpoint
from harness.models.logps import TokenRow, score
from harness.models.tokenization import ChatTemplate
from harness.run.graph import CHECKPOINT, Graph
from harness.run.stages import RUNNERS
from harness.run.stages.context import Context
from harness.store import Artifact, Store
from harness_plugins.self_refined.refinement import AUGMENTED
from harness_plugins.self_refined.sr_dpo import SrDPO
from harness_plugins.self_refined.sr_ipo import SrIPO

GROUPS = [
    Group(Prompt.of("a", "name two colours ."), Response("red and blue ."), (Response("red ."), Response("i do not know"))),
    Group(Prompt.of("b", "sort 3 , 1 ."), Response("1 , 3 ."), (Response("3 , 1 .", finished=False),)),
]


@pytest.fixture
def context(tiny_checkpoint: Path, tmp_path: Path) -> Context:
    store = Store(tmp_path / "store")
    with store.draft("groups", "a" * 32) as draft:
        draft.write_lines("groups.jsonl", [asdict(group) for group in GROUPS])
    return Context(store, Registry.load(), {"tiny": Checkpoint(str(tiny_checkpoint)).as_dict()}, lambda done, total, note: None)


def made(context: Context, objective: Objective, **more: str) -> Artifact:
    """A reference stage of the objective's view."""
    graph = Graph()
    payload = {"view": AUGMENTED, "objective": describe(objective), **more}
    key = graph.add("reference", "reference", payload, {"groups": "a" * 32, "model": f"{CHECKPOINT}tiny"})
    with context.store.draft("reference", key) as draft:
        RUNNERS["reference"](graph.stages[key], context, draft)
    return context.store.open(key)


def test_a_view_is_scored_under_the_changed_prompt(context: Context) -> None:
    artifact = made(context, SrDPO())
    model, tokenizer = context.load(f"{CHECKPOINT}tiny", "training")
    template, change = ChatTemplate(tokenizer), SrDPO().views()[AUGMENTED]
    expected = [
        score(
            model,
            [TokenRow(tuple(template.prompt_ids(change(group.prompt))), tuple(template.response_ids(group.prompt, response)))],
        )[0]
        for group in GROUPS
        for response in (group.chosen, *group.rejected)
    ]
    rows = list(artifact.read_lines("logps.jsonl"))
    assert [len(row) for row in rows] == [3, 2]
    assert [value for row in rows for value in row] == pytest.approx(expected, rel=1e-5)


def test_objectives_that_ask_the_same_share_it(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    whole = reference.ScoredBundles
    monkeypatch.setattr(reference, "ScoredBundles", lambda *given: passes.append(1) or whole(*given))
    first = made(context, SrDPO())
    for other in (SrDPO(refinement_weight=0.1), SrDPO(beta=0.5), SrIPO()):
        artifact = made(context, other)
        assert artifact.key != first.key
        assert list(artifact.read_lines("logps.jsonl")) == list(first.read_lines("logps.jsonl"))
        assert artifact.facts["used"] == first.facts["used"] and artifact.facts["made_seconds"] == 0
    assert len(passes) == 1
    (view,) = first.facts["used"]
    assert context.store.open(view).facts["tokens_scored"] > first.facts["tokens_scored"] == 0


def test_another_prompt_or_precision_is_another_view(context: Context) -> None:
    found = [made(context, SrDPO()), made(context, SrDPO(rating_scale=10)), made(context, SrDPO(), precision="bfloat16")]
    assert len({artifact.facts["used"][0] for artifact in found}) == 3
    assert len({str(list(artifact.read_lines("logps.jsonl"))) for artifact in found}) == 3
