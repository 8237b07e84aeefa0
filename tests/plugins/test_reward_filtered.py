"""Self-Contrast's upper bound: only samples below their target become negatives."""

from __future__ import annotations

import random

import pytest
from pydantic import ValidationError
from test_builders import ScriptedTask, example, responses

from harness_plugins.self_contrast.reward_filtered import RewardFiltered


class GoldTask(ScriptedTask):
    """A scripted task whose gold reward is looked up by text."""

    marks: dict[str, float]

    def gold(self, responses):
        return [[self.marks[response.text] for response in row] for row in responses]


def task_of(examples, samples, marks: dict[str, float]) -> GoldTask:
    task = GoldTask(examples, samples)
    task.marks = marks
    return task


MARKS = {"target": 5.0, "low": 1.0, "lower": 0.0, "equal": 5.0, "high": 9.0, "": -1.0}


def test_negatives_are_drawn_from_all_samples_below_the_target() -> None:
    task = task_of([example()], [responses("high", "low", "equal", "lower", "", "low", "target")], MARKS)
    drawn = set()
    for seed in range(40):
        task.rng = random.Random(seed)
        (group,) = RewardFiltered(samples=7).build(task)
        drawn.add(group.rejected[0].text)
        assert group.chosen.text == "target"
        assert group.info == {"target_gold": 5.0, "negative_gold": MARKS[group.rejected[0].text]}
    assert drawn == {"low", "lower"}
    assert task.counted == {}
    assert task.asked[0] == (7, "", "start")


def test_m_negatives_are_distinct() -> None:
    task = task_of([example()], [responses("low", "low", "low", "lower")], MARKS)
    (group,) = RewardFiltered(samples=4, negatives=2).build(task)
    assert {response.text for response in group.rejected} == {"low", "lower"}
    assert group.info["negative_gold"] == 0.5


def test_prompts_without_a_target_or_enough_negatives_are_counted() -> None:
    rows = [responses("low", "lower"), responses("low", "low"), responses("high", ""), responses("low", "lower")]
    task = task_of([example("a", target=None), example("b"), example("c"), example("d")], rows, MARKS)
    (group,) = RewardFiltered(samples=2, negatives=2).build(task)
    assert group.prompt.id == "d"
    assert task.counted == {"no target": 1, "fewer than 2 distinct negatives below the target": 2}


def test_the_same_seed_draws_the_same() -> None:
    def drawn() -> list[str]:
        task = task_of([example()], [responses("low", "lower", "high")], MARKS)
        return [response.text for group in RewardFiltered(samples=3).build(task) for response in group.rejected]

    assert drawn() == drawn()


def test_more_negatives_than_samples_are_refused() -> None:
    with pytest.raises(ValidationError, match="samples = 2 is fewer than negatives = 3: raise samples"):
        RewardFiltered(samples=2, negatives=3)


def test_it_needs_the_target_and_its_reward() -> None:
    assert RewardFiltered.needs == {"target", "gold"}
