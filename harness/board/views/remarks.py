"""What a reader of any table should know beside its numbers, each in a sentence of plain text."""

from __future__ import annotations

from harness.board.views.provenance import board_precision
from harness.board.board import Board
from harness.board.standing import short_name
from harness.board.views.text import number

LEADERS = 3  # rows named with how often they come first


def remarks(board: Board) -> list[str]:
    """How tests were corrected, how stable the first place is, what the board could have seen, in which types it was computed;
    less on an older board."""
    return [said for said in (_families(board), _ranks(board), _detectable(board), _precision(board)) if said]


def is_published(board: Board) -> bool:
    """Whether all of it was printed elsewhere: no intervals, no tests."""
    return bool(board.rows) and all(row.kind == "published" for row in board.rows)


def _families(board: Board) -> str:
    families = board.statistics.families
    if not families:
        return ""
    parts = [f"{family.tests} tests of {family.name}" for family in families]
    return f"Corrected together: {'; apart from them '.join(parts)}."


def _ranks(board: Board) -> str:
    """On the first primary metric."""
    ranks = board.analysis.ranking.get(board.primary[0].key, {}) if board.analysis and board.primary else {}
    leaders = sorted(ranks.items(), key=lambda item: (-item[1].first, item[1].mean, item[0]))[:LEADERS]
    named = [f"{label} {rank.first:.0%} (rank {rank.low:.0f} to {rank.high:.0f})" for label, rank in leaders if rank.first > 0]
    return f"First on {short_name(board, board.primary[0])} over bootstrap draws: {', '.join(named)}." if named else ""


def _precision(board: Board) -> str:
    words = board_precision(board)
    return f"Precision: {words}." if words else ""


def _detectable(board: Board) -> str:
    power = board.analysis.power if board.analysis else {}
    seen = [f"{short_name(board, m)} {number(power[m.key].detectable)}" for m in board.primary if m.key in power]
    return f"The smallest true difference that would be found four times in five: {', '.join(seen)}." if seen else ""
