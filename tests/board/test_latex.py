"""LaTeX as papers print it, in which no text is a command."""

from __future__ import annotations

import re

from harness.board import Board
from harness.board.views.latex import latex_text, to_latex


def test_every_line_has_as_many_cells(starred: Board) -> None:
    board, page = starred, to_latex(starred)
    lines = [line for line in page.splitlines() if line.endswith(r"\\")]
    assert len(lines) == len(board.rows) + 1
    assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {2 * len(board.primary)}
    assert r"\textbf{0.703}" in page and r"$^{***}$" in page
    assert page.isascii() or not set(page) & set("−≈…")


def test_no_text_is_a_command(nasty: str) -> None:
    assert latex_text(r"\input{x} 50% a_b $x$ #1 ~ ^") == (
        r"\textbackslash{}input\{x\} 50\% a\_b \$x\$ \#1 \textasciitilde{} \textasciicircum{}"
    )
    assert "\x1b" not in latex_text(nasty) and "\u202e" not in latex_text(nasty)
