"""Markdown and CSV: complete, and nothing in a text is markup or a formula."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable

import pytest

from harness.board import Board
from harness.board.views.markdown import COLUMNS, csv_text, markdown_text, to_csv, to_markdown


def test_markdown_tables_have_as_many_cells_in_every_line(board: Board) -> None:
    blocks = [block for block in to_markdown(board).split("\n\n") if block.startswith("|")]
    assert len(blocks) == 3
    for block in blocks:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1
        assert len(block.splitlines()) == 2 + len(board.rows)


def test_markdown_says_who_is_baseline_null_control_and_failed(starred: Board) -> None:
    page = to_markdown(starred)
    assert "| 3 (1–8) | **dpo** (baseline) |" in page
    assert "*dpo\\_other\\_seeds* (null)" in page and "*gold\\_dpo* (control)" in page
    assert "+0.309\\*\\*\\*" in page and "−0.003 |" in page
    assert "loss became nan at step 12\\\\n" in page
    assert "38.0 min" not in page  # what was shared belongs to a run, not to the board's readers


def test_no_text_is_markup_in_markdown(board: Board) -> None:
    page = to_markdown(board)
    assert "<" not in page.replace("p < 0.05", "")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", page)
    assert markdown_text("a|b `c` *d* [e](f) <g>") == "a\\|b \\`c\\` \\*d\\* \\[e\\](f) &lt;g&gt;"
    assert markdown_text("1. not a list") == "1\\. not a list"
    assert markdown_text("- not a list") == "\\- not a list"
    assert markdown_text("@somebody https://x") == "&#64;somebody https&#58;//x"
    assert markdown_text("0.612 (2024)") == "0.612 (2024)" and markdown_text("line\nbreak") == "line\\\\nbreak"


def test_csv_is_long_and_numbers_come_back(board: Board) -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(board))))
    assert len(lines) == 11 * 8 + 1
    assert tuple(lines[0]) == COLUMNS
    first = lines[0]
    score = board.rows[0].scores["gold/win_rate"]
    assert (first["method"], first["metric"], float(first["mean"])) == ("gold_dpo", "gold/win_rate", score.mean)
    assert score.delta is not None and float(first["delta_mean"]) == score.delta.mean
    assert {line["below_noise"] for line in lines} == {""}  # the first methods alone marked what is below it
    assert lines[-1]["metric"] == "" and lines[-1]["failed"].startswith("loss became nan")
    assert [line["delta_mean"] for line in lines if line["method"] == "dpo"] == [""] * 8


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "＝1+1"])
def test_no_text_is_a_formula_in_a_spreadsheet(text: str) -> None:
    assert csv_text(text) == f"'{text}"


def test_csv_text_has_no_control_characters() -> None:
    assert csv_text("\t=1\r\n") == "\\t=1\\r\\n"


def test_a_board_of_nothing_renders(build: Callable[..., Board]) -> None:
    board = build(None, metrics={}, warnings=())
    assert "No row has a score on the first primary metric" in to_markdown(board)
    assert len(to_csv(board).splitlines()) == 1 + len(board.rows)
