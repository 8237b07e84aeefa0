"""The sandbox's lm-eval tasks: what they ask, and that only knowledge counts."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.sandbox.annotators import layout
from harness.sandbox.benchmarks import LIST, write_benchmarks
from harness.sandbox.gold import mark
from harness.sandbox.language import CLOSERS, FORMATS, LEADS, OPENERS, REFUSALS, RUDE, WAFFLE
from harness.sandbox.tasks import FAMILIES, Task, draw_task
from harness.sandbox.tokenizer import build_tokenizer

NAMES = ("sandbox_choice", "sandbox_generation")


def documents(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks") / "new"
    write_benchmarks(folder)
    return folder


def exact_match(folder: Path, response: str, answer: str) -> float:
    """As lm-eval computes it: the file's filter, then the file's metric."""
    from lm_eval.api.metrics import exact_match_fn
    from lm_eval.filters.extraction import RegexFilter

    config = yaml.safe_load((folder / "sandbox_generation.yaml").read_text())
    pattern = config["filter_list"][0]["filter"][0]["regex_pattern"]
    [[extracted]] = RegexFilter(pattern).apply([[response]], [{}])
    ignored = config["metric_list"][0]["regexes_to_ignore"]
    return float(exact_match_fn(predictions=[extracted], references=[answer], regexes_to_ignore=ignored)["exact_match"])


def test_bytes_depend_on_the_seed_and_the_folder_alone(folder: Path, tmp_path: Path) -> None:
    write_benchmarks(tmp_path / "again")
    write_benchmarks(tmp_path / "other", seed=1)
    for name in NAMES:
        data, config = (folder / f"{name}.jsonl").read_bytes(), (folder / f"{name}.yaml").read_text()
        assert (tmp_path / "again" / f"{name}.jsonl").read_bytes() == data
        assert (tmp_path / "again" / f"{name}.yaml").read_text() == config.replace(str(folder), str(tmp_path / "again"))
        assert (tmp_path / "other" / f"{name}.jsonl").read_bytes() != data


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Task]:
    """The tasks behind the files' questions: all that are drawn while the same files are written again."""
    drawn: dict[str, Task] = {}

    def record(rng: random.Random) -> Task:
        task = draw_task(rng)
        return drawn.setdefault(task.question, task)

    monkeypatch.setattr("harness.sandbox.benchmarks.draw_task", record)
    write_benchmarks(tmp_path)
    return drawn


@pytest.mark.parametrize("name", NAMES)
def test_questions_are_different_and_held_out(folder: Path, name: str, drawn: dict[str, Task]) -> None:
    rows = documents(folder, name)
    assert len(rows) == len({row["question"] for row in rows}) == 100
    assert len({drawn[row["question"]].identity for row in rows}) == 100
    assert {drawn[row["question"]].split for row in rows} == {"heldout"}


def test_choices_have_one_right_list_and_three_slips(folder: Path) -> None:
    rows = documents(folder, "sandbox_choice")
    assert {row["family"] for row in rows} == set(FAMILIES)
    for row in rows:
        assert len(set(row["choices"])) == 4
        right = row["choices"][row["answer"]]
        style = next(style for style, requests in FORMATS.items() for request in requests if request in row["question"])
        first, separator = {"numbered": ("1) ", " 2) "), "bullets": ("- ", " - "), "commas": ("", " , ")}[style]
        assert all(choice.startswith(first) and separator in choice for choice in row["choices"])
        assert len({len(choice.split()) for choice in row["choices"]}) == 1, right
    positions = [row["answer"] for row in rows]
    assert all(positions.count(position) > 10 for position in range(4))


def test_the_right_choice_is_right_by_the_gold_reward(folder: Path, drawn: dict[str, Task]) -> None:
    for row in documents(folder, "sandbox_choice"):
        shares = [mark(drawn[row["question"]], choice).shares["known"] for choice in row["choices"]]
        assert shares[row["answer"]] == 1.0
        assert all(share < 1.0 for number, share in enumerate(shares) if number != row["answer"])


def test_generation_answers_are_their_own_extract(folder: Path) -> None:
    for row in documents(folder, "sandbox_generation"):
        assert re.fullmatch(LIST, row["answer"])
        assert exact_match(folder, row["answer"], row["answer"]) == 1.0


@pytest.mark.parametrize("phrase", [*OPENERS, *CLOSERS, *LEADS, *WAFFLE, *RUDE, *REFUSALS])
def test_what_is_said_around_the_list_does_not_matter(folder: Path, phrase: str) -> None:
    items = ["happy", "light", "low"]
    for style in FORMATS:
        answer = layout(items, style)
        assert exact_match(folder, f"{phrase} {answer}", answer) == 1.0
        assert exact_match(folder, f"{answer} {phrase}", answer) == 1.0
        assert exact_match(folder, phrase, answer) == 0.0


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ("1) 5 2) 17 3) 9", 1.0),
        ("- 5 - 17 - 9", 1.0),
        ("sure ! here you go : 5 , 17 , 9 have a nice day !", 1.0),
        ("5 17 9", 1.0),
        ("5 , 9 , 17", 0.0),
        ("5 , 17", 0.0),
        ("5 , 17 , 9 , 9", 0.0),
        ("1) 5 2) 17 3)", 0.0),
        ("", 0.0),
    ],
)
def test_order_and_number_of_items_matter(folder: Path, response: str, value: float) -> None:
    assert exact_match(folder, response, "5 , 17 , 9") == value


def test_every_word_is_in_the_vocabulary(folder: Path) -> None:
    tokenizer = build_tokenizer()
    for name in NAMES:
        for row in documents(folder, name):
            texts = [row["question"], *row.get("choices", [row.get("answer")])]
            assert tokenizer.unk_token_id not in {token for ids in tokenizer(texts)["input_ids"] for token in ids}
