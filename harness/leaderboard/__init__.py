"""From scores to one leaderboard: `board.json` is the truth, and everything people look at is rendered from it alone."""

from harness.leaderboard.board import build_board
from harness.leaderboard.result import RowResult
from harness.leaderboard.schema import Board, ExampleRow

__all__ = ["Board", "ExampleRow", "RowResult", "build_board"]
