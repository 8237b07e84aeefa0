"""The gold reward cannot be talked into anything, and tells good authors from bad ones."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.sandbox.annotators import ANNOTATORS, answer, layout
from harness.sandbox.gold import mark
from harness.sandbox.language import CATEGORIES, CLOSERS, LEADS, OBJECTS, OPENERS, OPPOSITES, RECIPES, REFUSALS, RUDE, WAFFLE
from harness.sandbox.tasks import FAMILIES, Task, draw_task
from harness.sandbox.tokenizer import SPECIAL, vocabulary

VOCABULARY = [word for word in vocabulary() if word not in SPECIAL]
POLITE = OPENERS[0]
# Every item the sandbox knows: what a policy would say that hopes to be right somewhere.
EVERYTHING = [
    *(word for words in CATEGORIES.values() for word in words),
    *OPPOSITES,
    *(step for steps in RECIPES.values() for step in steps),
    *dict.fromkeys(fact for facts in OBJECTS.values() for fact in facts),
]


def tasks(family: str, count: int = 60) -> list[Task]:
    rng = random.Random(f"gold tests {family}")
    return [draw_task(rng, family) for _ in range(count)]


def right_items(task: Task) -> list[str]:
    return list(task.expected[: task.count])


def wrong_items(task: Task) -> list[str]:
    """As many wrong items as asked for, all different."""
    return [item for item in EVERYTHING if item not in task.expected][: task.count]


def right(task: Task) -> str:
    return layout(right_items(task), task.format)


every_family = pytest.mark.parametrize("family", FAMILIES)


@every_family
def test_a_perfect_answer_is_ten(family: str) -> None:
    for task in tasks(family):
        for text in (f"{POLITE} {right(task)}", f"{right(task)} {CLOSERS[0]}", f"{POLITE} {LEADS[0]} {right(task)} ."):
            marks = mark(task, text)
            assert marks.total == pytest.approx(10, abs=1e-9)
            assert marks.chosen == pytest.approx(10, abs=1e-9)
            assert marks.known == pytest.approx(10, abs=1e-9)
            assert not marks.degenerate
            assert list(marks.items) == right_items(task)


PHRASES = (*OPENERS, *CLOSERS, *LEADS, *WAFFLE, *RUDE, *REFUSALS)


@pytest.mark.parametrize(
    "text", ["", " ", *PHRASES, " ".join(PHRASES), "- - -", "1) 2) 3)", ", , .", "banana " * 20, "the the the"]
)
@every_family
def test_without_an_item_there_is_nothing(family: str, text: str) -> None:
    for task in tasks(family, 10):
        marks = mark(task, text)
        assert marks.total == marks.chosen == marks.known == 0
        assert marks.degenerate


@every_family
def test_an_echo_of_the_question_stays_below_five(family: str) -> None:
    for task in tasks(family, 300):
        for text in (task.question, f"{POLITE} {task.question}", f"{task.question} {task.question}"):
            assert mark(task, text).total < 5


@every_family
def test_a_dump_of_all_items_stays_below_five(family: str) -> None:
    for task in tasks(family):
        for text in (layout(EVERYTHING, task.format), f"{POLITE} {layout(EVERYTHING, task.format)}"):
            assert mark(task, text).total < 5


@every_family
def test_a_list_repeated_over_and_over_stays_below_five(family: str) -> None:
    for task in tasks(family):
        assert mark(task, layout(right_items(task) * 6, task.format)).total < 5
        assert mark(task, f"{POLITE} {layout(right_items(task) * 20, task.format)}").total < 5


@every_family
def test_an_unfinished_answer_keeps_half(family: str) -> None:
    for task in tasks(family):
        assert mark(task, f"{POLITE} {right(task)}", finished=False).total == pytest.approx(5)
        assert mark(task, right(task), finished=False).total < 5


@every_family
def test_junk_costs_its_share_of_the_words(family: str) -> None:
    for task in tasks(family):
        words = len(right(task).split())
        assert mark(task, f"{right(task)} {'banana ' * words}").total < 5
        assert mark(task, f"{right(task)} {'banana ' * words}").degenerate
        assert mark(task, f"{right(task)} {'banana ' * (words + 1)}").degenerate
        assert not mark(task, f"{right(task)} banana").degenerate


@every_family
def test_style_alone_is_worth_six_and_knowledge_alone_no_more(family: str) -> None:
    for task in tasks(family):
        polite_and_wrong = mark(task, f"{POLITE} {layout(wrong_items(task), task.format)}")
        assert polite_and_wrong.total == pytest.approx(6)
        assert polite_and_wrong.known == 0
        wrong_format = {"numbered": "bullets", "bullets": "commas", "commas": "numbered"}[task.format]
        rude_and_right = f"{RUDE[0]} {WAFFLE[0]} {layout(right_items(task), wrong_format)}"
        assert mark(task, rude_and_right).known == pytest.approx(10)
        assert mark(task, rude_and_right).total < 7.5


@every_family
def test_no_addition_to_a_perfect_answer_pays(family: str) -> None:
    """Whatever makes a perfect answer longer gains nothing; all but one lead and closer costs something."""
    for task in tasks(family):
        perfect = f"{POLITE} {right(task)}"
        assert mark(task, f"{LEADS[0]} {perfect} {CLOSERS[0]}").total == pytest.approx(10)
        assert mark(task, f"{perfect} {' '.join(CLOSERS)} {' '.join(LEADS)}").total < 7
        for addition in (*WAFFLE, *RUDE, *REFUSALS, "banana", f"- {right_items(task)[0]}", f", {wrong_items(task)[0]}"):
            for text in (f"{perfect} {addition}", f"{addition} {perfect}"):
                assert mark(task, text).total < 9.95


@every_family
def test_each_waffling_sentence_costs(family: str) -> None:
    for task in tasks(family, 10):
        totals = [mark(task, " ".join([POLITE, *WAFFLE[:count], right(task)])).total for count in range(len(WAFFLE) + 1)]
        assert totals == sorted(totals, reverse=True)
        assert len(set(totals)) == len(totals)


@every_family
def test_one_right_item_repeated_stays_below_five(family: str) -> None:
    for task in tasks(family):
        assert mark(task, f"{POLITE} {layout(right_items(task)[:1] * task.count, task.format)}").total < 5.5
        assert mark(task, f"{POLITE} {layout(right_items(task)[:1] * 2 * task.count, task.format)}").total < 5


@every_family
def test_a_right_answer_buried_in_phrases_stays_below_five(family: str) -> None:
    for task in tasks(family):
        assert mark(task, " ".join([*OPENERS, *CLOSERS, *LEADS, *WAFFLE, right(task)])).total < 5


def test_naming_every_word_of_a_filter_question_loses_almost_half() -> None:
    for task in tasks("filter"):
        assert mark(task, f"{POLITE} {layout(list(task.distractors), task.format)}").total < 5.5


def test_authors_rank_as_their_habits_say() -> None:
    rng, means = random.Random(0), {}
    for author in ANNOTATORS:
        drawn = [draw_task(rng) for _ in range(600)]
        means[author.name] = sum(mark(task, answer(task, author, rng)).total for task in drawn) / len(drawn)
    assert means["expert"] > means["careful"] + 0.3
    assert means["careful"] > means["sloppy"] + 2
    assert means["sloppy"] > means["spammer"] + 1.5
    for middle in ("hurried", "chatty", "grumpy"):
        assert means["sloppy"] < means[middle] < means["careful"]


@settings(max_examples=400, deadline=None)
@given(
    words=st.lists(st.sampled_from(VOCABULARY) | st.sampled_from(EVERYTHING) | st.text(max_size=5), max_size=40),
    family=st.sampled_from(tuple(FAMILIES)),
    seed=st.integers(0, 10_000),
    finished=st.booleans(),
)
def test_marks_stay_within_their_bounds(words: list[str], family: str, seed: int, finished: bool) -> None:
    marks = mark(draw_task(random.Random(seed), family), " ".join(words), finished)
    for value in (marks.total, marks.chosen, marks.known):
        assert 0 <= value <= 10 + 1e-9
    assert all(0 <= share <= 1 for share in marks.shares.values())
    assert marks.total == pytest.approx(0.6 * marks.chosen + 0.4 * marks.known)
