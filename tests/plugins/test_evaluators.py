"""The evaluators on a task whose answers, marks and log-probabilities are written by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydantic import ValidationError

from harness import Evaluator, Example, Prompt, Response, Sampling, Score
from harness_plugins import evaluators as plugin
from harness_plugins.evaluators import GoldReward, PreferenceAccuracy, ResponseStats, TargetWinRate
from harness_plugins.evaluators.response_stats import repetition


@dataclass
class FakeTask:
    """`policy_logps` and `reference_logps` are looked up by text; gold by the number that a text begins with."""

    examples: Sequence[Example]
    answers: Mapping[Sampling, list[list[Response]]] = field(default_factory=dict)
    policy_logps: Mapping[str, float] = field(default_factory=dict)
    reference_logps: Mapping[str, float] = field(default_factory=dict)
    marks: Sequence[str] = ("total", "chosen", "known", "degenerate")
    seed: int = 0
    folder: Path = Path()

    def respond(self, sampling: Sampling) -> list[list[Response]]:
        return self.answers[sampling]

    def logps(self, responses: Sequence[Sequence[Response]], *, reference: bool = False) -> list[list[float]]:
        assert len(responses) == len(self.examples)
        table = self.reference_logps if reference else self.policy_logps
        return [[table[response.text] for response in row] for row in responses]

    def gold(self, example: Example, response: Response) -> Mapping[str, float]:
        total = float(response.text.split()[0])
        every = {"total": total, "chosen": total + 0.25, "known": total - 0.25, "degenerate": float(total < 1)}
        return {name: every[name] for name in self.marks}


def example(id: str, **fields: object) -> Example:
    return Example(Prompt.of(id, "question"), **fields)  # type: ignore[arg-type]


def values(scores: Sequence[Score], metric: str) -> list[tuple[str, int, float]]:
    return [(score.example, score.sample, score.value) for score in scores if score.metric == metric]


REQUIRED = {"reward_model": {"reward": {"model": "reward-model"}}, "verifier": {"checker": "gsm8k"}}  # fields without a default
SAMPLED, GREEDY = Sampling(n=2, temperature=1.0, max_tokens=64), Sampling(n=1, temperature=0.0, max_tokens=64)
EXAMPLES = (example("a"), example("b"))
ANSWERS = {
    SAMPLED: [[Response("4"), Response("6")], [Response("0.5"), Response("2")]],
    GREEDY: [[Response("7")], [Response("3")]],
}


@pytest.mark.parametrize("evaluator", plugin.harness_evaluators())
def test_the_plugin_declares_what_boards_need(evaluator: type[Evaluator]) -> None:
    component = evaluator(**REQUIRED.get(evaluator.name, {}))
    metrics = component.metrics()
    assert len({metric.name for metric in metrics}) == len(metrics) > 0
    assert all(metric.description for metric in metrics)
    assert evaluator.__doc__ is not None
    assert all(field.description for field in evaluator.model_fields.values())


def test_importing_the_plugin_does_not_import_torch() -> None:
    code = "import sys, harness_plugins.evaluators; assert not {'torch', 'transformers', 'lm_eval'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_sampled_evaluators_ask_for_the_same_answers() -> None:
    assert list(GoldReward().samplings()) == [SAMPLED, GREEDY]
    assert list(TargetWinRate().samplings()) == list(ResponseStats().samplings()) == [SAMPLED]


class TestGoldReward:
    def test_scores_every_answer(self) -> None:
        scores = list(GoldReward().evaluate(FakeTask(EXAMPLES, ANSWERS)))
        assert values(scores, "gold") == [("a", 0, 4.0), ("a", 1, 6.0), ("b", 0, 0.5), ("b", 1, 2.0)]
        assert values(scores, "chosen") == [("a", 0, 4.25), ("a", 1, 6.25), ("b", 0, 0.75), ("b", 1, 2.25)]
        assert values(scores, "known") == [("a", 0, 3.75), ("a", 1, 5.75), ("b", 0, 0.25), ("b", 1, 1.75)]
        assert values(scores, "degenerate") == [("a", 0, 0.0), ("a", 1, 0.0), ("b", 0, 1.0), ("b", 1, 0.0)]
        assert values(scores, "greedy_gold") == [("a", 0, 7.0), ("b", 0, 3.0)]
        assert {score.metric for score in scores} == {metric.name for metric in GoldReward().metrics()}

    def test_a_source_that_reports_the_total_alone_gets_no_other_scores(self) -> None:
        scores = list(GoldReward().evaluate(FakeTask(EXAMPLES, ANSWERS, marks=["total"])))
        assert {score.metric for score in scores} == {"gold", "greedy_gold"}

    def test_one_primary_metric_and_its_direction(self) -> None:
        metrics = {metric.name: metric for metric in GoldReward().metrics()}
        assert [name for name, metric in metrics.items() if metric.primary] == ["gold"]
        assert metrics["degenerate"].higher_is_better is False

    def test_fields_decide_the_samplings(self) -> None:
        evaluator = GoldReward(n=4, temperature=0.7, max_tokens=16)
        assert evaluator.samplings()[0] == Sampling(n=4, temperature=0.7, max_tokens=16)
        assert evaluator.samplings()[1] == Sampling(n=1, temperature=0.0, max_tokens=16)
        with pytest.raises(ValidationError, match="temperature"):
            GoldReward(temperature=0)


def test_win_rate_counts_win_tie_and_loss() -> None:
    examples = (example("a", target="4"), example("b", target="1"), example("c"))
    answers = {SAMPLED: [*ANSWERS[SAMPLED], [Response("9"), Response("9")]]}
    scores = list(TargetWinRate().evaluate(FakeTask(examples, answers, marks=["total"])))
    assert values(scores, "win_rate") == [("a", 0, 0.5), ("a", 1, 1.0), ("b", 0, 0.0), ("b", 1, 1.0)]
    assert len(scores) == 4  # nothing for the example without a target


class TestPreferenceAccuracy:
    EXAMPLES = (
        example("right", ranked=("good", "middling", "bad")),
        example("wrong", ranked=("bad", "good")),
        example("unlikely", ranked=("rare", "bad")),
        example("single", ranked=("good",)),
        example("none"),
    )
    POLICY: Mapping[str, float] = {"good": -3.0, "bad": -5.0, "rare": -9.0}
    REFERENCE: Mapping[str, float] = {"good": -4.0, "bad": -4.5, "rare": -9.25}

    def test_hand_computed(self) -> None:
        # h: good 1, bad -0.5, rare 0.25
        task = FakeTask(self.EXAMPLES, policy_logps=self.POLICY, reference_logps=self.REFERENCE)
        scores = list(PreferenceAccuracy().evaluate(task))
        assert values(scores, "pair_accuracy") == [("right", 0, 1.0), ("wrong", 0, 0.0), ("unlikely", 0, 1.0)]
        assert values(scores, "margin") == [("right", 0, 1.5), ("wrong", 0, -1.5), ("unlikely", 0, 0.75)]
        assert values(scores, "likelihood") == [("right", 0, 1.0), ("wrong", 0, 0.0), ("unlikely", 0, 0.0)]

    def test_the_starting_model_reads_one_half(self) -> None:
        task = FakeTask(self.EXAMPLES, policy_logps=self.POLICY, reference_logps=self.POLICY)
        scores = list(PreferenceAccuracy().evaluate(task))
        assert [value for *_, value in values(scores, "pair_accuracy")] == [0.5, 0.5, 0.5]
        assert [value for *_, value in values(scores, "margin")] == [0.0, 0.0, 0.0]


class TestResponseStats:
    ANSWERS: Mapping[Sampling, list[list[Response]]] = {
        SAMPLED: [
            [Response("a b c a b c", tokens=7), Response(" ", tokens=1)],
            [Response("a b", finished=False), Response("a b c d", tokens=5)],
        ]
    }
    POLICY: Mapping[str, float] = {"a b c a b c": -2.0, " ": -1.0, "a b": -3.0, "a b c d": -4.0}
    REFERENCE: Mapping[str, float] = {"a b c a b c": -2.5, " ": -0.5, "a b": -3.0, "a b c d": -6.0}

    def scores(self, evaluator: ResponseStats) -> list[Score]:
        answers = {evaluator.sampled: self.ANSWERS[SAMPLED]}
        return list(evaluator.evaluate(FakeTask(EXAMPLES, answers, self.POLICY, self.REFERENCE)))

    def test_hand_computed(self) -> None:
        scores = self.scores(ResponseStats())
        assert values(scores, "tokens") == [("a", 0, 7.0), ("a", 1, 1.0), ("b", 1, 5.0)]  # unknown for one answer
        assert values(scores, "characters") == [("a", 0, 11.0), ("a", 1, 1.0), ("b", 0, 3.0), ("b", 1, 7.0)]
        assert values(scores, "empty") == [("a", 0, 0.0), ("a", 1, 1.0), ("b", 0, 0.0), ("b", 1, 0.0)]
        assert values(scores, "truncated") == [("a", 0, 0.0), ("a", 1, 0.0), ("b", 0, 1.0), ("b", 1, 0.0)]
        assert values(scores, "repetition") == [("a", 0, 0.25), ("a", 1, 0.0), ("b", 0, 0.0), ("b", 1, 0.0)]
        assert values(scores, "kl") == [("a", 0, 0.5), ("a", 1, -0.5), ("b", 0, 0.0), ("b", 1, 2.0)]
        of_thoughts = {"thought_tokens", "open_thought"}  # where the config says what becomes of thoughts
        assert {score.metric for score in scores} | of_thoughts == {metric.name for metric in ResponseStats().metrics()}

    def test_no_kl_away_from_temperature_one(self) -> None:
        evaluator = ResponseStats(temperature=0.5)
        assert "kl" not in {metric.name for metric in evaluator.metrics()}
        assert "kl" not in {score.metric for score in self.scores(evaluator)}

    @pytest.mark.parametrize(
        ("text", "share"), [("", 0.0), ("x x", 0.0), ("x x x", 0.0), ("x x x x", 0.5), ("x x x x x", 2 / 3), ("a b c d e", 0.0)]
    )
    def test_repetition(self, text: str, share: float) -> None:
        assert repetition(text) == pytest.approx(share)
