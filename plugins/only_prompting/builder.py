"""Only-prompting's data: two requests for the same prompt (§3.3)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from harness import BuildTask, DataBuilder, Group, Paper, Response

PAPER = Paper("Just say what you want: only-prompting self-rewarding online preference optimization", "2409.17534", "§3.3")

CHOSEN_PREFIX = "Please produce a top-notch response that merits a perfect score of 10 out of 10."
REJECTED_PREFIX = "Please produce a good response that merits a perfect score of {score} out of 10."

# What a model says of the score it was asked for, which §4.3 quotes: 'Okay, here is a 10-score answer', 'The 10-score answer is
# as follows.' Every repetition is bounded, since this reads what a model wrote.
_SURE = r"^\s*(?:(?:okay|ok|sure|certainly|of course|absolutely)\s?[,.!]?\s{1,3})?"
_SCORED = r"\d{1,3}(?:\.\d{1,2})?\s{0,2}-?\s{0,2}(?:score|point|out of|/\s?10)"
_END = r"(?:[:.!\n]|$)\s*"
PREAMBLES = (
    _SURE + r"here(?:['’]s| is)\s{1,3}(?:a|an|the|my|your)\b[^:.!\n]{0,200}?\b" + _SCORED + r"[^:.!\n]{0,200}" + _END,
    _SURE
    + r"(?:the|my)\s{1,3}"
    + _SCORED
    + r"(?:\s?10)?[- ]?(?:answer|response)\s?(?:is as follows|is below|follows)?\s?"
    + _END,
    r"^\s*\(?\s?score\s?[:=]?\s?\d{1,3}(?:\.\d{1,2})?\s?(?:/|out of)\s?10\s?\)?\s?[:.\-]?\s*",
    r"\(?\bthis (?:response|answer) (?:merits|deserves)[^.\n]{0,200}?\d{1,3}\s?out of\s?10\s?\)?\.?\s*$",
)


class OnlyPrompting(DataBuilder):
    """Chosen: sampled under a prefix that asks for 10 out of 10. Rejected: under one that asks for `rejected_score`.

    The training pair uses the prompt without a prefix. Preambles that announce a score are removed, and a pair with nothing
    left on one side, or with equal sides, is dropped and counted.
    """

    name: ClassVar[str] = "only_prompting"
    paper: ClassVar[Paper | None] = PAPER

    rejected_score: int = Field(3, ge=1, le=9, description="s, the score asked of the rejected response")
    chosen_prefix: str = Field(CHOSEN_PREFIX, min_length=1, description="goes before the prompt of the chosen response")
    rejected_prefix: str = Field(REJECTED_PREFIX, min_length=1, description="the same for the rejected; {score} becomes s")
    temperature: float = Field(1.0, gt=0, description="of both samples")

    def responses_per_prompt(self) -> int:
        return 2  # one of each prefix

    def build(self, task: BuildTask) -> Iterable[Group]:
        chosen = task.sample(1, prefix=self.chosen_prefix, temperature=self.temperature)
        prefix = self.rejected_prefix.replace("{score}", str(self.rejected_score))
        rejected = task.sample(1, prefix=prefix, temperature=self.temperature)
        for example, (good,), (bad,) in zip(task.examples, chosen, rejected, strict=True):
            good, bad = without_preamble(good), without_preamble(bad)
            if not good.text or not bad.text:
                task.count("nothing left on one side")
            elif good.text == bad.text:
                task.count("equal sides")
            else:
                yield Group(example.prompt, good, (bad,))


def without_preamble(response: Response) -> Response:
    """The response less any sentence that announces its own score."""
    text = response.text
    for pattern in PREAMBLES:
        text = re.sub(pattern, "", text, flags=re.IGNORECASE)
    return response if text == response.text else replace(response, text=text.strip(), ids=None)
