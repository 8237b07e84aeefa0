"""Thoughts in what a reasoning model wrote: where they begin and end, and what is left without them.

One place for judges, for policies and for plugins: nobody else looks for `<think>`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

Delimiters = tuple[tuple[str, str], ...]

# As the parsers of vLLM and SGLang know them, and the tags that prompts ask for. Upper and lower case are the same.
DELIMITERS: Delimiters = (
    ("<think>", "</think>"),  # DeepSeek-R1, Qwen3, QwQ and most others
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
    ("[THINK]", "[/THINK]"),  # Magistral
    ("◁think▷", "◁/think▷"),  # Kimi
    ("<|begin_of_thought|>", "<|end_of_thought|>"),  # Sky-T1, OpenThinker
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),  # gpt-oss: servers drop the `<|end|>` between them
)
QUOTES = {"`": "`", '"': '"', "'": "'", "“": "”", "‘": "’"}


@dataclass(frozen=True)
class Divided:
    """A text divided into its thoughts and its answer.

    Attributes:
        answer: the text without thoughts; as it was where there are none.
        thought: the thoughts with their delimiters.
        closed: whether every thought has ended.
    """

    answer: str
    thought: str = ""
    closed: bool = True


def divide(text: str, delimiters: Sequence[Sequence[str]] = DELIMITERS, *, opened: bool = False) -> Divided:
    """Divide a text into thoughts and answer.

    A closing delimiter without an opening one ends a thought that began with the text: some servers, and all templates that
    write the opening one into the prompt, leave it out. A delimiter in quotes is a word like others.

    Args:
        opened: the prompt ends with an opening delimiter, so that the text begins within a thought.
    """
    if not delimiters:
        return Divided(text)
    pattern, ends = _pattern(tuple((opening, closing) for opening, closing in delimiters))
    answer: list[str] = []
    thoughts: list[str] = []
    start, awaited = 0, frozenset(ends.values()) if opened else frozenset[str]()
    for match in pattern.finditer(text):
        delimiter = match[0].lower()
        if _quoted(text, match):
            continue
        if awaited:  # within a thought, where other delimiters are words
            if delimiter in awaited:
                thoughts.append(text[start : match.end()])
                start, awaited = match.end(), frozenset()
        elif delimiter in ends:
            answer.append(text[start : match.start()])
            start, awaited = match.start(), frozenset({ends[delimiter]})
        else:
            answer, thoughts, start = [], [text[: match.end()]], match.end()
    (thoughts if awaited else answer).append(text[start:])
    if not thoughts:
        return Divided(text)
    return Divided("".join(answer).strip(), "".join(thoughts), not awaited)


def opens_thought(prompt: str, delimiters: Sequence[Sequence[str]] = DELIMITERS) -> bool:
    """Return whether a rendered prompt ends with an opening delimiter, as templates of reasoning models write it."""
    return prompt.rstrip().lower().endswith(tuple(opening.lower() for opening, _ in delimiters))


def wrong_delimiters(delimiters: Sequence[Sequence[str]]) -> str:
    """Return what is wrong with delimiters, with the fix; '' where nothing is."""
    openings = {opening.lower() for opening, _ in delimiters}
    closings = {closing.lower() for _, closing in delimiters}
    if any(not part.strip() for pair in delimiters for part in pair):
        return "a delimiter is empty: give pairs of an opening and a closing one, as [['<think>', '</think>']]"
    if both := sorted(openings & closings):
        return f"{both[0]!r} opens and closes: give an opening and a closing delimiter that differ"
    return ""


@lru_cache(maxsize=16)
def _pattern(delimiters: Delimiters) -> tuple[re.Pattern[str], dict[str, str]]:
    """All delimiters as one pattern, the longest first, and the closing one of each opening one."""
    words = sorted({word for pair in delimiters for word in pair}, key=len, reverse=True)
    ends = {opening.lower(): closing.lower() for opening, closing in delimiters}
    return re.compile("|".join(map(re.escape, words)), re.IGNORECASE), ends


def _quoted(text: str, match: re.Match[str]) -> bool:
    """Return whether a delimiter stands in quotes: a judge that writes of `<think>` does not begin to think."""
    before, after = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
    return before in QUOTES and QUOTES[before] == after
