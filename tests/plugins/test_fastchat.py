"""MT-Bench on real judgments: our aggregates are FastChat's, and replaying its judge gives its scores again."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness import DataError, JudgeAnswer, Judgment, Message, Prompt, Response, Sampling, Score
from harness_plugins.evaluators.fastchat import files as fastchat
from harness_plugins.evaluators.fastchat import matches as fastchat_matches
from harness_plugins.evaluators.fastchat.mt_bench import MtBench, VicunaBench

DATA = os.environ.get("HARNESS_REFERENCE_DATA")
REFERENCE = Path(DATA or ".") / "mt_bench"
needs_reference = pytest.mark.skipif(DATA is None, reason="HARNESS_REFERENCE_DATA is not set")


@dataclass
class BenchTask:
    """A task whose policy answers from `answers[prompt's last turn]`, and whose judge is `verdict(question)`."""

    files: Path
    answers: Callable[[Prompt, str | None], str]
    verdict: Callable[[str], str]
    label: str = "mistral-orpo-mix"
    others: Sequence[str] = ()
    temperatures: list[tuple[str, float]] = field(default_factory=list)

    def respond_to(self, prompts: Sequence[Prompt], sampling: Sampling, row: str | None = None) -> list[list[Response]]:
        self.temperatures += [(prompt.id, sampling.temperature) for prompt in prompts]
        return [[Response(self.answers(prompt, row))] for prompt in prompts]

    def opponents(self) -> Mapping[str, list[list[Response]]]:
        return {label: [] for label in self.others}

    def judge(
        self, conversations: Sequence[Sequence[Message]], parse: Callable[[JudgeAnswer], Any], **parameters: Any
    ) -> list[Judgment]:
        found = [JudgeAnswer(self.verdict(conversation[-1].content), "judge-1") for conversation in conversations]
        return [Judgment(answer, parse(answer)) for answer in found]


def show_result(function: str, **arguments: Any) -> str:
    """What FastChat's own script prints."""
    from fastchat.llm_judge import show_result as script

    defaults = {"bench_name": "mt_bench", "judge_model": "gpt-4", "model_list": None, "baseline_model": None}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        getattr(script, function)(argparse.Namespace(**{**defaults, **arguments}))
    return printed.getvalue()


def mean(scores: Sequence[Score], metric: str) -> float:
    values = [score.value for score in scores if score.metric == metric]
    return sum(values) / len(values)


@needs_reference
def test_single_results_are_what_fastchat_shows(tmp_path: Path) -> None:
    rows = fastchat.read_judgments(REFERENCE / "gpt-4_single.jsonl")
    assert len(rows) == 640  # of 800: one model was appended twice
    fastchat.write_lines(tmp_path / "single.jsonl", rows)
    printed = show_result("display_result_single", input_file=str(tmp_path / "single.jsonl"))
    first, second, average = re.split(r"#+ (?:First turn|Second turn|Average) #+", printed)[1:]
    results = fastchat.single_results(rows)
    assert len(results) == 4
    assert [result.unparsed for result in results.values()] == [0, 0, 0, 0]  # the one that was, was judged again
    every = fastchat.single_results(fastchat.read_lines(REFERENCE / "gpt-4_single.jsonl", ("score",)))
    assert every["mistral-orpo"].unparsed == 1
    for model, result in results.items():
        for text, value, turn in (
            (first, result.first, r"\s+1"),
            (second, result.second, r"\s+2"),
            (average, result.average, ""),
        ):
            shown = re.search(rf"^{re.escape(model)}{turn}\s+([\d.]+)$", text, re.MULTILINE)
            assert shown is not None
            assert value == pytest.approx(float(shown[1]), abs=1e-6)


