"""Families, ranks and what could be seen stand in every table; nothing of it where the board says nothing."""

from __future__ import annotations

import io

from rich.console import Console

from harness.leaderboard import Board
from harness.leaderboard.latex import latex_text, to_latex
from harness.leaderboard.remarks import remarks
from harness.leaderboard.render import markdown_text, to_markdown
from harness.leaderboard.table import print_table


def test_remarks_say_what_the_board_holds(board: Board) -> None:
    families, ranks, detectable = remarks(board)
    assert families == "Corrected together: 20 tests of primary metrics; apart from them 60 tests of other metrics."
    assert board.analysis is not None
    best = max(board.analysis.ranking["gold/win_rate"].items(), key=lambda item: item[1].first)
    assert ranks.startswith(f"First on win_rate over bootstrap draws: {best[0]} {best[1].first:.0%} (rank 1 to ")
    power = board.analysis.power
    assert detectable.endswith(
        f"win_rate {power['gold/win_rate'].detectable:.3f}, followed {power['format/followed'].detectable:.3f}."
    )
    older = board.model_copy(update={"analysis": None, "statistics": board.statistics.model_copy(update={"families": None})})
    assert remarks(older) == []


def test_they_stand_in_every_table(board: Board) -> None:
    out = io.StringIO()
    print_table(board, Console(file=out, width=200))
    printed = " ".join(out.getvalue().split())
    markdown, latex = to_markdown(board), to_latex(board)
    for said in remarks(board):
        assert markdown_text(said) in markdown and said in printed
        assert latex_text(said) in latex
