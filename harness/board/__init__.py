"""From scores to one leaderboard: `board.json` is the truth, and everything people look at is rendered from it alone."""

from harness.board.board import Board, ExampleRow
from harness.board.build import build_board
from harness.board.compare import RowResult

__all__ = ["Board", "ExampleRow", "RowResult", "build_board"]
