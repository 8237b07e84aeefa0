"""Hostile texts, wherever one is taken, are text in Markdown, CSV, LaTeX and the terminal; tests/browser has the page."""

from __future__ import annotations

import csv
import io
import re

import pytest
from made_boards import HOSTILE, LONG, hostile_board
from rich.console import Console

from harness.board import Board
from harness.board.views.latex import to_latex
from harness.board.views.markdown import to_csv, to_markdown
from harness.board.views.terminal import print_table
from harness.board.views.text import visible

UNSEEN = re.compile(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def hostile() -> Board:
    return hostile_board()


def test_markdown_has_no_markup_of_theirs(hostile: Board) -> None:
    text = to_markdown(hostile)
    assert not UNSEEN.search(text) and len(max(text.splitlines(), key=len)) >= len(LONG)
    assert not re.search(r"<(?!\s)(?!/?(details|summary)>)", text)
    assert not re.search(r"(?<!\\)\]\(", text) and "://" not in text and not re.search(r"(?<!\\)!\[", text)
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert tables and all(len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1 for lines in tables)


def test_csv_has_their_texts_whole_and_no_formula(hostile: Board) -> None:
    csv.field_size_limit(10 * len(LONG))
    lines = list(csv.DictReader(io.StringIO(to_csv(hostile))))
    assert {line["method"] for line in lines} == {"sft", visible(HOSTILE), LONG, "broken"}
    assert len({len(line) for line in lines}) == 1
    assert not any(UNSEEN.search(cell) or cell.startswith(("=", "+", "@")) for line in lines for cell in line.values())


def test_latex_has_no_command_of_theirs(hostile: Board) -> None:
    text = to_latex(hostile)
    assert not UNSEEN.search(text) and r"\input{" not in text and "<script>" not in text
    lines = text.splitlines()
    assert not any(line.lstrip().startswith(("[", "*")) for line in lines)  # after \\ they would be its options
    cells = [line for line in lines if line.endswith(r"\\")]
    assert len({len(re.findall(r"(?<!\\)&", line)) for line in cells}) == 1
    depth = 0
    for character in re.sub(r"\\[{}]", "", text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0


@pytest.mark.parametrize("width", [60, 120])
def test_the_terminal_gets_no_escape_of_theirs_and_no_wider_line(hostile: Board, width: int) -> None:
    out = io.StringIO()
    print_table(hostile, Console(file=out, width=width, force_terminal=True, color_system=None))
    text = out.getvalue()
    assert not UNSEEN.search(text) and "[bold red]x[/]" in "".join(text.split("\n"))
    assert max(map(len, text.splitlines())) <= width
