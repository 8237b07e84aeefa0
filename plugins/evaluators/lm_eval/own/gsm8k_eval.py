"""The number that GSM8K-eval reads from an answer (github.com/Guangxuan-Xiao/GSM8K-eval, commit eec91892, `clean_answer`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

TRIGGER = "the answer is"
NUMBER = re.compile(r"-?\d+\.?\d*")
NONE = "[invalid]"


def answer(completion: str) -> str:
    """Return the first number after the first "The answer is"; of a completion without these words, its last number.

    Commas go, and so does a period at the number's end. The words are found in any case.
    """
    before, *after = completion.lower().split(TRIGGER)
    numbers: list[str] = NUMBER.findall((after[0] if after else before).replace(",", ""))
    return (numbers[0] if after else numbers[-1]).removesuffix(".") if numbers else NONE


def answers(responses: Iterable[Sequence[str]], documents: object) -> list[list[str]]:
    """Filter lm-eval's responses, [documents][repeats]."""
    return [[answer(text) for text in texts] for texts in responses]
