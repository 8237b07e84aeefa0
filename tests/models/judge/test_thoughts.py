"""Thoughts in answers: removed before any rule reads a verdict, whoever the judge is; a cut-off answer is no verdict."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from models.judge.bench import Bench, answers_in, conversations
from pydantic import ValidationError

from harness.api.types import DELIMITERS, JudgeAnswer, divide
from harness.api.types.thoughts import opens_thought
from harness.models.judge.answers import _answer
from harness.models.judge.reading import as_read
from harness.models.judge.settings import JudgeSettings
from harness.models.server import HttpReply, completion
from harness_plugins.evaluators.pairwise_judge import last_label, read_label, read_verdict

DATA = os.environ.get("HARNESS_REFERENCE_DATA")
VERDICTS = "judgments_v0.1_DeepSeek-R1-Distill-Llama-70B_bagel-8b-v1.0.jsonl.gz"


@pytest.mark.parametrize(
    ("text", "answer", "closed"),
    [
        ("no thought [[A]]", "no thought [[A]]", True),
        ("<think>[[B]]?</think>\n[[A]]", "[[A]]", True),
        ("it may be [[B]] </think> [[A]]", "[[A]]", True),  # the server or the template wrote the opening one
        ("<think>[[A]] or [[B]] or [[C]]", "", False),
        ("Say first. <THINK> [[A]]", "Say first.", False),
        ("<think>one</think> [[A]] <think>two</think> [[B]]", "[[A]]  [[B]]", True),
        ("<think>one</think> [[A]] <think>two", "[[A]]", False),
        ("<think>a <think> b</think> [[A]]", "[[A]]", True),
        ("[THINK]x[/THINK]y", "y", True),
        ("◁think▷x◁/think▷y", "y", True),
        ("<|channel|>analysis<|message|>x<|end|><|start|>assistant<|channel|>final<|message|>y", "y", True),
        ("<reasoning>x</reasoning>y", "y", True),
        ("A has a long `<think>` block. [[B]]", "A has a long `<think>` block. [[B]]", True),  # in quotes: a word like others
        ("<think>never write `</think>` [[B]]</think>[[A]]", "[[A]]", True),
        ("<think>x</thinking>y", "", False),  # not its own end
        ("<think></think>", "", True),
    ],
)
def test_a_text_is_divided(text: str, answer: str, closed: bool) -> None:
    parts = divide(text)
    assert (parts.answer, parts.closed) == (answer, closed)
    assert bool(parts.thought) == (answer != text)


def test_a_prompt_may_open_the_thought() -> None:
    assert opens_thought("<|assistant|><think>\n") and not opens_thought("<|assistant|>")
    assert divide("all of it is thought", opened=True).answer == ""
    assert not divide("all of it is thought", opened=True).closed
    assert divide("it was</think>plum", opened=True).answer == "plum"


def test_delimiters_are_the_configs() -> None:
    own = (("Reasons:", "Verdict:"),)
    assert divide("Reasons: [[B]] Verdict: [[A]]", own).answer == "[[A]]"
    assert divide("<think>x</think>y", own).answer == "<think>x</think>y"
    assert divide("<think>x</think>y", ()).answer == "<think>x</think>y"
    for wrong, fix in (([["<a>", ""]], "a delimiter is empty"), ([["|", "|"]], "'|' opens and closes")):
        with pytest.raises(ValidationError, match=fix.replace("|", r"\|")):
            JudgeSettings(model="m", reasoning_delimiters=wrong)


def test_probabilities_of_a_thought_are_no_verdicts() -> None:
    top = (("m", -0.1),)
    whole = as_read(JudgeAnswer("m", "j", "length", top_logprobs=top), DELIMITERS, 1)
    assert whole.finished and whole.top_logprobs == top  # one token was asked for, and came
    assert not as_read(JudgeAnswer("m", "j", "length", top_logprobs=top), DELIMITERS, 2).finished
    assert as_read(JudgeAnswer("<think>x</think>m", "j", top_logprobs=top), DELIMITERS, 9).top_logprobs is None
    assert as_read(JudgeAnswer("m", "j", top_logprobs=top, thought="x"), DELIMITERS, 9).top_logprobs is None
    assert not as_read(JudgeAnswer("<think>", "j", "length", top_logprobs=top), DELIMITERS, 1).finished


@pytest.mark.parametrize(
    ("text", "verdict"),
    [("[[A>>B]]", "A"), ("[[a>b]]", "A"), ("[[A=B]]", "C"), ("[[B>A]] no, [[B>>A]]", "B"), ("[[A>B>A]]", None), ("A>B", None)],
)
def test_labels_of_arena_hard(text: str, verdict: str | None) -> None:
    assert read_label(JudgeAnswer(text, "judge")) == verdict


@pytest.mark.skipif(DATA is None, reason="HARNESS_REFERENCE_DATA is not set")
def test_every_verdict_of_a_reasoning_judge_is_read_as_its_authors_recorded_it(tmp_path: Path) -> None:
    """362 judgments of DeepSeek-R1-Distill-Llama-70B, through the client, the store and back."""
    with gzip.open(Path(DATA or ".") / "arena_hard" / VERDICTS, "rt", encoding="utf-8") as stream:
        games = [game for line in stream for game in json.loads(line)["games"]]
    assert len(games) == 362 and sum(game["score"] is None for game in games) == 8
    bench = Bench(tmp_path, lambda prompt, times: games[int(prompt)]["judgment"])
    questions = conversations(*map(str, range(len(games))))
    with bench.server.serving():
        judge = bench.judge(max_tokens=65_536)
        assert [item.value for item in judge.judge(questions, last_label, {})] == [game["score"] for game in games]
        facts = judge.tally.facts()
        assert (facts["unparsed"], facts["declined"], facts["cut_off"]) == (8, 0, 2)  # two never end their thought
        again = bench.judge(max_tokens=65_536)
        read = [item.value for item in again.judge(questions, read_label, {})]
    names = {"A>>B": "A", "A>B": "A", "A=B": "C", "B>A": "B", "B>>A": "B", None: None}
    assert read == [names[game["score"]] for game in games]
    assert sum(bench.server.asked.values()) == 362 + 8  # what could not be read is asked once more, and kept


def thinking(prompt: str, times: int) -> Any:
    body = completion("<think>[[C]]?</think>[[A]] <note>not [[B]]</note>", "judge", prompt)
    body["choices"][0]["message"]["reasoning_content"] = "Or [[C]]?"
    return HttpReply(body)


@pytest.mark.parametrize("bench", [thinking], indirect=True)
def test_an_answer_is_kept_whole_and_read_by_other_delimiters_without_asking_again(bench: Bench) -> None:
    for delimiters, value in ((DELIMITERS, "B"), ((*DELIMITERS, ("<note>", "</note>")), "A")):
        (judgment,) = bench.judge(reasoning_delimiters=delimiters).judge(conversations("a"), read_verdict, {})
        assert judgment.value == value
        assert judgment.answer.thought.startswith("Or [[C]]?<think>[[C]]?</think>")
    assert bench.server.asked == {"a": 1}
    (row,) = answers_in(bench)
    assert (row["answer"]["text"], row["answer"]["thought"]) == (
        "<think>[[C]]?</think>[[A]] <note>not [[B]]</note>",
        "Or [[C]]?",
    )


def test_answers_of_older_stores_are_read() -> None:
    row = {
        "text": "[[A]]",
        "model": "j",
        "finish": "stop",
        "input_tokens": 1,
        "output_tokens": 2,
        "top_logprobs": [["A", -0.5]],
    }
    assert _answer(row) == JudgeAnswer("[[A]]", "j", "stop", 1, 2, (("A", -0.5),))
