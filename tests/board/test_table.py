"""The terminal table fits its width, keeps its columns, and takes nothing in a text for markup."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import pytest
from rich.console import Console

from harness.board import Board
from harness.board.views.terminal import print_table


def shown(board: Board, width: int, *, colour: bool = False) -> str:
    out = io.StringIO()
    print_table(board, Console(file=out, width=width, force_terminal=colour, color_system="standard" if colour else None))
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_it_fits_and_no_number_is_cut(starred: Board, width: int) -> None:
    text = shown(starred, width)
    assert max(len(line) for line in text.splitlines()) <= width
    ranking = text.split("against dpo")[0]
    assert "0.703" in ranking and "+0.309 ***" in ranking and "−0.372 ***" in ranking
    assert "0…" not in ranking and "±0.…" not in ranking


def test_what_is_left_out_is_said(board: Board) -> None:
    assert "followed" in shown(board, 90) and "time" not in shown(board, 90).split("against dpo")[0]
    assert "12.6 min" in shown(board, 110) and "◇ gold_dpo" in shown(board, 100)
    assert "1 more primary metric in board.md." in shown(board, 60).replace("\n", " ").replace("  ", " ")
    wide = shown(board, 140)
    assert "self_contrast → dpo" in wide and "12.6 min" in wide and "followed ↑" in wide


def test_references_stand_below_the_ranking(board: Board) -> None:
    lines = [line for line in shown(board, 100).split("against dpo")[0].splitlines() if line.strip()]
    names = ["self_contrast_16", "● dpo ", "evil|", "◇ gold_dpo", "○ dpo_other_seeds", "◇ start"]
    places = [next(i for i, line in enumerate(lines) if name in line) for name in names]
    assert places == sorted(places)


def test_it_says_how_to_read_it_what_was_shared_and_what_failed(board: Board) -> None:
    text = " ".join(shown(board, 100).split())
    assert "p < 0.05, 0.01, 0.001 after correction" in text
    assert "after correction, where the interval excludes 0 too." in text
    floor = r"win_rate 0\.\d+ \(0\.\d+ to 0\.\d+\), followed 0\.\d+ \(0\.\d+ to 0\.\d+\)"
    assert (
        re.search(
            rf"The noise floor \(a change of seeds alone stays below it 95% of the time\), known to 95%: {floor}\.",
            text,
        )
        and "≈" not in text
    )
    shared = "47 were shared between rows or taken from the store, which saved 38.0 min."
    assert f"The rows needed 118 artifacts: the run made 71; {shared}" in text
    assert "failed: loss became nan at step 12" in text
    assert "! The judge was not asked: no judge is configured." in text


def test_no_text_is_markup_or_a_terminal_escape(board: Board, starred: Board) -> None:
    text = shown(board, 140)
    assert "[red]bold[/red]" in text.replace("\n", " ") and "\\x1b[31m" in text and "\\u202e" in text
    assert "\x1b" not in text and "\u202e" not in text
    assert re.search(r"\x1b\[(3;)?32m\+0\.309 \*\*\*", shown(starred, 140, colour=True))


def test_rows_of_another_kind_are_magenta(board: Board) -> None:
    text = shown(board, 140, colour=True)
    assert re.search(r"\x1b\[(3;)?35m◇ gold_dpo", text) and re.search(r"\x1b\[(3;)?35m○ dpo_other_seeds", text)
    line = next(line for line in text.splitlines() if "self_contrast_16" in line)
    assert "35m" not in line.partition("self_contrast_16")[0]


def test_a_board_without_scores_prints(build: Callable[..., Board]) -> None:
    text = shown(build(None, metrics={}, sharing={}, warnings=()), 80)
    assert "No row has a score" in text and "stages" not in text
