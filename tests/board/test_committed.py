"""What lies under leaderboards/ is what its board.json gives, and holds."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.board import Board
from harness.board.board import board_scores
from harness.board.entries import METHODS
from harness.board.files import EVIDENCE, EXAMPLES, SCORES
from harness.board.published import published_board
from harness.board.verify import VerifyOutcome, check
from harness.board.views.markdown import to_csv, to_markdown
from harness.board.views.page import to_html
from harness.cli import app

LEADERBOARDS = Path(__file__).resolve().parents[2] / "leaderboards"
# Boards in a folder `boards` are left by analyses, and git ignores them.
FOLDERS = sorted(
    path.parent for path in LEADERBOARDS.rglob("board.json") if "boards" not in path.relative_to(LEADERBOARDS).parts
)
LONG = 500_000  # bytes of scores
RENDERED: dict[str, Callable[[Board], str]] = {
    "board.md": to_markdown,
    "board.csv": to_csv,
    "index.html": lambda board: to_html(board, board.example_rows),
}


def named(folder: Path) -> str:
    return str(folder.relative_to(LEADERBOARDS))


def quick_or_slow(folder: Path) -> Any:
    """The folder; marked slow where its statistics take many seconds, but for the quickstart."""
    scores = folder / SCORES
    is_long = scores.is_file() and scores.stat().st_size > LONG and folder.name != "quickstart"
    return pytest.param(folder, marks=[pytest.mark.slow] if is_long else [])


def test_there_are_boards() -> None:
    assert {"quickstart", "papers/sr-dpo-open-llm"} <= {named(folder) for folder in FOLDERS}


@pytest.mark.parametrize("folder", FOLDERS, ids=named)
def test_renderings_are_not_stale(folder: Path) -> None:
    board = Board.read(folder)
    stale = [name for name, render in RENDERED.items() if (folder / name).read_text(encoding="utf-8") != render(board)]
    assert not stale, f"run `harness report leaderboards/{named(folder)}`"


@pytest.mark.parametrize("folder", [quick_or_slow(folder) for folder in FOLDERS], ids=named)
def test_boards_hold(folder: Path) -> None:
    if not (folder / SCORES).is_file() and not Board.read(folder).is_published:
        pytest.skip("made before boards kept scores per example: there is nothing to verify it by")
    checked = check(folder)
    assert checked.differences == ()
    assert checked.outcome() is (VerifyOutcome.partial if checked.missing or checked.outside else VerifyOutcome.verified)
    assert checked.missing or checked.outside or EVIDENCE in (Board.read(folder).files or {})


@pytest.mark.parametrize("table", sorted((LEADERBOARDS / "papers").glob("*.yaml")), ids=lambda path: path.stem)
def test_published_boards_are_their_tables(table: Path) -> None:
    made, kept = published_board(table).with_examples(()), Board.read(table.with_suffix(""))
    version = {"harness": {}}  # the version that wrote it says nothing here
    assert kept.model_copy(update=version) == made.model_copy(update=version), f"run `harness merge {table} --out …`"


REFERENCE = os.environ.get("HARNESS_REFERENCE_DATA")
IMPORTED = LEADERBOARDS / "imported"


def test_trls_dpo_and_ours_cannot_be_told_apart_and_online_rows_show_what_they_used() -> None:
    board = Board.read(LEADERBOARDS / "sandbox-online")
    theirs, ours = board.row("trl_dpo"), board.row(board.baseline)
    assert theirs is not None and ours is not None and ours.method == "dpo" and theirs.budget == ours.budget
    primary = [metric.key for metric in board.metrics if metric.primary]
    assert len(primary) == 3
    for key in primary:
        delta = theirs.scores[key].delta
        assert delta is not None and delta.low is not None and delta.high is not None
        assert delta.low <= 0 <= delta.high and delta.p_adjusted == 1
    online = [row for row in board.rows if row.objective in ("trl grpo", "trl rloo", "trl online_dpo")]
    assert len(online) == 9
    for row in online:
        assert row.budget["updates"] == ours.budget["updates"] and row.budget["reward_calls"] > 0
        assert 0 < row.budget["generated"] < row.budget["tokens"]


@pytest.mark.skipif(REFERENCE is None, reason="HARNESS_REFERENCE_DATA is not set")
def test_the_imported_board_is_what_its_documented_commands_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = re.findall(r"^\$ harness (import .*)$", (LEADERBOARDS / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        run = CliRunner().invoke(app, expanded(command, tmp_path / "imported"), catch_exceptions=False)
        assert run.exit_code == 0
    made, kept = Board.read(tmp_path / "imported"), Board.read(IMPORTED)
    passing = {"created", "harness", "files", "rows"}  # the bytes of Parquet change with its library
    assert kept.methods == made.methods == METHODS
    assert kept.model_dump(exclude=passing) == made.model_dump(exclude=passing)
    for old, new in zip(kept.rows, made.rows, strict=True):
        assert (old.method, old.kind, old.seeds, old.provenance) == (new.method, new.kind, new.seeds, new.provenance)
        assert {k: (s.mean, s.n, s.per_seed) for k, s in old.scores.items()} == {
            k: (s.mean, s.n, s.per_seed) for k, s in new.scores.items()
        }
    assert board_scores(IMPORTED) == board_scores(tmp_path / "imported")


def expanded(command: str, out: Path) -> list[str]:
    """A documented command as a shell hands it on, for another folder."""
    found: list[str] = []
    for word in shlex.split(
        command.replace("$HARNESS_REFERENCE_DATA", str(REFERENCE)).replace("leaderboards/imported", str(out))
    ):
        path = Path(word)
        found += sorted(map(str, path.parent.glob(path.name))) if "*" in word else [word]
    return found


def test_the_imported_board_shows_seven_models_and_holds_no_text_of_theirs() -> None:
    board = Board.read(IMPORTED)
    assert {row.kind for row in board.rows} == {"imported"}
    by_evaluator = {
        name: [row for row in board.rows if f"{name}" in row.scores] for name in ("mt_bench/score", "alpaca_eval/win_rate")
    }
    assert {name: len(rows) for name, rows in by_evaluator.items()} == {"mt_bench/score": 4, "alpaca_eval/win_rate": 3}
    assert (IMPORTED / EXAMPLES).read_bytes() == b""
    names = {
        score.example for runs in board_scores(IMPORTED).values() for by in runs.values() for s in by.values() for score in s
    }
    assert len(names) == 805 + 160
    assert {name for name in names if not re.fullmatch(r"alpaca_eval:[0-9a-f]{12}|mt_bench:\d+:[12]", name)} == set()
    assert any("no length-controlled win rate" in warning for warning in board.warnings)
    assert "gpt-4" in board.description
