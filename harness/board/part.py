"""A board that is merged with others: its rows, their scores per example, and where it is from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import DataError
from harness.board.files import SCORES, Scores, digest
from harness.board.published import is_published_table, published_board
from harness.board.result import RowResult, row_before_statistics
from harness.board.board import Board, board_scores
from harness.board.verify import not_made_again
from harness.api.types import Cost, Score

REPORTED = "reported"  # the example of a number that a paper printed


@dataclass(frozen=True)
class Part:
    """A board that is merged: its rows' scores per example, and what it is called in messages."""

    board: Board
    scores: Scores
    name: str

    @property
    def published(self) -> bool:
        """Whether it holds nothing but printed numbers, which fit on any board and are never tested."""
        return all(row.kind == "published" for row in self.board.rows)

    @property
    def derived(self) -> set[str]:
        """Keys of the metrics over all its rows together, which scores per example do not give."""
        return {metric.key for metric in not_made_again(self.board, self.scores)}

    def rows(self) -> list[RowResult]:
        """Its rows before their statistics. A row's cost is only known as a mean over its seeds, and stays that."""
        found = []
        for entry in self.board.rows:
            cost = entry.cost
            mean = Cost(
                cost.seconds or 0.0,
                cost.tokens_trained or 0,  # type: ignore[arg-type]
                cost.tokens_generated or 0,  # type: ignore[arg-type]
                cost.judge_tokens or 0,  # type: ignore[arg-type]
                cost.usd,
            )
            row = replace(
                row_before_statistics(entry, self.scores),
                costs=dict.fromkeys(entry.seeds, mean),
                budget=entry.budget,
                provenance={**entry.provenance, "board": self.board.name},
                curves={int(seed): points for seed, points in entry.curves.items()},
            )
            found.append(row)
        return found


def read_part(path: Path) -> Part:
    """A board with its scores per example, or a published table.

    Raises:
        DataError: it cannot be read, or its scores are missing or not those it was written with.
    """
    if is_published_table(path):
        board = published_board(path)
        return Part(board, _printed(board), board.name)
    board = Board.read(path)
    if all(row.kind == "published" for row in board.rows):
        return Part(board, _printed(board), board.name)
    scores = board_scores(path)
    beside = (path if path.is_dir() else path.parent) / SCORES
    if (board.files or {}).get(SCORES) != digest(beside.read_bytes()):
        raise DataError(f"{beside} is not the file that its board.json was written with: `harness verify` says what is wrong")
    return Part(board, scores, str(path))


def _printed(board: Board) -> Scores:
    """Printed means as scores of one example, so that they go where scores go."""
    found: dict[str, dict[str, dict[int, list[Score]]]] = {}
    for row in board.rows:
        for key, score in row.scores.items():
            evaluator, _, metric = key.partition("/")
            runs = found.setdefault(row.method, {}).setdefault(evaluator, {0: []})
            runs[0].append(Score(REPORTED, metric, score.mean))
    return found
