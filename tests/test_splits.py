"""Splits without enough examples are refused by `plan` and `compare` before anything is computed."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import yaml
from typer.testing import CliRunner, Result

from harness.cli import app
from harness.errors import HarnessError


def config(source: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "name": "small",
        "source": source,
        "model": {"path": "sandbox"},
        "sft": {"epochs": 1},
        "budget": {"prompts": 10},
        "methods": ["sft", "dpo"],
        "evaluators": ["preference_accuracy"],
        "baseline": "sft",
        "seeds": [0],
        **changes,
    }


def run(command: str, raw: dict[str, Any], folder: Path, *more: str) -> Result:
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(raw))
    places = ["--store", str(folder / "store")] + (["--out", str(folder / "out")] if command == "compare" else [])
    result = CliRunner().invoke(app, [command, str(path), *places, *more])
    if isinstance(result.exception, HarnessError):  # `main` prints it; the runner calls the app beneath
        result.stderr_bytes = str(result.exception).encode()
        result.exit_code = result.exception.exit_code
    return result


def hh_rlhf(folder: Path, rows: list[dict[str, str]], **fields: Any) -> dict[str, Any]:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"name": "hh_rlhf", "path": str(path), **fields}


def jsonl(folder: Path, rows: list[dict[str, str]], **fields: Any) -> dict[str, Any]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"name": "jsonl", "path": str(path), **fields}


def hub(folder: Path, rows: list[dict[str, str]], **fields: Any) -> dict[str, Any]:
    repository = folder / "repository"
    repository.mkdir(exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), repository / "train-00000-of-00001.parquet")
    return {"name": "hub", "dataset": str(repository), **fields}


def pairs(count: int, prompt: str = "Is tea {} hot?") -> list[dict[str, str]]:
    return [{"prompt": prompt.format(number), "chosen": f"Yes, {number}.", "rejected": "No."} for number in range(count)]


def dialogues(count: int, prompt: str = "Is tea {} hot?") -> list[dict[str, str]]:
    opened = f"\n\nHuman: {prompt}\n\nAssistant: "
    return [
        {"chosen": f"{opened.format(number)}Yes, {number}.", "rejected": f"{opened.format(number)}No."}
        for number in range(count)
    ]


Make = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("make", "rows", "field"),
    [
        (hh_rlhf, dialogues(40, "Hi"), "source.heldout_share = 0.2"),
        (jsonl, pairs(40, "Hi"), "source.heldout_share = 0.1"),
        (jsonl, pairs(3), "source.heldout_share = 0.1"),
        (hub, pairs(40, "Hi"), "source.heldout_share = 0.1"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "compare"])
def test_an_empty_split_is_one_error_before_compute(
    command: str, make: Make, rows: list[dict[str, str]], field: str, tmp_path: Path
) -> None:
    source = make(tmp_path, rows)
    result = run(command, config(source, budget={"prompts": 2}), tmp_path)
    assert result.exit_code == 2
    said = re.sub(r"(?<=  - )line \d+: ", "", str(result.stderr))
    assert said.startswith(
        f"1 problem in {tmp_path / 'small.yaml'}:\n  - {field}: the split 'heldout' of the source {source['name']}"
    )
    assert re.search(
        r"which preference_accuracy scores, has [01] examples?, and at least 2 are needed \(.*train \d+", result.stderr
    )
    assert "raise it" in result.stderr
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "store").rglob("artifact.json"))


def test_a_split_of_one_example_is_refused_and_two_are_enough(tmp_path: Path) -> None:
    sizes = {"name": "sandbox", "sft": 20, "train": 20, "tuning": 0}
    result = run("plan", config({**sizes, "heldout": 1}), tmp_path)
    assert result.exit_code == 2 and "source.heldout = 1: " in result.stderr and "has 1 example, and" in result.stderr
    assert run("plan", config({**sizes, "heldout": 2}), tmp_path).exit_code == 0


def test_only_splits_that_are_used_count(tmp_path: Path) -> None:
    source = jsonl(tmp_path, pairs(40), heldout_share=0.0)
    assert run("plan", config(source), tmp_path).exit_code == 2
    bench = {"name": "lm_eval", "tasks": ["gsm8k"], "report": ["gsm8k/exact_match,strict-match"]}
    assert run("plan", config(source, evaluators=[bench]), tmp_path).exit_code == 0
    tuned = run("plan", config(source, evaluation={"split": "tuning"}), tmp_path)
    assert tuned.exit_code == 2 and "source.tuning_share = 0.0" in tuned.stderr


def test_a_row_whose_data_lack_what_it_needs_is_refused(tmp_path: Path) -> None:
    rows = [{"prompt": f"Is tea {number} hot?", "target": "Yes."} for number in range(60)]
    result = run("plan", config(jsonl(tmp_path, rows)), tmp_path)
    assert result.exit_code == 2
    assert "which the row 'dpo' trains on, has 0 of" in result.stderr and "give rows with two ranked responses" in result.stderr
    assert run("plan", config(jsonl(tmp_path, rows), methods=["sft"], evaluators=["response_stats"]), tmp_path).exit_code == 0


def test_fewer_training_prompts_than_the_budget_are_refused(tmp_path: Path) -> None:
    rows = [*pairs(60), {"prompt": "a", "chosen": "b", "rejected": "b"}]
    result = run("compare", config(jsonl(tmp_path, rows), budget={"prompts": 500}), tmp_path)
    assert result.exit_code == 2
    assert "budget.prompts = 500: the source jsonl has " in result.stderr
    assert "1 identical pair (dropped by the source)" in result.stderr and "lower it to " in result.stderr


def test_fewer_evaluated_prompts_than_asked_are_a_warning(tmp_path: Path) -> None:
    source = {"name": "sandbox", "sft": 20, "train": 20, "tuning": 0, "heldout": 5}
    result = run("plan", config(source, evaluation={"prompts": 9}), tmp_path)
    assert result.exit_code == 0
    assert "evaluation.prompts = 9: the split heldout has 5" in " ".join(result.stdout.split())


def test_a_plan_shows_the_prompts_that_it_takes_for_equal(tmp_path: Path) -> None:
    own = tmp_path / "test.jsonl"
    own.write_text("".join(json.dumps(row) + "\n" for row in pairs(3, "is TEA {} hot")))
    source = jsonl(tmp_path, pairs(40), splits={"heldout": str(own)})
    result = run("plan", config(source), tmp_path, "--json")
    data = json.loads(result.stdout)["data"]
    assert data["contaminated"]["train"] == {"exact": 0, "normalised": 3, "continued": 0}
    assert [(pair["text"], pair["evaluated_text"]) for pair in data["pairs"] if pair["split"] == "train"] == [
        (f"Is tea {number} hot?", f"is TEA {number} hot") for number in range(3)
    ]
    assert "under data.pairs" in " ".join(run("plan", config(source), tmp_path).stdout.split())


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    source = jsonl(tmp_path, [])
    result = run("plan", config(source), tmp_path)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{source['path']}: no row is left to train on (it is empty); give rows in the layout")
    own = tmp_path / "own.jsonl"
    own.write_text("\n")
    result = run("plan", config(jsonl(tmp_path, pairs(40), splits={"heldout": str(own)})), tmp_path)
    assert result.exit_code == 2
    assert "source.splits = {" in result.stderr and "the split 'heldout' of the source jsonl, which" in result.stderr
    assert f"give {own} more rows, or leave it out of source.splits" in result.stderr


@pytest.mark.parametrize("command", ["plan", "compare"])
def test_dialogues_that_the_template_cannot_write_are_named_before_anything_is_computed(command: str, tmp_path: Path) -> None:
    """A template that cuts thoughts off, and data that hold one: the first stage would have found it."""
    sys.path.insert(0, str(Path(__file__).parent / "models"))
    from checkpoints import CHATML, make_checkpoint

    text = CHATML.replace("message['content'] +", "message['content'].split('</think>')[-1] +")
    rows = pairs(60)
    folder = make_checkpoint(tmp_path / "model", "qwen2", template=text)
    raw = config(jsonl(tmp_path, rows), model={"path": str(folder)})
    assert run("plan", raw, tmp_path).exit_code == 0
    rows[7]["chosen"] = "<think>it steams</think>yes"
    result = run(command, config(jsonl(tmp_path, rows), model={"path": str(folder)}), tmp_path)
    assert result.exit_code == 2
    assert "the chat template leaves out words of the answer ('<think>it steams</think>yes')" in result.stderr
    assert not list((tmp_path / "store").rglob("artifact.json"))
