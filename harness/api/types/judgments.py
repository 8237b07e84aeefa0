"""Questions to a judge and its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.api.types.measures import Metric

DECLINED = "declined"  # the `finish` of a question that the judge, or its server's filter, did not answer
OPEN_THOUGHT = "open thought"  # the `finish`, once read, of an answer that ends within a thought
# Servers' words for an answer that its model ended. A word that is not here is that of an answer cut off: a judge that is
# believed although it was interrupted errs in silence, one that is not is counted and warned of.
FINISHED = frozenset(
    {"", "stop", "eos", "eostoken", "stopsequence", "stoptoken", "endturn", "end", "complete", "completed", "done", "finished"}
    | {"toolcalls", "functioncall"}
)


def ended(finish: str) -> bool:
    """Return whether a server's reason for the end of an answer, of which the letters count, is that the model ended it."""
    return "".join(filter(str.isalpha, finish.lower())) in FINISHED


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
    """A judge's answer, and what was read from it.

    Attributes:
        text: its words, without thoughts once an evaluator is handed them; empty where it declined to answer.
        model: its model and version as its server reports them.
        finish: why it stopped: `stop`, `length`, `declined`, `open thought`, or what its server says.
        input_tokens: of the question, as its server counts them.
        output_tokens: of the answer.
        top_logprobs: (token, log-probability in nats) of the likeliest first tokens, where asked for and no thought came first.
        thought: what it thought, where its server keeps that apart or its words held it; no rule reads a verdict from it.
    """

    text: str
    model: str
    finish: str = "stop"
    input_tokens: int = 0
    output_tokens: int = 0
    top_logprobs: tuple[tuple[str, float], ...] | None = None
    thought: str = ""

    @property
    def finished(self) -> bool:
        """Whether the model came to its end: a cut-off or declined answer is no verdict, whatever its words."""
        return ended(self.finish)


@dataclass(frozen=True)
class Judgment:
    """A judge's answer and what it was read as; `value` is None where it could not be read, asked twice, or was declined."""

    answer: JudgeAnswer
    value: Any

    @property
    def parsed(self) -> bool:
        return self.value is not None

    @property
    def declined(self) -> bool:
        """Whether the judge or its server's filter refused the question; it is asked once."""
        return self.answer.finish == DECLINED

    @property
    def cut_off(self) -> bool:
        """Whether the answer was interrupted: by a length limit, within a thought, or by its server."""
        return not self.parsed and not self.declined and not self.answer.finished


UNREAD_METRICS = (
    Metric("unparsed", "share of judgments that could not be read, asked twice", higher_is_better=False, bounds=(0, 1)),
    Metric(
        "declined", "share of judgments unparsed since the judge declined the question", higher_is_better=False, bounds=(0, 1)
    ),
    Metric(
        "cut_off",
        "share of judgments unparsed since the answer was cut off or ends in a thought",
        higher_is_better=False,
        bounds=(0, 1),
    ),
)


def unread_shares(judgments: Sequence[Judgment]) -> dict[str, float]:
    """Return the values of `UNREAD_METRICS`; 0 where nothing was asked."""
    count = max(1, len(judgments))
    return {
        "unparsed": sum(not judgment.parsed for judgment in judgments) / count,
        "declined": sum(judgment.declined for judgment in judgments) / count,
        "cut_off": sum(judgment.cut_off for judgment in judgments) / count,
    }
