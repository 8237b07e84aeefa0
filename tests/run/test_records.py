"""Records: they write the JSON that keys and stores hold, and read the facts of older versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import StoreError
from harness.run.graph import Graph
from harness.run.records import EvaluateInputs, Facts, GroupsFacts, JudgeFacts, SourceInputs, TrainFacts, TrainInputs
from harness.store import Artifact


def artifact(**facts: object) -> Artifact:
    return Artifact("key", "train", Path("folder"), facts, 1.0)


def test_inputs_are_named_as_keys_are_hashed_and_read_again() -> None:
    inputs = EvaluateInputs("rows", "model", "start", answers={"0": "a", "10": "b"}, opponents={"sft": "c", "x:y": "d"})
    named = {"source": "rows", "model": "model", "start": "start", "answers:0": "a", "answers:10": "b"}
    assert inputs.named() == {**named, "opponent:sft": "c", "opponent:x:y": "d"}
    trained = TrainInputs("model", "groups", references={"": "plain", "mismatched": "other"})
    assert trained.named() == {"groups": "groups", "model": "model", "reference:": "plain", "reference:mismatched": "other"}
    assert SourceInputs().named() == {}
    graph = Graph()
    for given in (inputs, trained, SourceInputs(), SourceInputs("model")):
        key = graph.add("train", "title", {}, given.named())
        assert type(given).of(graph.stages[key]) == given
    with pytest.raises(KeyError, match="model"):
        TrainInputs.of(graph.stages[graph.add("train", "title", {}, {"groups": "groups"})])


def test_a_record_writes_what_was_given_and_nothing_else() -> None:
    judge = JudgeFacts.model_validate({"model": "m", "judge_usd": None})
    facts = GroupsFacts(prompts=2, groups=1, dropped={}, judge=judge)
    assert facts.as_json() == {"prompts": 2, "groups": 1, "dropped": {}, "judge": {"model": "m", "judge_usd": None}}


def test_facts_of_older_versions_read_as_defaults_and_later_ones_are_passed_over() -> None:
    facts = TrainFacts.of(artifact(prompts=4, pairs=8, updates=2, tokens_trained=90, of_a_later_version=1))
    assert (facts.pairs, facts.unpaired, facts.layout_warning, facts.rounding, facts.used) == (8, 0, "", None, [])
    assert Facts.of(artifact()).made_seconds == 0


def test_facts_of_another_type_are_refused_with_their_name() -> None:
    with pytest.raises(StoreError, match=r"its fact pairs is 'many' .*delete it and run again"):
        TrainFacts.of(artifact(prompts=4, pairs="many", updates=2, tokens_trained=90))
    with pytest.raises(StoreError, match="its fact updates"):
        TrainFacts.of(artifact(prompts=4, pairs=8, tokens_trained=90))
