"""What of a source's rows is used: no prompt that is evaluated is trained on, and none longer than the config allows.

Both keep or leave out whole examples; every one that is left out is counted under its reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from harness.config import Limits
from harness.models.prompts import ChatTemplate
from harness.texts import fold
from harness.types import Dataset, Example, Prompt, Response, SplitName

EXACT, NORMALISED, CONTINUED = "exact", "normalised", "continued"
SHOWN_PAIRS = 20  # of each split and reason
EXCERPT = 200  # characters of a shown prompt
FEWEST = 2  # examples of a split that is used: neither an interval nor a batch of pairs comes from one
_RULES: tuple[tuple[SplitName, tuple[SplitName, ...]], ...] = (
    ("tuning", ("heldout",)),
    ("train", ("heldout", "tuning")),
    ("sft", ("heldout", "tuning")),
)
_Turns = tuple[tuple[str, str], ...]  # (role, folded text) of each turn


@dataclass
class Screening:
    """What was kept and why the rest was not.

    Attributes:
        kept: examples by split.
        dropped: rows that the source itself left out, by reason.
        contaminated: by split, prompts that are evaluated elsewhere: the same text (`exact`), the same but for case, spacing
            and sentence punctuation (`normalised`), or another cut of the same dialogue, which holds an evaluated answer or
            answers what an evaluated prompt goes on from (`continued`).
        too_long: by split, examples over a limit, by the limit's name.
        usable: by split, how many of the kept examples have a target, and how many at least two ranked responses.
        pairs: left-out prompts beside the evaluated ones they were taken for, the first of each split and reason. They are
            shown by a plan and are in no artifact and on no board, since they are the data's own words.
    """

    kept: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    contaminated: dict[str, dict[str, int]] = field(default_factory=dict)
    too_long: dict[str, dict[str, int]] = field(default_factory=dict)
    usable: dict[str, dict[str, int]] = field(default_factory=dict)
    pairs: list[dict[str, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For boards and programs: counts alone."""
        counts = asdict(self)
        del counts["usable"], counts["pairs"]
        return counts


def screen(dataset: Dataset, limits: Limits | None = None, template: ChatTemplate | None = None) -> tuple[Dataset, Screening]:
    """Return the rows that are used, and what became of the others.

    Args:
        limits: in tokens of `template`; none if None.
    """
    report = Screening(dropped=dict(dataset.dropped))
    splits = dict(dataset.splits)
    if limits is not None and template is not None:
        for split, examples in splits.items():
            splits[split] = _within(examples, limits, template, report.too_long.setdefault(split, {}))
    for split, evaluated in _RULES:
        if split in splits:
            others = _Evaluated([(name, example) for name in evaluated for example in splits.get(name, ())])
            splits[split] = others.left_by(splits[split], split, report)
    report.kept = {split: len(examples) for split, examples in splits.items()}
    report.usable = {split: usable(examples) for split, examples in splits.items()}
    return Dataset(splits, dataset.dropped), report


def usable(examples: Sequence[Example]) -> dict[str, int]:
    """Count the examples with a target, and those with two ranked responses, as rows and evaluators need them."""
    return {
        "target": sum(bool(example.target) for example in examples),
        "ranked": sum(len(example.ranked) > 1 for example in examples),
    }


def normalised(prompt: Prompt) -> _Turns:
    """Return what is equal for two prompts that differ in case, spacing or sentence punctuation alone; each turn apart."""
    return tuple((message.role, fold(message.content)) for message in prompt.messages)


