"""The sandbox as a data set: SFT targets, training prompts with noisy preference pairs, tuning and held-out prompts."""

from __future__ import annotations

import random
from collections.abc import Mapping

from harness.api.types import Dataset, Example, Prompt, Response, SplitName
from harness.sandbox.annotators import ANNOTATORS, TARGET_AUTHOR, answer
from harness.sandbox.gold import mark
from harness.sandbox.tasks import FAMILIES, Task, draw_task

_EXHAUSTED = 2000  # draws of one family in a row without a new question: the family has no more of them


def draw_questions(split: str, count: int, rng: random.Random, taken: set[str]) -> list[Task]:
    """`count` distinct questions of a split, families in turn while they last; `taken` grows by them."""
    found: list[Task] = []
    families = list(FAMILIES)
    while len(found) < count and families:
        for family in tuple(families):
            task = _new_question(family, split, rng, taken)
            if task is None:
                families.remove(family)
            elif len(found) < count:
                found.append(task)
                taken.add(task.question)
    rng.shuffle(found)
    return found


def _new_question(family: str, split: str, rng: random.Random, taken: set[str]) -> Task | None:
    for _ in range(_EXHAUSTED):
        task = draw_task(rng, family)
        if task.split == split and task.question not in taken and (split != "heldout" or task.nowhere_else):
            return task
    return None


def preference_pair(task: Task, noise: float, rng: random.Random) -> tuple[str, str]:
    """(preferred, other): two annotators' answers, labelled by gold and swapped with probability `noise`."""
    while True:
        first, second = (answer(task, author, rng) for author in rng.sample(ANNOTATORS, 2))
        gap = mark(task, first).total - mark(task, second).total
        if gap == 0:
            continue
        ordered = (first, second) if gap > 0 else (second, first)
        return (ordered[1], ordered[0]) if rng.random() < noise else ordered


def build_dataset(counts: Mapping[SplitName, int], label_noise: float, seed: int) -> Dataset:
    """All splits. No question is in two of them, and no tuning or held-out question, however worded, in any training text.

    Args:
        counts: examples per split; a split gets fewer where the world has no more questions.
        label_noise: share of preference pairs with the worse answer first.
    """
    taken: set[str] = set()
    splits: dict[SplitName, tuple[Example, ...]] = {}
    for name, count in counts.items():
        rng = random.Random(f"sandbox {name} {seed}")
        world_split = name if name in ("tuning", "heldout") else "train"
        tasks = draw_questions(world_split, count, rng, taken)
        splits[name] = tuple(_example(f"{name}-{index}", task, label_noise, rng) for index, task in enumerate(tasks))
    return Dataset(splits)


def _example(id: str, task: Task, label_noise: float, rng: random.Random) -> Example:
    return Example(
        prompt=Prompt.of(id, task.question),
        target=answer(task, TARGET_AUTHOR, rng),
        ranked=preference_pair(task, label_noise, rng),
        metadata={"task": task.as_dict()},
    )


def marks(example: Example, response: Response) -> dict[str, float]:
    """Gold marks of a response: `total`, `chosen` and `known` in [0, 10]; `degenerate` 0 or 1."""
    result = mark(Task.from_dict(example.metadata["task"]), response.text, response.finished)
    return {
        "total": result.total,
        "chosen": result.chosen,
        "known": result.known,
        "degenerate": float(result.degenerate),
    }
