"""Who wrote the sandbox's texts: seven annotators, each a set of habits given as probabilities.

An annotator answers a question by deciding, independently, what to get right and what to let slip. The pre-training web is
a mixture of all seven; the SFT targets come from `TARGET_AUTHOR`, who is good but not perfect, so that SFT converges below
the ceiling and leaves something to align.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from harness.sandbox.language import BULLET, CLOSERS, FORMATS, LEADS, MARKERS, OPENERS, REFUSALS, RUDE, WAFFLE
from harness.sandbox.tasks import Task


@dataclass(frozen=True)
class Annotator:
    """One author's habits; every field is a probability in [0, 1].

    Attributes:
        wrong: an item is replaced by a plausible wrong one.
        drop: the list stops early (1 to count - 1 items fewer).
        extra: wrong items are added at the end.
        misformat: another list format than asked is used.
        polite: an opener is said; a closer with half that probability.
        rude: a rude remark is added.
        waffle: a waffling sentence is added; drawn twice.
        repeat: an item is said again.
        refuse: the answer is a refusal.
        lead: a lead-in precedes the list (neither good nor bad).
    """

    name: str
    wrong: float
    drop: float
    extra: float
    misformat: float
    polite: float
    rude: float
    waffle: float
    repeat: float
    refuse: float = 0.0
    lead: float = 0.4


ANNOTATORS: tuple[Annotator, ...] = (
    Annotator("expert", wrong=0.02, drop=0.02, extra=0.02, misformat=0.03, polite=0.95, rude=0.0, waffle=0.03, repeat=0.01),
    Annotator("careful", wrong=0.05, drop=0.08, extra=0.05, misformat=0.1, polite=0.7, rude=0.02, waffle=0.15, repeat=0.03),
    Annotator("hurried", wrong=0.1, drop=0.6, extra=0.02, misformat=0.3, polite=0.1, rude=0.1, waffle=0.02, repeat=0.02),
    Annotator("chatty", wrong=0.1, drop=0.1, extra=0.3, misformat=0.3, polite=0.8, rude=0.02, waffle=0.75, repeat=0.15),
    Annotator(
        "grumpy", wrong=0.08, drop=0.3, extra=0.05, misformat=0.3, polite=0.05, rude=0.8, waffle=0.1, repeat=0.05, refuse=0.05
    ),
    Annotator("sloppy", wrong=0.35, drop=0.3, extra=0.3, misformat=0.7, polite=0.3, rude=0.1, waffle=0.3, repeat=0.3),
    Annotator(
        "spammer", wrong=0.6, drop=0.3, extra=0.6, misformat=0.8, polite=0.2, rude=0.3, waffle=0.8, repeat=0.6, refuse=0.15
    ),
)

TARGET_AUTHOR = Annotator(
    "target author", wrong=0.04, drop=0.12, extra=0.06, misformat=0.3, polite=0.5, rude=0.12, waffle=0.25, repeat=0.06
)


def _items(task: Task, author: Annotator, rng: random.Random) -> list[str]:
    """The items the author would list: the right ones, then slips in knowledge, number and repetition."""
    right = list(task.expected) if task.ordered else rng.sample(task.expected, min(task.count, len(task.expected)))
    items = [rng.choice(task.distractors) if rng.random() < author.wrong else item for item in right]
    if len(items) > 1 and rng.random() < author.drop:
        items = items[: rng.randint(1, len(items) - 1)]
    if rng.random() < author.extra:
        items += [rng.choice(task.distractors) for _ in range(rng.randint(1, 2))]
    if rng.random() < author.repeat:
        items += rng.choices(items, k=rng.randint(1, 3))
    return items


def layout(items: list[str], style: str) -> str:
    """Items as a list in one of `language.FORMATS`."""
    if style == "commas":
        return " , ".join(items)
    if style == "bullets":
        return " ".join(f"{BULLET} {item}" for item in items)
    return " ".join(f"{MARKERS[min(number, len(MARKERS) - 1)]} {item}" for number, item in enumerate(items))


def answer(task: Task, author: Annotator, rng: random.Random) -> str:
    """One answer by `author`, words separated by spaces."""
    if rng.random() < author.refuse:
        return rng.choice(REFUSALS)
    style = rng.choice([name for name in FORMATS if name != task.format]) if rng.random() < author.misformat else task.format
    before: list[str] = []
    after: list[str] = []
    if rng.random() < author.polite:
        before.append(rng.choice(OPENERS))
    for _ in range(2):
        if rng.random() < author.waffle:
            (before if rng.random() < 0.6 else after).append(rng.choice(WAFFLE))
    if rng.random() < author.lead:
        before.append(rng.choice(LEADS))
    if rng.random() < author.rude:
        (before if rng.random() < 0.3 else after).append(rng.choice(RUDE))
    if rng.random() < author.polite / 2:
        after.append(rng.choice(CLOSERS))
    return " ".join([*before, layout(_items(task, author, rng), style), *after])
