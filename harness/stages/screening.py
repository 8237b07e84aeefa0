"""What of a source's rows is used: no prompt that is evaluated is trained on, and none longer than the config allows.

Both keep or leave out whole examples; every one that is left out is counted under its reason.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from harness.config import Limits
from harness.models.prompts import ChatTemplate
from harness.types import Dataset, Example, Prompt, Response, SplitName

EXACT, NORMALISED = "exact", "normalised"
_RULES: tuple[tuple[SplitName, tuple[SplitName, ...]], ...] = (
    ("tuning", ("heldout",)),
    ("train", ("heldout", "tuning")),
    ("sft", ("heldout", "tuning")),
)


@dataclass
class Screening:
    """What was kept and why the rest was not.

    Attributes:
        kept: examples by split.
        dropped: rows that the source itself left out, by reason.
        contaminated: by split, prompts that are evaluated elsewhere: the same text, or the same but for case, spacing and
            punctuation.
        too_long: by split, examples over a limit, by the limit's name.
    """

    kept: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    contaminated: dict[str, dict[str, int]] = field(default_factory=dict)
    too_long: dict[str, dict[str, int]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def screen(dataset: Dataset, limits: Limits | None = None, template: ChatTemplate | None = None) -> tuple[Dataset, Screening]:
    """The rows that are used, and what became of the others.

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
            others = [example.prompt for name in evaluated for example in splits.get(name, ())]
            splits[split] = _clean(splits[split], others, report.contaminated.setdefault(split, {}))
    report.kept = {split: len(examples) for split, examples in splits.items()}
    return Dataset(splits, dataset.dropped), report


def normalised(prompt: Prompt) -> tuple[str, ...]:
    """Equal for two prompts that differ in case, spacing, compatibility forms or punctuation alone; each turn apart."""
    return tuple(_folded(message.content) for message in prompt.messages)


def _folded(text: str) -> str:
    """Text without what is folded; as it is where nothing else would be left ("?!" is not "…")."""
    words = "".join(
        " " if unicodedata.category(character)[0] in "PSZC" else character
        for character in unicodedata.normalize("NFKC", text).casefold()
    )
    return " ".join(words.split()) or " ".join(text.split())


def _clean(examples: Sequence[Example], others: Sequence[Prompt], counts: dict[str, int]) -> tuple[Example, ...]:
    exact, alike = {prompt.messages for prompt in others}, {normalised(prompt) for prompt in others}
    found = Counter({EXACT: 0, NORMALISED: 0})
    kept = []
    for example in examples:
        if example.prompt.messages in exact:
            found[EXACT] += 1
        elif normalised(example.prompt) in alike:
            found[NORMALISED] += 1
        else:
            kept.append(example)
    counts.update(found)
    return tuple(kept)


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
    response = max((len(template.response_ids(example.prompt, Response(text))) for text in texts), default=0)
    sizes = {"max_prompt_tokens": prompt, "max_response_tokens": response, "max_tokens": prompt + response}
    for name, size in sizes.items():
        most = getattr(limits, name)
        if most is not None and size > most:
            return name
    return None
