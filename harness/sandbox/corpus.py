"""The pre-training web: unrated dialogues of mixed quality, and rated ones whose answers follow the rating noisily.

Large models have read what a '9 out of 10' looks like; this corpus teaches the small one the same. A rating is
`Marks.rating`, a rater's forgiving version of the gold reward, plus Gaussian noise: informative, and wrong often enough. Only
questions of the training split occur.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from harness.sandbox.annotators import ANNOTATORS, answer
from harness.sandbox.gold import mark
from harness.sandbox.language import SCORE_REQUESTS, USEFULNESS_REQUESTS
from harness.sandbox.tasks import Task, draw_task

RATED_SHARE, RATING_NOISE = 0.6, 0.8


@dataclass(frozen=True)
class CorpusDialogue:
    """A user turn and an assistant turn, as text."""

    user: str
    assistant: str


def draw_training_task(rng: random.Random) -> Task:
    """A question of the training split."""
    while True:
        task = draw_task(rng)
        if task.split == "train":
            return task


def rating_request(quality: float, rng: random.Random) -> str:
    """A request for the rating that someone gave an answer of this quality in [0, 10]: out of 10 or out of 100."""
    rating = quality + rng.gauss(0.0, RATING_NOISE)
    if rng.random() < 0.5:
        return rng.choice(SCORE_REQUESTS).format(score=min(10, max(1, round(rating))))
    return rng.choice(USEFULNESS_REQUESTS).format(rating=min(100, max(1, round(10 * rating))))


def dialogues(seed: int) -> Iterator[CorpusDialogue]:
    """An endless, seeded stream of pre-training dialogues."""
    rng = random.Random(f"sandbox corpus {seed}")
    while True:
        task = draw_training_task(rng)
        text = answer(task, rng.choice(ANNOTATORS), rng)
        if rng.random() < RATED_SHARE:
            yield CorpusDialogue(f"{rating_request(mark(task, text).rating, rng)} {task.question}", text)
        else:
            yield CorpusDialogue(task.question, text)
