"""A board that is there already, taken apart, so that rows of elsewhere can join it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from harness.board.build import Derived, build_board
from harness.board.files import Scores
from harness.board.result import RowResult, row_before_statistics
from harness.board.board import Board, RowEntry, board_scores
from harness.board.verify import not_made_again
from harness.api.types import Metric


@dataclass(frozen=True)
class Existing:
    """A board that is there already; empty where there is none."""

    board: Board | None = None
    scores: Scores = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path | None) -> Existing:
        return cls() if folder is None else cls(Board.read(folder), board_scores(folder))

    @property
    def rows(self) -> list[RowResult]:
        return [row_before_statistics(entry, self.scores) for entry in self.board.rows] if self.board else []

    @property
    def mixed_judges(self) -> bool:
        return bool(self.board and (self.board.config.get("judge") or {}).get("allow_mixed_judges"))

    @property
    def derived(self) -> list[Derived]:
        """Metrics over all its rows together, which scores per example do not give."""
        if self.board is None:
            return []
        return [
            Derived(metric, {row.method: row.scores[metric.key] for row in self.board.rows if metric.key in row.scores})
            for metric in not_made_again(self.board, self.scores)
        ]

    @property
    def metrics(self) -> dict[str, list[Metric]]:
        """By evaluator; of those that are made from scores."""
        found: dict[str, list[Metric]] = {}
        over_rows = {item.metric.key for item in self.derived}
        for entry in self.board.metrics if self.board else ():
            evaluator, _, name = entry.key.partition("/")
            if entry.key not in over_rows:
                metric = Metric(name, entry.description, entry.higher_is_better, entry.primary)
                found.setdefault(evaluator, []).append(metric)
        return found

    def said(self) -> list[str]:
        """Its warnings but for those that comparing its rows gives, which are given again."""
        if self.board is None:
            return []
        again = build_board(
            name=self.board.name, description="", config={}, baseline=self.board.baseline, rows=self.rows,
            metrics=self.metrics, examples=(), sharing={}, created="", warnings=(), mixed_judges=self.mixed_judges,
        )  # fmt: skip
        return [text for text in self.board.warnings if text not in again.warnings]

    def with_costs(self, row: RowEntry) -> RowEntry:
        """A row with what its scores do not say: costs, budget and curves of before."""
        before = self.board.row(row.method) if self.board else None
        if before is None:
            return row
        kept = {"cost": before.cost, "budget": before.budget, "curves": before.curves, "seeds": before.seeds}
        return row.model_copy(update=kept if row.kind == before.kind else {})
