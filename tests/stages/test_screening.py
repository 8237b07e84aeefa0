"""What is trained on is not evaluated, and nothing longer than the limits is used."""

from __future__ import annotations

from harness.config import Limits
from harness.leaderboard.text import data_lines
from harness.models.prompts import ChatTemplate
from harness.sandbox import build_dataset
from harness.sandbox.tokenizer import build_tokenizer
from harness.stages.screening import normalised, screen
from harness.types import Dataset, Example, Message, Prompt


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
    assert data_lines(report.as_dict()) == [
        "data: train 1, heldout 1",
        "dropped by the source: 3 duplicate",
        "prompts left out because they are evaluated: train 2 (1 exact)",
    ]
    assert data_lines({}) == []
