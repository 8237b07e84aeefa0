"""Any verifier, reward model or judge where gold is used: sections, checks while planning, keys, builders and evaluators."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from harness import Example, JudgeReward, Message, Prompt, Response, Reward, RewardModel, StageError, Verifier
from harness.analysis.context import AnalysisContext, AnalysisOptions
from harness.api.registry import Registry
from harness.cli.analyze import find
from harness.config import resolve
from harness.errors import ConfigError
from harness.models.reward import Rewarded
from harness.run.compare import compare
from harness.run.plan import plan
from harness.sandbox.scripted import ScriptedBuild, ScriptedEvaluation
from harness_plugins.controls import BestOfN
from harness_plugins.evaluators import RewardModelScores, TargetWinRate, VerifiedAnswers

REGISTRY = Registry.load()
JUDGE = {"model": "some-judge", "base_url": "http://localhost:1/v1"}


def rows(folder: Path, count: int = 40, **changes: Any) -> Path:
    file = folder / "sums.jsonl"
    lines = [
        {"question": f"How much is {n} and {n + 1}?", "answer": f"{n} + {n + 1}\n#### {2 * n + 1}", "final": 2 * n + 1}
        for n in range(count)
    ]
    file.write_text("".join(f"{json.dumps({**line, **changes})}\n" for line in lines))
    return file


@pytest.fixture
def raw(tmp_path: Path, tiny_checkpoint: Path) -> dict[str, Any]:
    columns = {"prompt": "question", "target": "answer", "reference": "final"}
    return {
        "name": "sums",
        "source": {"name": "jsonl", "path": str(rows(tmp_path)), "columns": columns, "heldout_share": 0.3},
        "model": {"path": str(tiny_checkpoint)},
        "sft": None,
        "budget": {"prompts": 4},
        "generation": {"max_tokens": 4},
        "methods": ["sft", "oracle"],
        "evaluators": [{"name": "verifier", "checker": "gsm8k", "max_tokens": 4}],
        "baseline": "sft",
        "seeds": [0],
    }


def refused(raw: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        resolve(raw, REGISTRY)
    return [str(problem) for problem in caught.value.problems]


def test_a_section_is_a_model_a_verifier_or_the_judge() -> None:
    read = TypeAdapter(Reward).validate_python
    assert read({"model": "owner/name", "revision": "abc"}) == RewardModel(model="owner/name", revision="abc")
    assert read({"checker": "gsm8k"}) == Verifier(checker="gsm8k")
    assert read({"judge": {"temperature": 0.5}}) == JudgeReward(judge={"temperature": 0.5})
    for wrong, message in (
        ("gsm8k", "write {model: …} for a reward model"),
        ({"model": "a", "checker": "gsm8k"}, "are two rewards"),
        ({"checker": "gsm8k", "referense": "target"}, "no such field: 'referense'; did you mean 'reference'"),
        ({"judge": {}, "question": "rate it"}, "it should contain {prompt} and {response}"),
    ):
        with pytest.raises(ValidationError, match=message):
            read(wrong)
    for reward in (RewardModel(model="a/b", revision="c"), Verifier(checker="gsm8k"), JudgeReward(judge={})):
        assert read(reward.model_dump(mode="json")) == reward  # workers read it from a stage's description


def test_without_a_reward_a_source_without_gold_is_refused_for_the_oracle(raw: dict[str, Any]) -> None:
    (problem,) = refused(raw)
    assert problem.startswith("methods.1 = 'oracle': it needs gold, and 'jsonl' provides ranked, reference, target")


def test_the_configs_reward_reaches_every_component_that_says_nothing_itself(raw: dict[str, Any], tmp_path: Path) -> None:
    raw["reward"] = {"checker": "gsm8k", "reference": "reference"}
    raw["methods"] += [{"method": "oracle", "label": "own", "data": {"reward": {"checker": "gsm8k"}}}, "reward_filtered"]
    raw["evaluators"] += ["reward_model", "target_win_rate"]
    comparison = resolve(raw, REGISTRY)
    given = Verifier(checker="gsm8k", reference="reference")
    by_label = {row.label: row.rounds[0].builder for row in comparison.rows if row.rounds}
    assert by_label["oracle"].reward == by_label["reward_filtered"].reward == given  # type: ignore[attr-defined]
    assert by_label["own"].reward == Verifier(checker="gsm8k")  # type: ignore[attr-defined]
    assert [e.reward for e in comparison.evaluators.values() if isinstance(e, Rewarded)] == [given, given]
    payloads = [stage.payload["builder"] for stage in plan(comparison) if stage.kind == "groups"]
    assert {payload["fields"]["reward"]["checker"] for payload in payloads} == {"gsm8k"}
    assert {payload["fingerprint"] for payload in payloads} == {given.fingerprint()} != {""}


def test_keys_without_a_reward_stay(raw: dict[str, Any]) -> None:
    raw |= {"source": {"name": "sandbox", "sft": 16, "train": 16, "tuning": 8, "heldout": 8}, "evaluators": ["gold_reward"]}
    comparison = resolve(raw, REGISTRY)
    (payload,) = (stage.payload["builder"] for stage in plan(comparison) if stage.kind == "groups")
    assert "reward" not in payload["fields"] and "fingerprint" not in payload
    assert "reward" not in comparison.config.model_dump()


def test_mistakes_of_a_reward_are_one_problem_each(raw: dict[str, Any]) -> None:
    raw["evaluators"].append("reward_model")
    assert any("reward.checker = 'gsm9k'" in line for line in refused(raw | {"reward": {"checker": "gsm9k"}}))
    missing = refused(raw | {"reward": {"checker": "no_such_module_at_all:f"}})
    assert len(missing) == 1 and missing[0].startswith("reward.checker = 'no_such_module_at_all:f': it cannot be imported")
    without = raw | {"source": {**raw["source"], "columns": {"prompt": "question", "target": "answer"}}}
    by_column = refused(without | {"reward": {"checker": "gsm8k", "reference": "reference"}})
    assert [line.split(":")[0] for line in by_column] == ["methods.1 = 'oracle'", "evaluators.1 = 'reward_model'"]
    assert all("it needs reference, and 'jsonl' provides ranked, target" in line for line in by_column)


def test_a_judge_as_reward_needs_a_judge_and_is_in_the_key(raw: dict[str, Any]) -> None:
    raw |= {"reward": {"judge": {"temperature": 0.5}}, "evaluators": ["reward_model"]}
    assert any(line.startswith("judge = (absent): 'reward_model' asks a judge") for line in refused(raw))
    graph = plan(resolve(raw | {"judge": JUDGE}, REGISTRY))
    judged = [stage for stage in graph if stage.kind in ("groups", "evaluate")]
    assert {stage.kind for stage in judged} == {"groups", "evaluate"}
    assert {stage.payload["judge"]["parameters"]["temperature"] for stage in judged} == {0.5}
    wrong = refused(raw | {"judge": JUDGE, "reward": {"judge": {"temperatur": 1}}})
    assert any("reward.judge.temperatur" in line and "did you mean 'temperature'" in line for line in wrong)


def test_a_column_that_is_no_reference_is_named(raw: dict[str, Any], tmp_path: Path) -> None:
    source = resolve({**raw, "methods": ["sft"]}, REGISTRY).source
    assert source.load()["train"][0].metadata["reference"].isdecimal()
    rows(tmp_path, final=[1, 2])
    with pytest.raises(Exception, match=r"`reference` should be text or a number, and is \[1, 2\]"):
        source.load()


def test_the_judges_rating_is_read_within_its_bounds() -> None:
    from harness import JudgeAnswer

    reward = JudgeReward(judge={})
    for text, value in (("Rating: [[7]]", 7.0), ("[[3]] no, [[8.5]]", 8.5), ("[[11]]", None), ("7", None)):
        assert reward.read(JudgeAnswer(text, "judge")) == value
    prompt = Prompt("a", (Message("user", "Why?"), Message("assistant", "{response}"), Message("user", "Go on")))
    (asked,) = reward.conversation(prompt, Response("{prompt} is safe"))
    assert "assistant: {response}" in asked.content and "{prompt} is safe" in asked.content


class Marked(ScriptedBuild):
    """A build whose rewards are given by text."""

    marks: dict[str, float]
    answers: Sequence[str]

    def sample(self, n: int, **asked: Any) -> list[list[Response]]:
        return [[Response(text) for text in self.answers] for _ in self.examples]

    def reward(self, model: Reward, responses: Sequence[Sequence[Response]]) -> list[list[float]]:
        return [[self.marks[response.text] for response in row] for row in responses]


def test_samples_without_a_reward_are_neither_best_nor_worst() -> None:
    task = Marked(frozenset({"target"}))
    task.marks, task.answers = {"good": 2.0, "bad": 1.0, "odd": math.nan}, ("odd", "bad", "good")
    group = next(iter(BestOfN(samples=3, reward={"judge": {}}).build(task)))
    assert (group.chosen.text, [item.text for item in group.rejected]) == ("good", ["bad"])
    assert group.info == {"chosen_reward": 2.0, "rejected_reward": 1.0}
    task.answers = ("odd", "odd", "")
    task.marks[""] = math.nan
    assert not list(BestOfN(samples=3, reward={"judge": {}}).build(task))
    assert task.counted == {"no sample has a reward": len(task.examples)}


class Answered(ScriptedEvaluation):
    def respond(self, sampling: Any) -> list[list[Response]]:
        return [[Response(f"it is {index}") for index in range(sampling.n)] for _ in self.examples]


def test_the_verifier_scores_every_answer(tmp_path: Path) -> None:
    task = Answered(frozenset({"target"}), folder=tmp_path)
    task.examples = [Example(Prompt.of("a", "?"), "#### 1"), Example(Prompt.of("b", "?"), "5"), Example(Prompt.of("c", "?"))]
    scores = list(VerifiedAnswers(checker="gsm8k").evaluate(task))
    by_metric = {(score.example, score.metric, score.sample): score.value for score in scores}
    assert [by_metric["a", "accuracy", sample] for sample in (0, 1)] == [0.0, 1.0]
    assert (by_metric["a", "any_right", 0], by_metric["b", "any_right", 0], by_metric["a", "greedy_accuracy", 0]) == (1, 0, 0)
    assert not [score for score in scores if score.example == "c"] and task.notes == {"without_reference": 1}
    task.examples = task.examples[2:]
    with pytest.raises(StageError, match="none of 1 examples has one"):
        list(VerifiedAnswers(checker="gsm8k").evaluate(task))


def test_other_rewards_take_golds_place_in_evaluators(tmp_path: Path) -> None:
    class Task(Answered):
        def reward(self, model: Reward, responses: Sequence[Sequence[Response]]) -> list[list[float]]:
            assert isinstance(model, Verifier)
            return model.rewards(self.examples, responses)

    task = Task(frozenset({"target"}), folder=tmp_path)
    task.examples = [Example(Prompt.of("a", "?"), "#### 1"), Example(Prompt.of("c", "?"))]
    won = list(TargetWinRate(reward={"checker": "gsm8k"}).evaluate(task))
    assert [(score.example, score.value) for score in won] == [("a", 0.0), ("a", 0.5)]
    evaluator = RewardModelScores(reward={"checker": "gsm8k"})
    assert [metric.name for metric in evaluator.metrics()] == ["reward", "win_rate"]
    scores = list(evaluator.evaluate(task))
    assert {score.example for score in scores} == {"a"} and all(math.isfinite(score.value) for score in scores)
    asked = RewardModelScores(reward={"judge": {}}).asks(task.examples, 0)
    assert asked is not None and asked.calls == 3 + 2


def test_an_analysis_uses_the_configs_reward(raw: dict[str, Any], tmp_path: Path) -> None:
    (analysis,) = find(["negative-rewards"], REGISTRY)
    options = AnalysisOptions(tmp_path / "out", tmp_path / "store")
    with pytest.raises(ConfigError, match=r"needs gold, .*: choose another, or give the config a `reward`"):
        AnalysisContext(analysis.name, raw, "sums.yaml", options).run(analysis)
    context = AnalysisContext(analysis.name, raw | {"reward": {"checker": "gsm8k"}}, "sums.yaml", options)
    assert context.has_gold and context.evaluator == "reward_model"
    context.require(*analysis.needs)
    config = context.config("data", ["sft"])
    assert config["evaluators"] == [{"name": "reward_model", "reward": {"checker": "gsm8k"}}]


@pytest.fixture
def length_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A function that likes long answers and targets, where workers find it."""
    folder = tmp_path / "functions"
    folder.mkdir()
    best = "return 1.0 if '####' in response else min(0.9, len(response) / 1000)"
    (folder / "lengths.py").write_text(f"def long(prompt, response, reference):\n    {best}\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    return "lengths:long"


def test_a_comparison_is_trained_and_scored_by_a_verifier(raw: dict[str, Any], length_function: str, tmp_path: Path) -> None:
    raw["reward"] = {"checker": length_function, "reference": None}
    raw["evaluators"] = [{"name": "verifier", "checker": length_function, "max_tokens": 4}, "target_win_rate"]
    folders = {"folder": tmp_path / "run", "store": tmp_path / "store"}
    result = compare(raw, workers=1, where="sums.yaml", **folders)
    assert not result.outcome.failed and {row.method for row in result.board.rows} == {"sft", "oracle"}
    for row in result.board.rows:
        assert 0 < row.scores["verifier/accuracy"].mean < 1
        assert row.scores["verifier/unread"].mean == 0
    oracle = next(row for row in result.board.rows if row.method == "oracle")
    (data,) = oracle.provenance["data"]["0"]
    assert data["means"]["chosen_reward"] > data["means"]["rejected_reward"]


@pytest.mark.slow
def test_an_analysis_on_real_rows(raw: dict[str, Any], length_function: str, tmp_path: Path) -> None:
    (analysis,) = find(["negative-rewards"], REGISTRY)
    options = AnalysisOptions(tmp_path / "out", tmp_path / "store")
    reward = {"checker": length_function, "reference": None}
    report = AnalysisContext(analysis.name, raw | {"reward": reward}, "sums.yaml", options).run(analysis)
    assert report.columns[1] == "reward of negatives" and len(report.rows) == 7
    assert report.method[0] == "Rewards are those of the verifier lengths:long, and not a gold reward's."
    words = " ".join([report.figure.title, *report.method[1:], *(claim.measured for claim in report.findings)])
    assert "gold" not in words.lower()
