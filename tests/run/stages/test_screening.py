"""What is trained on is not evaluated, and nothing longer than the limits is used."""

from __future__ import annotations

from harness.api.types import Dataset, Example, Message, Prompt
from harness.board.views.text import data_lines
from harness.config.schema import Limits
from harness.models.tokenization import ChatTemplate
from harness.run.stages.screening import SHOWN_PAIRS, excerpts, normalised, screen
from harness.sandbox import build_dataset
from harness.sandbox.tokenizer import build_tokenizer


def examples(*texts: str, target: str = "pear .") -> tuple[Example, ...]:
    return tuple(Example(Prompt.of(text, text), target, (target,)) for text in texts)


def test_prompts_that_are_evaluated_are_left_out_of_training() -> None:
    heldout, tuning = examples("Name two fruits.", "?!"), examples("name two fruits", "Tea?")
    train = examples("Name two fruits.", "NAME  “two” fruits", "Name three fruits.", "tea", "…")
    dataset, report = screen(Dataset({"heldout": heldout, "tuning": tuning, "train": train, "sft": train[2:]}))
    assert [example.prompt.id for example in dataset["train"]] == ["Name three fruits.", "…"]
    assert [example.prompt.id for example in dataset["tuning"]] == ["Tea?"]
    assert dataset["heldout"] == heldout
    assert report.contaminated == {
        "tuning": {"exact": 0, "normalised": 1, "continued": 0},
        "train": {"exact": 1, "normalised": 2, "continued": 0},
        "sft": {"exact": 0, "normalised": 1, "continued": 0},
    }
    assert report.kept == {"heldout": 2, "tuning": 1, "train": 2, "sft": 2}


def test_arithmetic_is_not_taken_for_the_same_question() -> None:
    """77 prompts that differ in an operator or an emoji: none is dropped for another."""
    train = examples(*(f"What is {number} {sign} 3?" for number in range(19) for sign in "-*/+"), "Is a < b?")
    heldout = examples(*(f"What is {number} % 3?" for number in range(19)), "Is a > b?", "WHAT IS 12 - 3")
    dataset, report = screen(Dataset({"heldout": heldout, "train": train}))
    assert report.contaminated["train"] == {"exact": 0, "normalised": 1, "continued": 0}
    assert len(dataset["train"]) == 76


def test_pairs_taken_for_equal_are_shown_and_bounded() -> None:
    heldout = examples(*(f"Is tea {number} hot?" for number in range(50)))
    train = examples(*(f"IS tea {number} hot" for number in range(50)), "Is tea 3 hot?")
    _, report = screen(Dataset({"heldout": heldout, "train": train}))
    assert report.contaminated["train"] == {"exact": 1, "normalised": 50, "continued": 0}
    assert len(report.pairs) == SHOWN_PAIRS + 1
    assert report.pairs[0] == {
        "reason": "normalised",
        "split": "train",
        "id": "IS tea 0 hot",
        "text": "IS tea 0 hot",
        "evaluated_in": "heldout",
        "evaluated_id": "Is tea 0 hot?",
        "evaluated_text": "Is tea 0 hot?",
    }
    assert "pairs" not in report.counts().as_json()
    long = "word " * 500
    shown = excerpts(Prompt.of("a", f"{long}one{long}"), Prompt.of("b", f"{long}ONE{long}"))
    assert "one" in shown[0] and "ONE" in shown[1] and max(map(len, shown)) <= 202


def dialogue(id: str, *texts: str, answers: tuple[str, ...]) -> Example:
    turns = (Message("user" if place % 2 == 0 else "assistant", text) for place, text in enumerate(texts))
    return Example(Prompt(id, tuple(turns)), answers[0], answers)


def test_cuts_of_an_evaluated_dialogue_are_left_out() -> None:
    heldout = (
        dialogue("short", "Hi", answers=("Hello!", "Go.")),
        dialogue("long", "Tea?", "Gladly.", "Hot?", answers=("Yes.", "No.")),
    )
    train = (
        dialogue("goes on from the answer", "hi", "hello", "Tea, please", answers=("Here.", "No.")),
        dialogue("goes on from the rejected answer", "Hi", "Go.", "Why?", answers=("Sorry.", "No.")),
        dialogue("goes on from another answer", "Hi", "Good day.", "Milk?", answers=("Yes.", "No.")),
        dialogue("answers what an evaluated prompt goes on from", "Tea?", answers=("Never.", "gladly")),
        dialogue("answers otherwise", "Tea?", answers=("Never.", "Later.")),
    )
    dataset, report = screen(Dataset({"heldout": heldout, "train": train}))
    assert [example.prompt.id for example in dataset["train"]] == ["goes on from another answer", "answers otherwise"]
    assert report.contaminated["train"] == {"exact": 0, "normalised": 0, "continued": 3}
    assert [pair["evaluated_id"] for pair in report.pairs] == ["short", "short", "long"]
    assert data_lines(report.counts().as_json())[-1].endswith("train 3 (0 exact, 3 another cut of an evaluated dialogue)")


def test_dialogues_match_turn_by_turn() -> None:
    one = Prompt("1", (Message("user", "Tea?"), Message("assistant", "Gladly."), Message("user", "Hot?")))
    other = Prompt("2", (Message("user", "tea"), Message("assistant", "gladly"), Message("user", "HOT")))
    assert normalised(one) == normalised(other) != normalised(Prompt.of("3", "Tea? Gladly. Hot?"))


def test_the_sandbox_loses_nothing() -> None:
    before = build_dataset({"sft": 300, "train": 300, "tuning": 50, "heldout": 100}, 0.12, 0)
    after, report = screen(before)
    assert after == before
    assert all(sum(counts.values()) == 0 for counts in report.contaminated.values())


def test_limits_keep_or_leave_out_whole_examples() -> None:
    template = ChatTemplate(build_tokenizer())
    rows = (
        *examples("name two fruits ."),
        *examples("name two fruits . " * 9),
        *examples("name three fruits .", target="pear , " * 30),
    )
    limits = Limits(max_prompt_tokens=20, max_response_tokens=10, max_tokens=40)
    dataset, report = screen(Dataset({"train": rows, "heldout": ()}), limits, template)
    assert dataset["train"] == rows[:1]
    assert report.too_long["train"] == {"max_prompt_tokens": 1, "max_response_tokens": 1}
    size = len(template.prompt_ids(rows[0].prompt)) + 3
    for most, kept in ((size, 1), (size - 1, 0)):
        assert len(screen(Dataset({"train": rows[:1]}), Limits(max_tokens=most), template)[0]["train"]) == kept


def test_what_was_left_out_is_said() -> None:
    _, report = screen(Dataset({"train": examples("a", "b", "A"), "heldout": examples("a")}, {"duplicate": 3}))
    assert data_lines(report.counts().as_json()) == [
        "data: train 1, heldout 1",
        "dropped by the source: 3 duplicate",
        "prompts left out because they are evaluated: train 2 (1 exact)",
    ]
    assert data_lines({}) == []