@needs_reference
def test_replaying_the_judge_asks_the_same_and_gives_the_same_scores(tmp_path: Path) -> None:
    rows = [row for row in fastchat.read_judgments(REFERENCE / "gpt-4_single.jsonl") if row["model"] == "mistral-orpo-mix"]
    said = {row["user_prompt"]: row["judgment"] for row in rows}
    answers = fastchat.read_answers(REFERENCE / "model_answer_mistral-orpo-mix.jsonl")

    def answer(prompt: Prompt, row: str | None) -> str:
        question, turn = prompt.id.split(":")
        return str(answers[int(question)]["choices"][0]["turns"][int(turn) - 1])

    task = BenchTask(tmp_path, answer, said.__getitem__)  # a question that FastChat did not ask is a KeyError
    scores = list(evaluator().evaluate(task))
    expected = fastchat.single_results(rows)["mistral-orpo-mix"]
    assert mean(scores, "score") == pytest.approx(expected.average, abs=1e-12)
    assert mean(scores, "turn_1") == pytest.approx(expected.first, abs=1e-12)
    assert mean(scores, "turn_2") == pytest.approx(expected.second, abs=1e-12)
    assert mean(scores, "unparsed") * 160 == pytest.approx(expected.unparsed)
    categories = [mean(scores, category) for category in MtBench.categories]
    assert sum(categories) / 8 == pytest.approx(expected.average, abs=0.05)  # ten questions each, one may be unread
    written = fastchat.read_judgments(tmp_path / "model_judgment" / "single.jsonl")
    assert fastchat.single_results(written) == {"mistral-orpo-mix": expected}
    again = fastchat.read_answers(tmp_path / "model_answer" / "mistral-orpo-mix.jsonl")
    assert {number: row["choices"] for number, row in again.items()} == {n: row["choices"] for n, row in answers.items()}
    shown = [json.loads(line) for line in (tmp_path / "questions.jsonl").read_text().splitlines()]
    assert {line["example"] for line in shown} == {score.example for score in scores} and len(shown) == 160
    second = next(line for line in shown if line["example"] == "mt_bench:81:2")
    first, last = answers[81]["choices"][0]["turns"]
    assert first in second["prompt"] and second["prompt"].startswith("user: ") and second["answer"] == last
    judged = [json.loads(line) for line in (tmp_path / "judgments.jsonl").read_text().splitlines()]
    assert len(judged) == 160 and all(line["words"] for line in judged)
    levels = dict(task.temperatures)
    assert (levels["81:1"], levels["101:2"], levels["111:1"], levels["141:1"]) == (0.7, 0.0, 0.0, 0.1)


def evaluator(**fields: Any) -> MtBench:
    paths = {"questions": "question.jsonl", "prompts": "judge_prompts.jsonl", "references": "reference_answer_gpt-4.jsonl"}
    return MtBench(**{name: str(REFERENCE / path) for name, path in paths.items()}, **fields)


def small_bench(folder: Path, **fields: Any) -> MtBench:
    """One question of two turns, with prompts of the forms that FastChat has."""
    question = {"question_id": 81, "category": "writing", "turns": ["Write.", "Write more."]}
    fastchat.write_lines(folder / "question.jsonl", [question])
    last = {"": "{answer}", "-multi-turn": "{answer_1} {answer_2}"}
    both = {"": "{answer_a} vs {answer_b}", "-multi-turn": "{answer_a_1} {answer_a_2} vs {answer_b_1} {answer_b_2}"}
    kinds = (("single-v1", "single", "[[rating]]", last), ("pair-v2", "pairwise", "[[A]]", both))
    prompts = [
        {"name": name + turn, "type": kind, "system_prompt": "", "prompt_template": template, "output_format": output}
        for name, kind, output, templates in kinds
        for turn, template in templates.items()
    ]
    fastchat.write_lines(folder / "judge_prompts.jsonl", prompts)
    paths = {"questions": str(folder / "question.jsonl"), "prompts": str(folder / "judge_prompts.jsonl"), "references": None}
    return MtBench(**{**paths, **fields})


@needs_reference
def test_pairs_are_won_in_both_orders_only_and_counted_as_fastchat_does(tmp_path: Path) -> None:
    """A judge that prefers the longer answer, always the first one in coding, and says nothing in stem."""
    categories = {}
    for line in (REFERENCE / "question.jsonl").read_text().splitlines():
        question = json.loads(line)
        categories |= {turn[:60]: question["category"] for turn in question["turns"]}

    def answer(prompt: Prompt, row: str | None) -> str:
        odd = int(prompt.id.split(":")[0]) % 2
        return f"said by {row}: " + "word " * (5 + 3 * odd if row is None else 6)

    def verdict(asked: str) -> str:
        category = next(value for text, value in categories.items() if text in asked)
        if category == "stem":
            return "I cannot say."
        longer = asked.split("Assistant B")[0].count("word ") >= asked.split("Assistant B", 1)[1].count("word ")
        return "[[A]]" if category == "coding" or longer else "[[B]]"

    task = BenchTask(tmp_path, answer, verdict, others=["base"])
    scores = list(evaluator(mode=("pair",), opponent="base").evaluate(task))
    rows = fastchat.read_judgments(tmp_path / "model_judgment" / "pair.jsonl")
    result = fastchat.pair_results(rows, "base")["mistral-orpo-mix"]
    printed = show_result(
        "display_result_pairwise", input_file=str(tmp_path / "model_judgment" / "pair.jsonl"), baseline_model="base"
    )
    judged = [json.loads(line) for line in (tmp_path / "judgments.jsonl").read_text().splitlines()]
    assert len(judged) == 2 * len(rows)
    assert {line["verdict"] for line in judged} <= {
        f"{outcome} against base, shown {order}"
        for outcome in ("won", "lost", "tied", "not read")
        for order in ("first", "second")
    }
    shown = printed.splitlines()[-1].split()
    assert shown[0] == "mistral-orpo-mix"
    assert [int(value) for value in shown[1:4]] == [result.win, result.loss, result.tie]
    assert float(shown[-1]) == pytest.approx(result.adjusted_win_rate, abs=1e-6)
    assert result.unparsed == 20
    assert mean(scores, "win_rate") == pytest.approx(result.adjusted_win_rate)
    assert mean(scores, "win") == pytest.approx(result.win / 140)
    assert mean(scores, "unparsed") == 20 / 160
    assert result.tie >= 20  # coding went to whoever stood first
    assert {score.metric for score in scores} <= {metric.name for metric in evaluator(mode=("pair",)).metrics()}


