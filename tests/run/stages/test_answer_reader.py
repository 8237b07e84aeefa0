"""Thoughts in a policy's answers: kept or taken out before an evaluator reads them, and counted apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.api.types import DELIMITERS, Example, Prompt, Response, Sampling, Score
from harness.models.load import load_tokenizer
from harness.run.plan import run_sampling
from harness.run.stages.evaluate import AnswerReader, EvaluatorServices
from harness_plugins.evaluators.gold_reward import GoldReward
from harness_plugins.evaluators.response_stats import ResponseStats

ANSWERS = [
    Response("<think>apple or pear ?</think>pear", tokens=9),
    Response("pear", tokens=2),
    Response("<think>apple or", finished=False, tokens=4),  # cut off within its thought
    Response("apple or pear ?</think> plum", tokens=None),  # the template opened the thought, and nobody counted
]


class Source:
    """Gold is the number of letters."""

    read: Sequence[str] = ()

    def gold(self, example: Example, response: Response) -> Mapping[str, float]:
        self.read = [*self.read, response.text]
        return {"total": float(len(response.text))}


class Model:
    """Scores nothing, and notes what it was to score."""

    reference, is_served = "a", False

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.scored: list[Response] = []

    def logps(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[Response]]) -> list[list[float]]:
        self.scored += [response for row in responses for response in row]
        return [[-1.0 for _ in row] for row in responses]


class Bench:
    def __init__(self, checkpoint: Path, folder: Path, thinking: str | None, template: str | None = None) -> None:
        tokenizer = load_tokenizer(checkpoint)
        if template is not None:
            tokenizer.chat_template = template
        self.model, self.source = Model(tokenizer), Source()
        fields: Any = {
            "examples": [Example(Prompt.of("a", "name a fruit ."))],
            "seed": 0,
            "folder": folder,
            "files": folder,
            "source": self.source,
            "model": self.model,
            "start": self.model,
            "prepared": {run_sampling(s, 0): [ANSWERS[: s.n]] for s in (Sampling(n=4), Sampling(n=1, temperature=0.0))},
            "others": {"other": [ANSWERS]},
            "reader": AnswerReader(thinking=thinking, delimiters=DELIMITERS) if thinking else None,
        }
        self.task: Any = EvaluatorServices(**fields)

    def count(self, text: str) -> int:
        return len(self.model.tokenizer(text, add_special_tokens=False)["input_ids"])

    def stats(self) -> dict[str, list[float]]:
        scores: list[Score] = list(ResponseStats(n=4).evaluate(self.task))
        return {name: [score.value for score in scores if score.metric == name] for name in {s.metric for s in scores}}


def test_without_the_section_answers_are_read_as_they_are(tiny_checkpoint: Path, tmp_path: Path) -> None:
    bench = Bench(tiny_checkpoint, tmp_path, None)
    assert bench.task.respond(Sampling(n=4)) == [ANSWERS] == bench.task.opponents()["other"]
    assert {"thought_tokens", "open_thought"}.isdisjoint(bench.stats())


def test_strip_takes_thoughts_out_before_anybody_reads(tiny_checkpoint: Path, tmp_path: Path) -> None:
    bench = Bench(tiny_checkpoint, tmp_path, "strip")
    answers = ["pear", "pear", "", "plum"]
    for (row,) in (bench.task.respond(Sampling(n=4)), bench.task.opponents()["other"]):
        assert [response.text for response in row] == answers
        assert [response.finished for response in row] == [True, True, False, True]
    list(GoldReward(n=4).evaluate(bench.task))
    assert bench.source.read == [*answers, "pear"]  # the sampled ones, and the greedy one
    found = bench.stats()
    first = bench.count("<think>apple or pear ?</think>")
    assert first > 0
    assert found["thought_tokens"] == [first, 0, 4, bench.count("apple or pear ?</think>")]
    assert found["tokens"] == [9 - first, 2, 0]  # with the thoughts, what was sampled; unknown for one answer
    assert found["empty"] == [0, 0, 1, 0]
    assert found["open_thought"] == [0, 0, 1, 0]
    assert bench.model.scored[:4] == ANSWERS  # KL is of what was sampled


def test_keep_counts_thoughts_and_leaves_them(tiny_checkpoint: Path, tmp_path: Path) -> None:
    bench = Bench(tiny_checkpoint, tmp_path, "keep")
    (row,) = bench.task.respond(Sampling(n=4))
    assert [(response.text, response.tokens) for response in row] == [(answer.text, answer.tokens) for answer in ANSWERS]
    found = bench.stats()
    assert found["thought_tokens"][:3] == [bench.count("<think>apple or pear ?</think>"), 0, 4]
    assert (found["tokens"], found["empty"]) == ([9, 2, 4], [0, 0, 0, 0])


@pytest.mark.parametrize(("end", "expected"), [("<think>\n", ["", "pear"]), ("", ["pear , no end", "pear"])])
def test_a_template_that_opens_the_thought(tiny_checkpoint: Path, tmp_path: Path, end: str, expected: list[str]) -> None:
    """An answer cut off before the thought's end holds no delimiter at all."""
    template = (
        "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %} answer " + end + "{% endif %}"
    )
    bench = Bench(tiny_checkpoint, tmp_path, "strip", template)
    answers = [Response("pear , no end", finished=False, tokens=3), Response("hm</think> pear", tokens=4)]
    prompts = [Prompt.of("a", "name a fruit .")]
    bench.task.model = SimpleNamespace(is_served=False, tokenizer=bench.model.tokenizer, respond=lambda *_: [answers])
    (row,) = bench.task.respond_to(prompts, Sampling(n=2))
    assert [response.text for response in row] == expected
    assert [response.closed for response in row] == [not end, True]
