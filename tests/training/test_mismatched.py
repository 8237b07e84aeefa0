"""Mismatched pairs, which KTO asks for: whose responses they are, that they are stored, and that a whole batch has one mean."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from trl_twin import preference_groups

from harness.api.registry import Registry
from harness.errors import StageError
from harness.models.checkpoint import Checkpoint
from harness.models.logps import TokenRow, score
from harness.models.tokenization import ChatTemplate
from harness.run.graph import CHECKPOINT, Graph
from harness.run.stages import RUNNERS
from harness.run.stages.context import Context
from harness.store import Store
from harness.training.batch import MISMATCHED, PLAIN, TokenGroup, group_logps, mismatched_logps, partners, tokenize
from harness_plugins.baselines.dpo import DPO
from harness_plugins.baselines.kto import KTO


def test_each_prompt_gets_the_responses_of_the_group_before_it() -> None:
    assert partners(["a", "b", "c"]) == ["c", "a", "b"]


def test_one_group_has_no_partner() -> None:
    with pytest.raises(StageError, match=r"need two groups or more: raise budget\.prompts"):
        partners(["a"])


def test_only_an_objective_that_needs_them_gets_them(tiny) -> None:
    _, tokenizer = tiny
    groups = preference_groups(3)
    plain, mismatched = (tokenize(groups, ChatTemplate(tokenizer), objective) for objective in (DPO(), KTO()))
    assert [group.mismatched for group in plain] == [()] * 3
    assert [group.mismatched for group in mismatched] == [plain[2].responses, plain[0].responses, plain[1].responses]
    assert [group.responses for group in mismatched] == [group.responses for group in plain]
    assert mismatched[1].rows(MISMATCHED) == [TokenRow(plain[1].prompts[PLAIN], response) for response in plain[0].responses]


def test_one_mean_serves_every_micro_batch(tiny) -> None:
    model, _ = tiny
    prompts = [(7, 8), (9,), (10, 11, 12)]
    groups = [
        TokenGroup({PLAIN: prompt}, ((20,), (21, 22)), {PLAIN: (-1.0, -2.0), MISMATCHED: (-30.0, -40.0)}, ((30,), (31, 32)))
        for prompt in prompts
    ]
    whole = mismatched_logps(model, groups, 10**9)
    assert whole.policy.tolist() == pytest.approx(score(model, [row for group in groups for row in group.rows(MISMATCHED)]))
    assert whole.reference.tolist() == [-30.0, -40.0] * 3
    assert not whole.policy.requires_grad
    z0 = [KTO().loss(group_logps(model, part, KTO(), whole)).metrics["z0"][0].item() for part in (groups, groups[:1])]
    assert z0[0] == z0[1] == pytest.approx(float((whole.policy - whole.reference).mean()))
    assert z0[0] > 0


def test_a_mean_is_that_of_the_pairs(tiny) -> None:
    """With unequal m: a chosen response counts once for each pair that it is in."""
    model, _ = tiny
    responses = (((20,), (21, 22), (23,), (24, 25)), ((30,), (31, 32)))
    reference = ((-1.0, -2.0, -3.0, -4.0), (-5.0, -6.0))
    groups = [TokenGroup({PLAIN: (7, 8)}, responses[1 - own], {MISMATCHED: reference[own]}, responses[own]) for own in (0, 1)]
    found = mismatched_logps(model, groups, 10**9)
    assert sorted(found.reference.tolist()) == [-6, -5, -4, -3, -2, -1, -1, -1]
    pairs = [[row for k in range(1, len(own)) for row in (own[0], own[k])] for own in responses]
    expected = [value for own in pairs for value in score(model, [TokenRow((7, 8), response) for response in own])]
    assert sorted(found.policy.tolist()) == pytest.approx(sorted(expected))


def test_the_reference_stage_scores_the_partners_responses(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The stored rows are those that training asks for, in its order."""
    store = Store(tmp_path / "store")
    context = Context(
        store, Registry.load(), {"tiny": Checkpoint(str(tiny_checkpoint)).as_dict()}, lambda done, total, note: None
    )
    groups = preference_groups(3)
    with store.draft("groups", "a" * 64) as draft:
        draft.write_lines("groups.jsonl", [asdict(group) for group in groups])
    graph = Graph()
    inputs = {"groups": "a" * 64, "model": f"{CHECKPOINT}tiny"}
    graph.add("reference", "mismatched", {"view": MISMATCHED, "objective": None}, inputs)
    (stage,) = graph.stages.values()
    with store.draft("reference", stage.key) as draft:
        RUNNERS["reference"](stage, context, draft)
    stored = [value for row in store.open(stage.key).read_lines("logps.jsonl") for value in row]
    model, tokenizer = context.load(f"{CHECKPOINT}tiny", "training")
    tokenized = tokenize(groups, ChatTemplate(tokenizer), KTO())
    assert stored == pytest.approx(score(model, [row for group in tokenized for row in group.rows(MISMATCHED)]))