def test_equal_answers_are_a_tie_that_is_not_asked_about(tmp_path: Path) -> None:
    asked: list[str] = []

    def verdict(question: str) -> str:
        asked.append(question)
        return "[[A]]"  # whoever stands first: between equal answers the orders would never agree

    def answer(prompt: Prompt, row: str | None) -> str:
        return "the same" if prompt.id.endswith(":1") else f"of {row}"

    task = BenchTask(tmp_path, answer, verdict, others=["base"])
    scores = list(small_bench(tmp_path, mode=("pair",)).evaluate(task))
    assert asked == ["the same of None vs the same of base", "the same of base vs the same of None"]  # the second turn alone
    found = {(score.example, score.metric): score.value for score in scores}
    assert found["mt_bench:81:1:pair", "tie"] == 1.0
    assert found["mt_bench:81:1:pair", "win_rate"] == 0.5
    assert [example for example, metric in found if metric == "agreement"] == ["mt_bench:81:2:pair"]
    assert [row["turn"] for row in fastchat.read_judgments(tmp_path / "model_judgment" / "pair.jsonl")] == [2]


def test_a_second_turn_after_different_first_ones_is_asked_about(tmp_path: Path) -> None:
    asked: list[str] = []
    task = BenchTask(
        tmp_path,
        lambda prompt, row: f"of {row}" if prompt.id.endswith(":1") else "the same",
        lambda question: asked.append(question) or "[[C]]",
        others=["base"],
    )
    list(small_bench(tmp_path, mode=("pair",)).evaluate(task))
    assert len(asked) == 4


@needs_reference
def test_the_baseline_against_itself_is_a_tie_and_asks_nobody(tmp_path: Path) -> None:
    def nobody(asked: str) -> str:
        raise AssertionError("the judge was asked")

    task = BenchTask(tmp_path, lambda prompt, row: "x", nobody, label="base", others=["base"])
    scores = list(evaluator(mode=("pair",)).evaluate(task))
    assert mean(scores, "win_rate") == 0.5
    assert len([score for score in scores if score.metric == "win_rate"]) == 160


@pytest.mark.parametrize(
    ("said", "rating"),
    [
        ("Rating: [[7]]", 7.0),
        ("Rating: [[6.5]], or [[9]]", 6.5),
        ("Rating: [5.]", 5.0),
        ("Rating: [[0]]", 0.0),  # FastChat takes numbers beyond the scale
        ("Rating: [[85]]", 85.0),
        ("Rating: [[05.5]]", 5.5),
        ("Rating: [[05]]", None),
        ("Rating: [[05]], that is [[5]]", None),  # the first is FastChat's
        ("Rating: [[1_0]]", None),
        ("Rating: [[--5]]", None),
        ("Rating: [[1e3]]", None),
        ("Rating: [[٥]]", None),
        ("As in [2023], it is bad.", None),
        (f"Rating: [[{'9' * 400}]]", None),
        (f"Rating: [[{'9' * 5000}]]", None),
        ("", None),
    ],
)
def test_a_rating_is_what_fastchat_reads_and_what_ends_fastchat_is_unread(
    said: str, rating: float | None, tmp_path: Path
) -> None:
    assert fastchat_matches.read_rating(JudgeAnswer(said, "judge-1")) == rating
    bench = small_bench(tmp_path)
    task = BenchTask(tmp_path, lambda prompt, row: "x", lambda asked: said)
    scores = list(bench.evaluate(task))
    assert [score.value for score in scores if score.metric == "score"] == ([] if rating is None else [rating] * 2)
    assert mean(scores, "unparsed") == (rating is None)
    rows = fastchat.read_judgments(tmp_path / "model_judgment" / "single.jsonl")
    assert [row["judgment"] for row in rows] == [said] * 2  # the judge's words are kept, read or not
    assert [row["score"] for row in rows] == [fastchat.UNREAD if rating is None else rating] * 2


