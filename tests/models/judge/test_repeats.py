"""Questions that a judge is asked again: the same ones in every run, cached, and never scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from models.judge.bench import Bench, always

from harness import Questions
from harness.api.registry import Registry
from harness.config import resolve
from harness.errors import ConfigError
from harness.models.judge.judge import Judge
from harness.models.judge.settings import JudgeSettings
from harness.run.estimates.judge import _estimate
from harness.run.plan import plan
from harness.run.results import _repeatability

TEXTS = [f"question {number}" for number in range(60)]


def fickle(prompt: str, times: int) -> str:
    """Change one's mind on every third question when asked again."""
    return "[[5]]" if times == 0 or int(prompt.split()[1]) % 3 else "[[9]]"


def repeating(bench: Bench, **fields: Any) -> Judge:
    judge = bench.judge(**fields)
    judge.repeats = True  # as for a stage that is an evaluation
    return judge


@pytest.mark.parametrize("bench", [fickle], indirect=True)
def test_a_share_is_asked_again_and_the_first_verdict_is_scored(bench: Bench) -> None:
    judge = repeating(bench, repeats=2, repeat_share=0.5)
    assert [judgment.value for judgment in judge.judge(*always(*TEXTS))] == [5] * len(TEXTS)
    assert set(bench.server.asked.values()) == {1, 3}
    again = {prompt for prompt, times in bench.server.asked.items() if times == 3}
    assert 15 <= len(again) <= 45
    changed = {prompt for prompt in again if int(prompt.split()[1]) % 3 == 0}
    expected = [[5, 9, 9] if prompt in changed else [5, 5, 5] for prompt in again]
    assert changed and sorted(judge.tally.repeated.values()) == sorted(expected)
    assert judge.tally.judgments == len(TEXTS)
    assert judge.tally.calls == sum(bench.server.asked.values())  # paid, and counted


@pytest.mark.parametrize("bench", [fickle], indirect=True)
def test_a_second_run_repeats_from_the_store(bench: Bench) -> None:
    first = repeating(bench, repeats=1, repeat_share=0.5)
    first.judge(*always(*TEXTS))
    before = sum(bench.server.asked.values())
    second = repeating(bench, repeats=1, repeat_share=0.5)
    second.judge(*always(*TEXTS))
    assert sum(bench.server.asked.values()) == before > len(TEXTS)
    assert second.tally.repeated == first.tally.repeated != {}


@pytest.mark.parametrize("bench", [fickle], indirect=True)
def test_more_repeats_ask_only_what_is_new(bench: Bench) -> None:
    repeating(bench, repeats=1, repeat_share=1.0).judge(*always(*TEXTS))
    repeating(bench, repeats=2, repeat_share=1.0).judge(*always(*TEXTS))
    assert set(bench.server.asked.values()) == {3}


@pytest.mark.parametrize("bench", [lambda prompt, times: "[[5]]" if times == 0 else "no verdict"], indirect=True)
def test_a_verdict_that_cannot_be_read_is_left_out(bench: Bench) -> None:
    judge = repeating(bench, repeats=1, repeat_share=1.0)
    judge.judge(*always("a", "b"))
    assert list(judge.tally.repeated.values()) == [[5], [5]]
    assert judge.tally.unparsed == 0  # of what is scored, nothing is missing


def test_without_repeats_no_question_is_asked_twice(bench: Bench) -> None:
    for judge in (repeating(bench), bench.judge(repeats=3, repeat_share=1.0)):  # the second is a data builder's
        judge.judge(*always("a", "b"))
        assert judge.tally.repeated == {} and "repeated" not in judge.tally.facts()
    assert set(bench.server.asked.values()) == {1}


def test_numbers_have_a_part_of_the_variance() -> None:
    entry = _repeatability("e", [[1, 1], [9, 9], [5, 7]])
    assert entry is not None and entry.share is not None
    assert (entry.questions, entry.verdicts, entry.agreement) == (3, 2.0, pytest.approx(2 / 3))
    assert 0 < entry.share < 0.2
    assert f"67% of pairs; changes of mind are {entry.share:.0%} of a verdict's variance" in entry.sentence


def test_names_of_sides_count_as_scores_and_other_names_do_not() -> None:
    sides, others = _repeatability("e", [["A", "A"], ["B", "C"]]), _repeatability("e", [["good", "good"], ["bad", "odd"]])
    assert sides is not None and others is not None
    assert sides.agreement == others.agreement == 0.5
    assert sides.share is not None and others.share is None
    assert others.sentence.endswith("in 50% of pairs.")


def test_nothing_is_said_of_questions_with_one_verdict() -> None:
    assert _repeatability("e", [[1], [2]]) is None


def config(checkpoint: Path, **judge: Any) -> dict[str, Any]:
    return {
        "name": "a",
        "source": "sandbox",
        "model": {"path": str(checkpoint)},
        "methods": ["sft", "dpo"],
        "budget": {"prompts": 10},
        "evaluators": ["pairwise_judge", "gold_reward"],
        "judge": {"model": "m", "base_url": "http://localhost:1/v1", **judge},
        "seeds": [0],
        "baseline": "sft",
    }


def test_repeats_are_part_of_the_keys_of_judged_evaluations_alone(tiny_checkpoint: Path) -> None:
    registry = Registry.load()
    plain, none, repeated, more = (
        plan(resolve(config(tiny_checkpoint, **judge), registry))
        for judge in ({}, {"repeats": 0, "repeat_share": 0.5}, {"repeats": 1}, {"repeats": 1, "repeat_share": 0.5})
    )
    assert list(plain.stages) == list(none.stages)
    changed = [plain.stages[key] for key in plain.stages.keys() - repeated.stages.keys()]
    assert {stage.title for stage in changed} == {"pairwise_judge of sft · seed 0", "pairwise_judge of dpo · seed 0"}
    assert repeated.stages.keys() != more.stages.keys()


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        ({"repeats": -1}, "judge.repeats = -1: it should be greater than or equal to 0"),
        ({"repeats": 21}, "judge.repeats = 21: it should be less than or equal to 20"),
        ({"repeats": 1, "repeat_share": 0}, "judge.repeat_share = 0: it should be greater than 0"),
        ({"repeats": 1, "repeat_share": 1.5}, "judge.repeat_share = 1.5: it should be less than or equal to 1"),
    ],
)
def test_wrong_repeats_are_one_clear_error(tiny_checkpoint: Path, judge: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(config(tiny_checkpoint, **judge), Registry.load())
    assert said in str(caught.value)


def test_the_estimate_counts_repeats() -> None:
    plain, repeated = (JudgeSettings(model="m", repeats=repeats, repeat_share=0.5) for repeats in (0, 2))
    asked = [Questions(100, 1000, 10)]
    once, again = (_estimate("e", settings, asked) for settings in (plain, repeated))
    assert once.calls == 200 and again.calls == 300
