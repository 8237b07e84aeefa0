"""A board that holds passes; whatever is changed in it is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.board import Board
from harness.board.files import read_scores, scores_bytes
from harness.board.verify import earlier_methods, verify
from harness.cli import app
from harness.errors import DataError


@pytest.fixture(scope="module")
def folder(board: Board, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("board")
    board.write(found)
    return found


def tampered(folder: Path, new: Path, old: str, changed: str) -> list[str]:
    """What is said of a copy with one text in its board.json replaced."""
    for name in ("examples.jsonl", "scores.parquet"):
        (new / name).write_bytes((folder / name).read_bytes())
    text = (folder / "board.json").read_text()
    assert old in text
    (new / "board.json").write_text(text.replace(old, changed, 1))
    return verify(new)


def test_an_honest_board_holds(folder: Path) -> None:
    assert verify(folder) == []
    assert scores_bytes(read_scores(folder / "scores.parquet")) == (folder / "scores.parquet").read_bytes()


def test_a_changed_number_is_named(board: Board, folder: Path, tmp_path: Path) -> None:
    score = next(row for row in board.rows if row.method == "kto").scores["gold/win_rate"]
    assert score.delta is not None
    problems = tampered(folder, tmp_path, f'"p": {json.dumps(score.delta.p)}', '"p": 1e-05')
    assert len(problems) == 1 and "delta p is 1e-05, the scores give" in problems[0]


def test_a_board_of_earlier_methods_is_checked_as_far_as_methods_agree(board: Board, folder: Path, tmp_path: Path) -> None:
    score = next(row for row in board.rows if row.method == "kto").scores["gold/win_rate"]
    assert score.delta is not None
    content = json.loads((folder / "board.json").read_text())
    del content["statistics"]["methods"]
    kto = next(row for row in content["rows"] if row["method"] == "kto")["scores"]["gold/win_rate"]
    kto["delta"]["p"], kto["low"] = 1e-5, kto["low"] + 0.01
    for name in ("examples.jsonl", "scores.parquet"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "board.json").write_text(json.dumps(content))
    assert verify(tmp_path) == []
    assert earlier_methods(board) is None
    sentence = earlier_methods(Board.read(tmp_path))
    assert sentence is not None and "an earlier version of the statistics" in sentence
    run = CliRunner().invoke(app, ["verify", str(tmp_path), "--json"])
    assert run.exit_code == 1 and json.loads(run.stdout)["earlier_methods"] == sentence
    kto["mean"] += 0.1
    (tmp_path / "board.json").write_text(json.dumps(content))
    mean, order = verify(tmp_path)
    assert "kto: gold/win_rate mean is" in mean and "rows: they are not ordered by their means" in order


def test_changed_scores_are_named(folder: Path, tmp_path: Path) -> None:
    scores = read_scores(folder / "scores.parquet")
    del scores["kto"]["gold"]
    (tmp_path / "board.json").write_bytes((folder / "board.json").read_bytes())
    (tmp_path / "examples.jsonl").write_bytes((folder / "examples.jsonl").read_bytes())
    (tmp_path / "scores.parquet").write_bytes(scores_bytes(scores))
    problems = verify(tmp_path)
    assert "scores.parquet is not the file that board.json was written with: its SHA-256 differs" in problems
    assert "kto: gold/reward is on the board, and the scores give none" in problems


def test_a_board_without_scores_cannot_be_verified(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "board.json").write_bytes((folder / "board.json").read_bytes())
    with pytest.raises(DataError, match=r"scores\.parquet is missing"):
        verify(tmp_path)
    (tmp_path / "scores.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="cannot be read as per-example scores"):
        verify(tmp_path)
