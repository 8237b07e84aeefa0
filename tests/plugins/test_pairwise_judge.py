"""Both orders of a pair: who wins, whether the orders agree, and what cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from harness import DataError, Example, JudgeAnswer, Judgment, Message, Prompt, Response, Sampling, Score
from harness_plugins.evaluators.pairwise_judge import PairwiseJudge, read_verdict


@dataclass
class JudgedTask:
    """`verdict(prompt)` says what the judge does."""

    examples: Sequence[Example]
    ours: Sequence[Sequence[str]]
    verdict: Callable[[str], str]
    others: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    files: ClassVar[Path]

    def respond(self, sampling: Sampling) -> list[list[Response]]:
        return [[Response(text) for text in row] for row in self.ours]

    def opponents(self) -> Mapping[str, list[list[Response]]]:
        return {label: [[Response(text) for text in row] for row in rows] for label, rows in self.others.items()}

    def judge(
        self, conversations: Sequence[Sequence[Message]], parse: Callable[[JudgeAnswer], Any], **parameters: Any
    ) -> list[Judgment]:
        self.asked += [conversation[-1].content for conversation in conversations]
        answers = [JudgeAnswer(self.verdict(conversation[-1].content), "judge") for conversation in conversations]
        return [Judgment(answer, parse(answer)) for answer in answers]


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JudgedTask, "files", tmp_path, raising=False)


def examples(count: int) -> list[Example]:
    return [Example(Prompt.of(f"q{number}", f"question {number}"), target="bad 1") for number in range(count)]


def honest(prompt: str) -> str:
    """Prefers the answer with `good`; where both or neither have it, the one shown first."""
    first, second = (part.split("Answer]\n")[1] for part in prompt.split("[The Start of")[1:])
    return "[[B]]" if "good" in second.split("[The End")[0] and "good" not in first.split("[The End")[0] else "[[A]]"


def means(scores: Sequence[Score]) -> dict[str, float]:
    names = {score.metric for score in scores}
    return {name: sum(s.value for s in scores if s.metric == name) / sum(s.metric == name for s in scores) for name in names}


def test_win_tie_loss_and_the_bias_of_the_orders() -> None:
    ours, theirs = [["good 1"], ["bad 2"], ["good 3"], ["same"]], [["bad 1"], ["good 2"], ["good 4"], ["same"]]
    task = JudgedTask(examples(4), ours, honest, {"dpo": theirs})
    scores = list(PairwiseJudge(opponent="dpo").evaluate(task))
    by_example = {s.example: s.value for s in scores if s.metric == "win_rate"}
    assert by_example == {"q0": 1.0, "q1": 0.0, "q2": 0.5, "q3": 0.5}
    assert len(task.asked) == 6  # both orders; answers with the same words are not asked about
    found = means(scores)
    assert (found["win"], found["tie"], found["loss"]) == (0.25, 0.5, 0.25)
    assert found["agreement"] == pytest.approx(2 / 3)  # the third pair went to whoever stood first
    assert found["first"] == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert found["unparsed"] == 0
    assert {score.metric for score in scores} == {metric.name for metric in PairwiseJudge().metrics()}


def test_the_judges_words_are_left_for_the_board() -> None:
    task = JudgedTask(examples(2), [["good 1"], ["same"]], honest, {"dpo": [["bad 1"], ["same"]]})
    list(PairwiseJudge(opponent="dpo").evaluate(task))
    said = [json.loads(line) for line in (task.files / "judgments.jsonl").read_text().splitlines()]
    assert said == [
        {"example": "q0", "sample": 0, "verdict": "won, shown first", "words": "[[A]]"},
        {"example": "q0", "sample": 0, "verdict": "won, shown second", "words": "[[B]]"},
    ]


def test_what_cannot_be_read_is_counted_and_not_scored() -> None:
    task = JudgedTask(examples(2), [["good"], ["x"]], lambda prompt: "hm" if "question 1" in prompt else honest(prompt))
    scores = list(PairwiseJudge(opponent="target").evaluate(task))
    assert {(s.example, s.value) for s in scores if s.metric == "win_rate"} == {("q0", 1.0)}
    assert {(s.example, s.value) for s in scores if s.metric == "unparsed"} == {("q0", 0.0), ("q1", 1.0)}


def test_samples_count_through_the_opponents_sorted_by_label() -> None:
    others = {"b": [["bad 1", "bad 2"]], "a": [["good 1", "good 2"]]}
    task = JudgedTask(examples(1), [["good", "bad"]], honest, others)
    scores = list(PairwiseJudge(opponent="all", n=2).evaluate(task))
    assert [(s.sample, s.value) for s in scores if s.metric == "win_rate"] == [(0, 0.5), (1, 0.0), (2, 1.0), (3, 0.5)]


@pytest.mark.parametrize(
    ("said", "verdict"), [("[[A]]", "A"), ("I thought [[A]] at first. [[C]]", "C"), ("A", None), ("[[D]]", None), ("", None)]
)
def test_read_verdict(said: str, verdict: str | None) -> None:
    assert read_verdict(JudgeAnswer(said, "judge")) == verdict


def prompts_file(path: Path, template: str = "Q {question} A {answer_a} B {answer_b}") -> Path:
    rows = [
        {"name": "pair-v2", "system_prompt": "Judge.", "prompt_template": template, "output_format": "[[A]]"},
        {"name": "single-v1", "system_prompt": "", "prompt_template": "{question} {", "output_format": "[[rating]]"},
        {
            "name": "pair-v2-multi-turn",
            "system_prompt": "",
            "prompt_template": "{question_1} {answer_a_1} {answer_b_1}",
            "output_format": "[[A]]",
        },
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_fastchat_prompts(tmp_path: Path) -> None:
    path = prompts_file(tmp_path / "judge_prompts.jsonl")
    task = JudgedTask(examples(1), [["{question.x} good"]], lambda prompt: "[[A]]")
    list(PairwiseJudge(opponent="target", prompts=str(path)).evaluate(task))
    assert task.asked == ["Q question 0 A {question.x} good B bad 1", "Q question 0 A bad 1 B {question.x} good"]
    with pytest.raises(DataError, match=r"no such single-turn pairwise prompt; it has pair-v2$"):
        list(PairwiseJudge(opponent="target", prompts=str(path), prompt_name="single-v1").evaluate(task))
    with pytest.raises(DataError, match="cannot be read"):
        list(PairwiseJudge(opponent="target", prompts=str(tmp_path / "none")).evaluate(task))


def test_prompts_that_cannot_be_taken_are_said_while_planning(tmp_path: Path) -> None:
    path = str(prompts_file(tmp_path / "judge_prompts.jsonl"))
    assert PairwiseJudge().problems() == ()
    assert PairwiseJudge(prompts=path).problems() == ()
    ((field, fix),) = PairwiseJudge(prompts=str(tmp_path / "none")).problems()
    assert (field, "cannot be read" in fix) == ("prompts", True)
    assert fix.endswith("give FastChat's judge_prompts.jsonl, or one like it")
    for name in ("single-v1", "pair-v2-multi-turn", "pair-v3"):
        ((field, fix),) = PairwiseJudge(prompts=path, prompt_name=name).problems()
        assert (field, fix) == ("prompt_name", f"{path} has no such single-turn pairwise prompt; it has pair-v2")


def test_the_words_of_a_prompt_decide_the_scores_and_its_place_does_not(tmp_path: Path) -> None:
    assert PairwiseJudge().fingerprint() == ""  # our own prompt changes with the evaluator's version
    path = prompts_file(tmp_path / "judge_prompts.jsonl")
    before = PairwiseJudge(prompts=str(path)).fingerprint()
    assert before == PairwiseJudge(prompts=str(prompts_file(tmp_path / "copy.jsonl"))).fingerprint() != ""
    prompts_file(path, "Which is better for {question}? A {answer_a} B {answer_b}")
    assert PairwiseJudge(prompts=str(path)).fingerprint() != before
