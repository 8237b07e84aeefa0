"""What lies under leaderboards/ is what its board.json gives, and holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.leaderboard import Board
from harness.leaderboard.files import SCORES
from harness.leaderboard.page import to_html
from harness.leaderboard.published import published_board
from harness.leaderboard.remarks import is_published
from harness.leaderboard.render import to_csv, to_markdown
from harness.leaderboard.verify import verify

LEADERBOARDS = Path(__file__).resolve().parents[2] / "leaderboards"
FOLDERS = sorted(path.parent for path in LEADERBOARDS.rglob("board.json"))
RENDERED: dict[str, Callable[[Board], str]] = {
    "board.md": to_markdown,
    "board.csv": to_csv,
    "index.html": lambda board: to_html(board, board.example_rows),
}


def named(folder: Path) -> str:
    return str(folder.relative_to(LEADERBOARDS))


def test_there_are_boards() -> None:
    assert {"quickstart", "papers/sr-dpo-open-llm"} <= {named(folder) for folder in FOLDERS}


@pytest.mark.parametrize("folder", FOLDERS, ids=named)
def test_renderings_are_not_stale(folder: Path) -> None:
    board = Board.read(folder)
    stale = [name for name, render in RENDERED.items() if (folder / name).read_text(encoding="utf-8") != render(board)]
    assert not stale, f"run `harness report leaderboards/{named(folder)}`"


@pytest.mark.parametrize("folder", FOLDERS, ids=named)
def test_boards_hold(folder: Path) -> None:
    if not (folder / SCORES).is_file() and not is_published(Board.read(folder)):
        pytest.skip("made before boards kept scores per example: there is nothing to verify it by")
    assert verify(folder) == []


@pytest.mark.parametrize("table", sorted((LEADERBOARDS / "papers").glob("*.yaml")), ids=lambda path: path.stem)
def test_published_boards_are_their_tables(table: Path) -> None:
    made, kept = published_board(table).with_examples(()), Board.read(table.with_suffix(""))
    version = {"harness": {}}  # the version that wrote it says nothing here
    assert kept.model_copy(update=version) == made.model_copy(update=version), f"run `harness merge {table} --out …`"
