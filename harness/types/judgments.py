"""What a judge is asked and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Questions:
    """How much a judge is asked at most, without the second asking of what could not be read.

    Attributes:
        calls: questions.
        tokens: of all questions together. A byte of a known text counts as a token, and a policy's answer as its longest.
        answer_tokens: of one of the judge's answers; the judge's `max_tokens` if None.
    """

    calls: int
    tokens: int
    answer_tokens: int | None = None


@dataclass(frozen=True)
class JudgeAnswer:
    """What a judge said.

    Attributes:
        text: its words; empty where it declined to answer.
        model: its model and version as its server reports them.
        finish: why it stopped: `stop`, `length`, `declined`, or what its server says.
        input_tokens: of the question, as its server counts them.
        output_tokens: of the answer.
        top_logprobs: (token, log-probability in nats) of the likeliest first tokens, where asked for.
    """

    text: str
    model: str
    finish: str = "stop"
    input_tokens: int = 0
    output_tokens: int = 0
    top_logprobs: tuple[tuple[str, float], ...] | None = None


@dataclass(frozen=True)
class Judgment:
    """A judge's answer and what it was read as; `value` is None where it could not be read, asked twice."""

    answer: JudgeAnswer
    value: Any

    @property
    def parsed(self) -> bool:
        return self.value is not None