class _Evaluated:
    """The evaluated examples, by what training prompts must not be."""

    def __init__(self, examples: Sequence[tuple[SplitName, Example]]) -> None:
        self.exact: dict[Any, tuple[SplitName, Example]] = {}
        self.alike: dict[_Turns, tuple[SplitName, Example]] = {}
        self.answered: dict[_Turns, tuple[SplitName, Example]] = {}  # prompt and answer: what no training prompt begins with
        self.history: dict[_Turns, tuple[SplitName, Example]] = {}  # a prompt up to each answer in it
        for named in examples:
            turns = normalised(named[1].prompt)
            self.exact.setdefault(named[1].prompt.messages, named)
            self.alike.setdefault(turns, named)
            for answered in _answered(turns, named[1]):
                self.answered.setdefault(answered, named)
            for earlier in _history(turns):
                self.history.setdefault(earlier, named)

    def left_by(self, examples: Sequence[Example], split: SplitName, report: Screening) -> tuple[Example, ...]:
        """Return the examples that nothing here rules out; count and show the others in the report."""
        counts = report.contaminated.setdefault(split, {})
        counts.update({EXACT: 0, NORMALISED: 0, CONTINUED: 0})
        kept = []
        for example in examples:
            match = self._match(example)
            if match is None:
                kept.append(example)
                continue
            reason, (other_split, other) = match
            counts[reason] += 1
            if counts[reason] <= SHOWN_PAIRS:
                texts = excerpts(example.prompt, other.prompt)
                pair = {"split": split, "id": example.prompt.id, "text": texts[0]}
                other_pair = {"evaluated_in": other_split, "evaluated_id": other.prompt.id, "evaluated_text": texts[1]}
                report.pairs.append({"reason": reason, **pair, **other_pair})
        return tuple(kept)

    def _match(self, example: Example) -> tuple[str, tuple[SplitName, Example]] | None:
        if (same := self.exact.get(example.prompt.messages)) is not None:
            return EXACT, same
        turns = normalised(example.prompt)
        if (alike := self.alike.get(turns)) is not None:
            return NORMALISED, alike
        # HH-RLHF and its like hold a dialogue several times, cut at different turns.
        cuts = [self.answered.get(earlier) for earlier in _history(turns)]
        if self.history:
            cuts += [self.history.get(answered) for answered in _answered(turns, example)]
        cut = next((named for named in cuts if named is not None), None)
        return None if cut is None else (CONTINUED, cut)


def _answered(turns: _Turns, example: Example) -> Iterator[_Turns]:
    """The dialogue with each of its answers."""
    for text in dict.fromkeys((example.target, *example.ranked)):
        if text is not None:
            yield (*turns, ("assistant", fold(text)))


def _history(turns: _Turns) -> Iterator[_Turns]:
    """The beginnings of a dialogue that end with an answer."""
    return (turns[: place + 1] for place, (role, _) in enumerate(turns) if role == "assistant")


def excerpts(one: Prompt, other: Prompt) -> tuple[str, str]:
    """Return the parts of two prompts that show how they differ."""
    texts = ["\n".join(message.content for message in prompt.messages) for prompt in (one, other)]
    first = next((place for place, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
    start = max(0, first - EXCERPT // 2) if max(map(len, texts)) > EXCERPT else 0
    cut = [text[start : start + EXCERPT] for text in texts]
    shown = [
        ("…" if start else "") + part + ("…" if start + EXCERPT < len(text) else "")
        for text, part in zip(texts, cut, strict=True)
    ]
    return shown[0], shown[1]


def _within(examples: Sequence[Example], limits: Limits, template: ChatTemplate, counts: dict[str, int]) -> tuple[Example, ...]:
    kept = []
    for example in examples:
        reason = _over(example, limits, template)
        if reason is None:
            kept.append(example)
        else:
            counts[reason] = counts.get(reason, 0) + 1
    return tuple(kept)


def _over(example: Example, limits: Limits, template: ChatTemplate) -> str | None:
    """The first limit that an example is over; its longest response counts."""
    prompt = len(template.prompt_ids(example.prompt))
    texts = {text for text in (example.target, *example.ranked) if text is not None}
    response = max((len(template.response_ids(Response(text))) for text in texts), default=0)
    sizes = {"max_prompt_tokens": prompt, "max_response_tokens": response, "max_tokens": prompt + response}
    for name, size in sizes.items():
        most = getattr(limits, name)
        if most is not None and size > most:
            return name
    return None
