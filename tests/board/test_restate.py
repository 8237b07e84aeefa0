"""An older board gets today's statistics from its scores, and keeps what scores do not hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.board import Board
from harness.board.build import LoadedBoard
from harness.board.restate import restated
from harness.board.verify import earlier_methods, verify
from harness.cli import app
from harness.errors import DataError


@pytest.fixture
def earlier(board: Board, tmp_path: Path) -> Path:
    """A board whose intervals and tests come from another version of the statistics."""
    folder = tmp_path / "earlier"
    board.write(folder)
    content = json.loads((folder / "board.json").read_text())
    del content["statistics"]["methods"]
    for row in content["rows"]:
        for score in row["scores"].values():
            score["low"], score["high"] = score["mean"] - 9, score["mean"] + 9
    content["warnings"] = ["The judge was asked twice.", "No row comes first on gold/reward in half of the bootstrap draws."]
    (folder / "board.json").write_text(json.dumps(content))
    return folder


def test_statistics_are_todays_and_the_rest_stays(board: Board, earlier: Path, tmp_path: Path) -> None:
    before, again = Board.read(earlier), restated(LoadedBoard.read(earlier), created="2026-01-02T03:04:05+00:00")
    assert earlier_methods(before) is not None and earlier_methods(again) is None
    for fresh, new in zip(board.rows, again.rows, strict=True):
        for key, score in fresh.scores.items():
            assert (new.scores[key].low, new.scores[key].high) == pytest.approx((score.low, score.high)), (fresh.method, key)
    for name in ("name", "description", "config", "baseline", "harness"):
        assert getattr(again, name) == getattr(before, name), name
    for old, new in zip(before.rows, again.rows, strict=True):
        assert (old.method, old.cost, old.budget, old.curves, old.seeds) == (
            *(new.method, new.cost, new.budget),
            *(new.curves, new.seeds),
        )
    assert again.sharing.restated is not None and again.sharing.restated.created == before.created
    assert "The judge was asked twice." in again.warnings and "computed again by today's methods" in again.warnings[0]
    assert "No row comes first on gold/reward in half of the bootstrap draws." not in again.warnings
    again.write(tmp_path / "again")
    assert verify(tmp_path / "again") == []


def test_the_command_writes_beside_the_earlier_board(earlier: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in earlier.iterdir()}
    run = CliRunner().invoke(app, ["report", str(earlier), "--restate", "--out", str(tmp_path / "new")])
    assert run.exit_code == 0, run.output
    assert (tmp_path / "new" / "index.html").exists() and verify(tmp_path / "new") == []
    assert before == {path.name: path.read_bytes() for path in earlier.iterdir()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give another folder with --out"),
        (["--out", "{earlier}"], "give another folder with --out"),
        (["--out", "{new}", "--format", "csv"], "leave --format out"),
    ],
)
def test_nothing_is_written_over_or_in_part(earlier: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    filled = [text.format(earlier=earlier, new=tmp_path / "new") for text in arguments]
    run = CliRunner().invoke(app, ["report", str(earlier), "--restate", *filled])
    assert run.exit_code == 1 and message in str(run.exception)
    assert not (tmp_path / "new").exists()


def test_published_numbers_have_no_scores_to_start_from() -> None:
    table = Path(__file__).parents[2] / "leaderboards" / "papers" / "sr-dpo-variants.yaml"
    with pytest.raises(DataError, match="published numbers only"):
        restated(LoadedBoard.read(table), created="")