@pytest.mark.parametrize(("bench", "named"), [(MtBench, "reasoning, math and coding"), (VicunaBench, "coding and math")])
def test_judging_without_reference_answers_is_said(bench: type[MtBench | VicunaBench], named: str) -> None:
    assert set(fastchat.NEED_REFERENCES) == set(fastchat_matches.library().NEED_REF_CATS) & set(MtBench.categories)
    assert bench(references="answers.jsonl").cautions() == ()
    said = f"{named} were judged without reference answers, which FastChat judges them with (references = null)"
    assert bench(references=None).cautions() == (said,)


@needs_reference
def test_reference_answers_are_shown_to_the_judge_of_vicuna_bench(tmp_path: Path) -> None:
    questions = fastchat.read_lines(REFERENCE.parent / "vicuna_bench" / "question.jsonl", ("question_id",))
    asked: list[str] = []

    def verdict(question: str) -> str:
        asked.append(question)
        return "[[5]]"

    numbers = [row["question_id"] for row in questions if row["category"] in ("math", "coding")]
    fastchat.write_lines(tmp_path / "gpt-4.jsonl", [fastchat.answer_row(number, "gpt-4", ["the answer"]) for number in numbers])
    bench = VicunaBench(
        questions=str(REFERENCE.parent / "vicuna_bench" / "question.jsonl"),
        prompts=str(REFERENCE / "judge_prompts.jsonl"),
        references=str(tmp_path / "gpt-4.jsonl"),
    )
    list(bench.evaluate(BenchTask(tmp_path, lambda prompt, row: "x", verdict)))
    assert len([question for question in asked if "[The Start of Reference Answer]\nthe answer" in question]) == 10


@needs_reference
def test_vicuna_bench_has_one_turn_and_its_own_categories(tmp_path: Path) -> None:
    questions = Path(DATA or ".") / "vicuna_bench" / "question.jsonl"
    bench = VicunaBench(questions=str(questions), prompts=str(REFERENCE / "judge_prompts.jsonl"))
    assert bench.problems() == []
    task = BenchTask(tmp_path, lambda prompt, row: "x", lambda asked: "hm" if "Python" in asked else "Rating: [[6.5]]")
    scores = list(bench.evaluate(task))
    assert mean(scores, "score") == 6.5
    unread = sum(score.value for score in scores if score.metric == "unparsed")
    assert unread > 0
    assert len([score for score in scores if score.metric == "score"]) == 80 - unread
    assert {score.metric for score in scores} == {metric.name for metric in bench.metrics()}
    with pytest.raises(DataError, match="mt_bench has no category"):
        list(MtBench(questions=str(questions), prompts=bench.prompts, references=None).evaluate(task))


@pytest.mark.parametrize(
    ("finish", "counted"), [("declined", "declined"), ("length", "cut_off"), ("open thought", "cut_off"), ("stop", None)]
)
def test_fastchat_reads_no_answer_that_is_no_verdict(finish: str, counted: str | None, tmp_path: Path) -> None:
    """FastChat would read a rating from the words; it is not shown them."""
    said = "Rating: [[7]]"

    class Task(BenchTask):
        def judge(
            self, conversations: Sequence[Sequence[Message]], parse: Callable[[JudgeAnswer], Any], **parameters: Any
        ) -> list[Judgment]:
            answer = JudgeAnswer(said, "" if finish == "declined" else "judge-1", finish)
            return [Judgment(answer, parse(answer) if answer.finished else None) for _ in conversations]

    scores = list(small_bench(tmp_path).evaluate(Task(tmp_path, lambda prompt, row: "x", lambda asked: said)))
    assert [score.value for score in scores if score.metric == "score"] == ([7.0] * 2 if counted is None else [])
    assert mean(scores, "unparsed") == (counted is not None)
    assert {name: mean(scores, name) for name in ("declined", "cut_off")} == {
        name: float(name == counted) for name in ("declined", "cut_off")
    }
    rows = fastchat.read_judgments(tmp_path / "model_judgment" / "single.jsonl")
    assert [row["judgment"] for row in rows] == [said] * 2
