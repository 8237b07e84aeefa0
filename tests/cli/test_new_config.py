"""`harness new config`: a starter that plans as written, on data whose columns it recognises."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from harness import HarnessError
from harness.api.registry import Registry
from harness.cli import app
from harness.config import resolve
from harness.config.file import load_raw
from harness.run.plan import plan


def rows(**columns: str) -> list[dict[str, Any]]:
    """120 rows of these columns; `{}` stands for the row's number."""
    return [{name: text.replace("{}", str(number)) for name, text in columns.items()} for number in range(120)]


PAIRS = {"prompt": "question {}", "chosen": "a good answer {}", "rejected": "a bad one {}"}
HH = "\n\nHuman: question {}\n\nAssistant: "


def created(folder: Path, *more: str, code: int = 0) -> str:
    answer = CliRunner().invoke(app, ["new", "config", "mine", "--into", str(folder / "out"), *more])
    if code:
        assert isinstance(answer.exception, HarnessError)
        assert answer.exception.exit_code == code
        return str(answer.exception)
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def written(folder: Path, data: Sequence[Any]) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in data))
    return path


@pytest.mark.parametrize(
    ("columns", "fields", "ranked"),
    [
        (PAIRS, {}, True),
        (
            {"instruction": "question {}", "preferred": "good {}", "dispreferred": "bad {}"},
            {"columns": {"prompt": "instruction", "chosen": "preferred", "rejected": "dispreferred"}},
            True,
        ),
        ({"chosen": HH + "good {}", "rejected": HH + "bad {}"}, {"format": "hh_rlhf"}, True),
        ({"question": "what is {}", "answer": "it is {}"}, {"columns": {"prompt": "question", "target": "answer"}}, False),
        ({**PAIRS, "id": "{}"}, {}, True),
    ],
)
def test_columns_are_recognised(tmp_path: Path, columns: dict[str, str], fields: dict[str, Any], ranked: bool) -> None:
    file = written(tmp_path, rows(**columns))
    created(tmp_path, "--data", str(file))
    raw = load_raw(tmp_path / "out" / "mine.yaml")
    shares = {"heldout_share": 0.1, "tuning_share": 0.05}
    assert raw["source"] == {"name": "jsonl", "path": str(file), **fields, **shares}
    assert ("dpo" in raw["methods"]) is ranked
    assert ("preference_accuracy" in raw["evaluators"]) is ranked
    assert "120 of the first 120 rows can be used" in (tmp_path / "out" / "mine.yaml").read_text()
    comparison = resolve(raw, Registry.load())
    assert len(comparison.source.load().splits["train"]) >= comparison.config.budget.prompts * 0.8
    assert {stage.kind for stage in plan(comparison)} >= {"source", "sft", "train", "evaluate"}


def test_parquet(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    file = tmp_path / "data.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows(**PAIRS)), file)
    answer = json.loads(created(tmp_path, "--data", str(file), "--json"))
    assert answer["source"] == {"name": "parquet", "path": str(file)}
    assert yaml.safe_load(Path(answer["file"]).read_text())["source"]["name"] == "parquet"


def test_a_local_copy_of_a_hub_set(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(**PAIRS)))
    answer = json.loads(created(tmp_path, "--data", str(folder), "--json"))
    assert answer["source"] == {"name": "hub", "dataset": str(folder)}


def test_without_data_it_is_the_sandbox(tmp_path: Path) -> None:
    assert "next: harness plan" in created(tmp_path)
    comparison = resolve(load_raw(tmp_path / "out" / "mine.yaml"), Registry.load())
    assert (comparison.config.name, comparison.source.name) == ("mine", "sandbox")
    assert len(plan(comparison).rows) == 2 * len(comparison.rows)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ([], "it holds no rows"),
        ([1], "data.jsonl, line 1: it should be an object with columns"),
        ([{"x": 1}], "no known layout fits its rows (columns: x)"),
        ([{"prompt": 1, "chosen": 2, "rejected": 3}], "no known layout fits its rows (columns: chosen, prompt, rejected)"),
    ],
)
def test_data_that_cannot_be_used(tmp_path: Path, data: list[Any], error: str) -> None:
    assert error in created(tmp_path, "--data", str(written(tmp_path, data)), code=2)
    assert not (tmp_path / "out").exists()


def test_mistakes(tmp_path: Path) -> None:
    assert "there is no such file, and it is no data set of the hub" in created(tmp_path, "--data", "gone.jsonl", code=2)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    assert "cannot be read as Parquet" in created(tmp_path, "--data", str(tmp_path / "broken.parquet"), code=2)
    created(tmp_path)
    before = (tmp_path / "out" / "mine.yaml").read_text()
    assert "mine.yaml exists: choose another name" in created(tmp_path, code=2)
    assert (tmp_path / "out" / "mine.yaml").read_text() == before
    for arguments, error in (
        (["config", "../x"], "NAME '../x': write it with letters"),
        (["method"], "NAME is missing: name the component"),
        (["method", "mine", "--data", "x"], "--data x: it is for `harness new config`"),
        (["confg", "x"], "did you mean 'config'?"),
    ):
        answer = CliRunner().invoke(app, ["new", *arguments, "--into", str(tmp_path)])
        assert isinstance(answer.exception, HarnessError)
        assert error in str(answer.exception)
