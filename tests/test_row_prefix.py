"""Rows that answer under a prefix (`evaluation.prefix`): what is asked with it, and what is read without it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.api.registry import Registry
from harness.api.types import Example, Prompt, Response, Sampling
from harness.config import Comparison, resolve
from harness.errors import ConfigError, UnavailableError
from harness.run.plan import plan
from harness.run.records import AnswersPayload, EvaluatePayload
from harness.run.stages.evaluate import EvaluatorServices

PREFIX = "Please produce a top-notch response."
ROW = {"method": "sft", "label": "asked", "evaluation": {"prefix": PREFIX}}
RAW: dict[str, Any] = {
    "schema": 1,
    "name": "prefix",
    "source": "sandbox",
    "model": {"path": "sandbox"},
    "evaluators": ["gold_reward", "preference_accuracy"],
    "methods": ["sft", ROW],
    "seeds": [0],
    "baseline": "sft",
}


def resolved(**changes: Any) -> Comparison:
    return resolve({**RAW, **changes}, Registry.load())


def test_only_what_the_row_answers_has_the_prefix_and_other_rows_keep_their_keys() -> None:
    with_it, without = plan(resolved()), plan(resolved(methods=["sft"]))
    assert with_it.stages.keys() > without.stages.keys()
    added = [stage for stage in with_it if stage.key not in without.stages]
    assert {stage.kind for stage in added} == {"answers", "evaluate"}
    payloads = [(AnswersPayload if stage.kind == "answers" else EvaluatePayload).of(stage) for stage in added]
    assert {payload.prefix for payload in payloads} == {PREFIX}


def test_an_opponent_that_answers_here_keeps_its_prefix(tmp_path: Path) -> None:
    """An evaluator with questions of its own asks its opponents' models itself."""
    for name in ("question.jsonl", "judge_prompts.jsonl"):
        (tmp_path / name).write_text("")
    files = {"questions": str(tmp_path / "question.jsonl"), "prompts": str(tmp_path / "judge_prompts.jsonl")}
    bench = {"name": "vicuna_bench", "mode": ["pair"], "opponent": "asked", **files}
    judge = {"model": "m", "base_url": "http://127.0.0.1:1/v1"}
    graph = plan(resolved(evaluators=[bench], judge=judge))
    given = {row.label: graph.stages[row.evaluations["vicuna_bench"][0]] for row in graph.rows}
    assert EvaluatePayload.of(given["sft"]).opponent_prefixes == {"asked": PREFIX}
    assert EvaluatePayload.of(given["sft"]).prefix == ""


class Policy:
    """A policy that answers with the prompt it was asked."""

    reference = "a"

    def respond(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Response]]:
        return [[Response(prompt.text)] for prompt in prompts]

    def logps(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[Response]]) -> list[list[float]]:
        return [[float(len(prompt.text))] for prompt in prompts]


def services(prefix: str) -> EvaluatorServices:
    policy = cast(Any, Policy())
    return EvaluatorServices(
        examples=[Example(Prompt.of("x", "capital?"))],
        seed=0,
        folder=Path(),
        source=cast(Any, SimpleNamespace()),
        model=policy,
        start=policy,
        prepared={},
        files=Path(),
        models={"other": policy, "plain": policy},
        prefix=prefix,
        prefixes={"other": "Hm."},
    )


def test_the_policy_is_asked_under_the_prefix_and_its_reference_is_not() -> None:
    task, prompts = services(PREFIX), [Prompt.of("y", "why?")]
    asked = f"{PREFIX} capital?"
    assert task.respond(Sampling(1))[0][0].text == asked
    assert task.respond_to(prompts, Sampling(1))[0][0].text == f"{PREFIX} why?"
    assert [task.respond_to(prompts, Sampling(1), row)[0][0].text for row in ("other", "plain")] == ["Hm. why?", "why?"]
    answers = [[Response("Paris.")]]
    assert task.logps(answers) == [[float(len(asked))]]
    assert task.logps(answers, reference=True) == [[float(len("capital?"))]]


def test_an_evaluator_that_reads_the_model_itself_has_no_scores_of_such_a_row() -> None:
    with pytest.raises(UnavailableError, match="answers under a prefix"):
        services(PREFIX).policy()


def test_an_empty_prefix_and_an_unknown_field_are_problems() -> None:
    for wrong in ({"prefix": ""}, {"prefx": PREFIX}):
        with pytest.raises(ConfigError, match="evaluation"):
            resolved(methods=["sft", {**ROW, "evaluation": wrong}])
