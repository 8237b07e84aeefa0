"""The HH-RLHF source: made-up files for the rules, the real file for the numbers."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from harness import DataError, Dataset, Message
from harness.api.types import SplitName
from harness.run.stages.screening import screen
from harness_plugins.sources.hh_rlhf import HHRLHF

OPEN = "\n\nHuman: Is tea {}?\n\nAssistant:"


def row(number: object, chosen: str = "Yes.", rejected: str = "No.") -> dict[str, str]:
    prompt = OPEN.format(number)
    return {"chosen": f"{prompt} {chosen}", "rejected": f"{prompt} {rejected}"}


def write(folder: Path, rows: list[object], name: str = "pairs.jsonl") -> str:
    file = folder / name
    file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in rows))
    return str(file)


def dropped(folder: Path, *rows: object, **fields: object) -> dict[str, int]:
    good = [row(f"drink number {number}") for number in range(20)]
    return dict(HHRLHF(path=write(folder, [*good, *rows]), **fields).load().dropped)


def test_a_dialogue_becomes_a_multi_turn_prompt_and_two_responses(tmp_path: Path) -> None:
    shared = "\n\nHuman: Hi, tea?\n\nAssistant: Gladly.\nMilk?\n\nHuman: No milk.\n\nAssistant:"
    rows = [{"chosen": f"{shared} Here you are. ", "rejected": f"{shared} Then no tea.\n\nReally."}]
    dataset = HHRLHF(path=write(tmp_path, rows), heldout_share=0.0001, tuning_share=0).load()
    (example,) = dataset["train"]
    assert example.prompt.messages == (
        Message("user", "Hi, tea?"),
        Message("assistant", "Gladly.\nMilk?"),
        Message("user", "No milk."),
    )
    assert example.prompt.id == "hh-1"
    assert example.target == "Here you are."
    assert example.ranked == ("Here you are.", "Then no tea.\n\nReally.")
    assert example.metadata == {"line": 1}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row("hot", "Yes.", "Yes. "), "identical pair"),
        ({"chosen": row("hot")["chosen"], "rejected": row("cold")["rejected"]}, "prompts differ"),
        (row("hot", "", "No."), "empty response"),
        (row("hot", "Yes.", " "), "empty response"),
        ({key: "\n\nHuman: \n\nAssistant: " + key for key in ("chosen", "rejected")}, "empty turn"),
        (dict.fromkeys(("chosen", "rejected"), "\n\nAssistant: Hi.\n\nHuman: Tea."), "malformed turn order"),
        (dict.fromkeys(("chosen", "rejected"), "\n\nHuman: Tea."), "malformed turn order"),
        (row("hot", "Yes.\n\nAssistant: No.", "No."), "malformed turn order"),
        ({key: "Tea.\n\nHuman: Hot?\n\nAssistant: " + key for key in ("chosen", "rejected")}, "malformed turn order"),
        ({"chosen": "", "rejected": ""}, "malformed turn order"),
        (row("drink NUMBER  3", "yes.", "No."), "duplicate"),
        (row("drink number 3", "No.", "Yes."), "duplicate"),
    ],
)
def test_rows_that_cannot_be_used_are_dropped_and_counted(tmp_path: Path, bad: object, reason: str) -> None:
    assert dropped(tmp_path, bad) == {reason: 1}


def test_long_rows_are_dropped_whole(tmp_path: Path) -> None:
    long = row("hot", "Yes.", "No." * 100)
    assert dropped(tmp_path, long, max_characters=200) == {"longer than 200 characters": 1}
    assert dropped(tmp_path, long, max_characters=len(long["rejected"])) == {}


def test_two_pairs_of_one_prompt_are_both_kept(tmp_path: Path) -> None:
    assert dropped(tmp_path, row("drink number 3", "Certainly.", "No.")) == {}


SHARES = {"heldout_share": 0.3, "tuning_share": 0.2, "sft_share": 0.2}


def test_prompts_that_fold_alike_are_in_one_split(tmp_path: Path) -> None:
    rows: list[object] = []
    for number in range(200):
        rows += [row(number), row(f" {number}", "Sure.", "Nope."), row(f"{number} ", "Of course.", "Never.")]
        rows[-2] = json.loads(json.dumps(rows[-2]).replace("Is tea", "IS  “TEA”").replace("?", "?!"))
    dataset = HHRLHF(path=write(tmp_path, rows), **SHARES).load()
    lines = {split: {(example.metadata["line"] - 1) // 3 for example in dataset[split]} for split in dataset.splits}
    assert {split: len(dataset[split]) for split in dataset.splits} == {split: 3 * len(lines[split]) for split in lines}
    assert set().union(*lines.values()) == set(range(200))
    assert 40 <= len(lines["heldout"]) <= 80
    assert 20 <= len(lines["tuning"]) <= 60
    assert 20 <= len(lines["sft"]) <= 60


def test_dialogues_with_one_opening_are_split_and_cuts_of_one_dialogue_do_not_leak(tmp_path: Path) -> None:
    """All open with "Hi": each is there twice, cut before and after an answer."""
    rows: list[object] = []
    for number in range(200):
        start = f"\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Is tea {number} hot?\n\nAssistant:"
        longer = f"{start} Yes, {number}.\n\nHuman: And coffee?\n\nAssistant:"
        rows += [{"chosen": f"{start} Yes, {number}.", "rejected": f"{start} No."}]
        rows += [{"chosen": f"{longer} Too.", "rejected": f"{longer} Never."}]
    loaded = HHRLHF(path=write(tmp_path, rows), **SHARES).load()
    assert 80 <= len(loaded["heldout"]) <= 160

    def dialogues(dataset: Dataset, *splits: SplitName) -> set[int]:
        return {(example.metadata["line"] - 1) // 2 for split in splits for example in dataset[split]}

    evaluated = dialogues(loaded, "heldout", "tuning")
    assert dialogues(loaded, "train", "sft") & evaluated  # cuts on both sides, before the stage leaves them out
    kept, report = screen(loaded)
    assert kept["heldout"] == loaded["heldout"]
    assert not dialogues(kept, "train", "sft") & dialogues(kept, "heldout", "tuning")
    assert not dialogues(kept, "tuning") & dialogues(kept, "heldout")
    assert len(kept["train"]) >= 40
    counts = report.contaminated["train"]
    assert counts == {"exact": 0, "normalised": 0, "continued": len(loaded["train"]) - len(kept["train"])}


def test_sft_and_train_share_their_rows_unless_asked_otherwise(tmp_path: Path) -> None:
    path = write(tmp_path, [row(number) for number in range(60)])
    shared, apart = HHRLHF(path=path).load(), HHRLHF(path=path, sft_share=0.4).load()
    assert shared["sft"] == shared["train"]
    ids = {split: {example.prompt.id for example in apart[split]} for split in ("sft", "train")}
    assert ids["sft"] and ids["train"] and not ids["sft"] & ids["train"]
    assert ids["sft"] | ids["train"] == {example.prompt.id for example in shared["train"]}
    assert apart["heldout"] == shared["heldout"]


def test_the_seed_and_nothing_else_decides_the_split(tmp_path: Path) -> None:
    path = write(tmp_path, [row(number) for number in range(60)])
    backwards = write(tmp_path, [row(number) for number in reversed(range(60))], "backwards.jsonl")

    def heldout(file: str, seed: int) -> set[str]:
        return {example.prompt.text for example in HHRLHF(path=file, seed=seed).load()["heldout"]}

    assert heldout(path, 0) == heldout(path, 0) == heldout(backwards, 0)
    assert heldout(path, 0) != heldout(path, 1)


def test_gzip_is_read_whatever_the_file_is_called(tmp_path: Path) -> None:
    plain = write(tmp_path, [row(number) for number in range(9)])
    packed = tmp_path / "pairs"
    packed.write_bytes(gzip.compress(Path(plain).read_bytes()))
    assert HHRLHF(path=str(packed)).load() == HHRLHF(path=plain).load()
    assert HHRLHF(path=plain).fingerprint() == hashlib.sha256(Path(plain).read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("{", "not JSON"),
        ('"tea"', "a str, not an object"),
        ({"chosen": "a"}, "`rejected` is missing; found: chosen"),
        ({"chosen": 1, "rejected": "a"}, "`chosen` is not a text"),
        ({"chosen": "a", "rejected": "\ud83d"}, "`rejected` holds half a surrogate pair"),
    ],
)
def test_a_broken_line_is_an_error_that_names_file_and_line(tmp_path: Path, bad: object, words: str) -> None:
    path = write(tmp_path, [row("hot"), "", bad])
    with pytest.raises(DataError) as caught:
        HHRLHF(path=path).load()
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert words in str(caught.value)


def test_bytes_that_are_not_text_and_downloads_cut_short_are_errors(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl.gz"
    file.write_bytes(b'{"chosen": "\xff"}\n')
    with pytest.raises(DataError, match=r"line 1: it is not UTF-8 \(byte 0xff.*iconv"):
        HHRLHF(path=str(file)).load()
    packed = gzip.compress(json.dumps(row("hot")).encode())
    for damaged in (packed[:-9], packed[:14] + b"\xff" * 20 + packed[34:], b"\x1f\x8b"):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match="is the download complete"):
            HHRLHF(path=str(file)).load()


def test_a_missing_file_is_one_error_with_the_fix(tmp_path: Path) -> None:
    for path, words in (("", "is not set"), (str(tmp_path / "no.jsonl"), "no such file"), (str(tmp_path), "a folder")):
        for call in (HHRLHF(path=path).load, HHRLHF(path=path).fingerprint):
            with pytest.raises(DataError, match=words) as caught:
                call()
            assert "--set source.path=FILE" in str(caught.value)


def test_a_file_without_a_usable_row_says_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row is left to train on \\(2 identical pair\\)"):
        HHRLHF(path=write(tmp_path, [row("hot", "Yes.", "Yes.")] * 2)).load()
    with pytest.raises(DataError, match="the file is empty"):
        HHRLHF(path=write(tmp_path, [])).load()


def test_shares_must_leave_something_to_train_on() -> None:
    with pytest.raises(ValidationError, match="nothing is left to train on"):
        HHRLHF(heldout_share=0.5, tuning_share=0.2, sft_share=0.3)


def test_the_real_file() -> None:
    reference = os.environ.get("HARNESS_REFERENCE_DATA")
    if not reference:
        pytest.skip("HARNESS_REFERENCE_DATA is not set: the folder that holds hh_rlhf/harmless-base-test.jsonl.gz")
    source = HHRLHF(path=str(Path(reference, "hh_rlhf", "harmless-base-test.jsonl.gz")), max_characters=1200)
    dataset = source.load()
    assert dataset.dropped == {"empty response": 4, "longer than 1200 characters": 388, "malformed turn order": 9}
    assert {split: len(rows) for split, rows in dataset.splits.items()} == {
        "sft": 1412,
        "train": 1412,
        "tuning": 104,
        "heldout": 395,
    }
    dataset, report = screen(dataset)
    assert {split: counts["continued"] for split, counts in report.contaminated.items()} == {
        "tuning": 2,
        "train": 29,
        "sft": 29,
    }
    # By plain strings, not by the code under test: no training dialogue holds a held-out prompt with one of its answers.
    heldout = {
        "\n".join([*(message.content for message in example.prompt.messages), answer])
        for example in dataset["heldout"]
        for answer in example.ranked
    }
    training = ["\n".join(message.content for message in example.prompt.messages) for example in dataset["train"]]
    assert heldout and training
    assert not [text for text in training if any(text.startswith(f"{answered}\n") for answered in heldout)]
    assert max(len(example.prompt.messages) for example in dataset["train"]) > 3
    assert all(example.ranked[0] != example.ranked[1] for example in dataset["heldout"])
