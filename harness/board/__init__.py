"""From scores to one leaderboard: `board.json` is the truth, and everything people look at is rendered from it alone."""

from harness.board.build import build_board
from harness.board.result import RowResult
from harness.board.board import Board, ExampleRow

__all__ = ["Board", "ExampleRow", "RowResult", "build_board"]
