"""The whole comparison on real preferences: Anthropic's pairs, several turns, a model made from their text. No quality is shown
by it: it is the path that real data takes, and whether held-out preferences can be learnt at all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CONFIG = Path(__file__).parent.parent / "configs" / "hh-rlhf-small.yaml"
MAIN = "from harness.cli import main; main()"
ROWS = ["sft", "null", "dpo", "ipo", "self_contrast_1", "self_contrast_4", "sr_dpo"]
# A few short dialogues and a model that is hardly trained: a minute, and the same stages.
SMALL = {
    "source.max_characters": 330,
    "model.scratch.hidden_size": 32,
    "model.scratch.layers": 2,
    "model.scratch.heads": 2,
    "model.scratch.intermediate_size": 64,
    "model.scratch.vocabulary_size": 512,
    "model.scratch.epochs": 1,
    "model.scratch.max_length": 512,
    "budget.prompts": 24,
    "generation.max_tokens": 16,
    "evaluation.prompts": 40,
    "seeds": "[0]",
}


@pytest.fixture
def pairs() -> Path:
    reference = os.environ.get("HARNESS_REFERENCE_DATA")
    if not reference:
        pytest.skip("HARNESS_REFERENCE_DATA is not set: the folder that holds hh_rlhf/harmless-base-test.jsonl.gz")
    return Path(reference, "hh_rlhf", "harmless-base-test.jsonl.gz")


def compare(pairs: Path, folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The board of the config that ships, with these fields changed."""
    changes = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    command = [sys.executable, "-c", MAIN, "compare", str(CONFIG), "--set", f"source.path={pairs}", *changes]
    places = ["--out", str(folder / "out"), "--store", str(folder / "store"), "--workers", "2"]
    done = subprocess.run([*command, *places], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads((folder / "out" / "board.json").read_text())
    assert {row["method"] for row in found["rows"]} == set(ROWS)
    assert [row["method"] for row in found["rows"] if "failed" in row] == []
    return found


def accuracy(board: dict[str, Any], label: str) -> dict[str, Any]:
    row = next(row for row in board["rows"] if row["method"] == label)
    score: dict[str, Any] = row["scores"]["preference_accuracy/pair_accuracy"]
    return score


@pytest.mark.slow
def test_every_method_goes_the_way_of_real_data(pairs: Path, tmp_path: Path) -> None:
    board = compare(pairs, tmp_path, SMALL)
    assert accuracy(board, "sft")["mean"] == 0.5  # the starting model has no preference against itself
    for label in ROWS[2:]:
        found = accuracy(board, label)
        assert found["n"] == 40 and found["low"] < found["mean"] < found["high"]
    left = board["sharing"]["data"]
    assert left["dropped"]["malformed turn order"] == 9 and set(left["contaminated"]["train"]) == {
        "exact",
        "normalised",
        "continued",
    }
    heldout = next((tmp_path / "store" / "artifacts").glob("*/*/heldout.jsonl")).read_text().splitlines()
    turns = [len(json.loads(line)["prompt"]["messages"]) for line in heldout]
    assert max(turns) > 3  # several turns among them
    said = json.loads(heldout[0])["prompt"]["messages"][0]["content"]
    written = [file for file in (tmp_path / "out").rglob("*") if file.is_file() and file.suffix not in (".parquet",)]
    assert written and not any(said in file.read_text(errors="ignore") for file in written)  # `run.examples: false`


@pytest.mark.slow
def test_preferences_of_people_are_learnt(pairs: Path, tmp_path: Path) -> None:
    """The config as it ships: a quarter of an hour on two cores."""
    found = accuracy(compare(pairs, tmp_path, {}), "dpo")
    assert found["mean"] > 0.5 and found["low"] < found["mean"] < found["high"]
