"""The part of a board that a live page shows: its rows in order, with intervals and differences."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel

from harness.board.board import Board
from harness.board.entries import MetricEntry, RowEntry
from harness.board.views.text import visible

MOST_WARNINGS = 50


def _shown(text: str) -> str:
    return visible(text)[:4000]


# Text for the page: names and sentences may hold what files and models wrote, so invisible characters are written out.
Shown = Annotated[str, AfterValidator(_shown)]


class MetricName(BaseModel):
    """A column; `key` is `evaluator/metric`, `higher_is_better` None for a metric without a direction."""

    key: Shown
    name: Shown
    higher_is_better: bool | None = None


class ScoreCell(BaseModel):
    """A row's score on a metric.

    Attributes:
        delta, delta_low, delta_high: the difference to the baseline with its interval.
        mark, verdict: as `Delta` has them.
        scored: of a mean so far, over how many scores it is; None of a board's score.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    delta: float | None = None
    delta_low: float | None = None
    delta_high: float | None = None
    mark: str = ""
    verdict: str = ""
    scored: int | None = None


class SummaryRow(BaseModel):
    """A row of a board: what it costs for each seed, why it failed, and its scores in the order of the metrics."""

    label: Shown
    kind: str
    baseline: bool
    failed: Shown | None
    seeds: int
    seconds: float | None
    usd: float | None
    scores: list[ScoreCell | None]


class Summary(BaseModel):
    """A board in short; `rows` in the board's order."""

    name: Shown
    created: str
    metrics: list[MetricName]
    rows: list[SummaryRow]
    sentences: list[Shown]
    warnings: list[Shown]


def summarise(board: Board) -> Summary:
    """Return the primary metrics and all rows of a board."""
    metrics = [
        MetricName(key=metric.key, name=board.short_name(metric), higher_is_better=metric.higher_is_better)
        for metric in board.primary
    ]
    return Summary(
        name=board.name,
        created=board.created,
        metrics=metrics,
        rows=[_row(board, row) for row in board.rows],
        sentences=board.first_places(),
        warnings=list(board.warnings[:MOST_WARNINGS]),
    )


def _row(board: Board, row: RowEntry) -> SummaryRow:
    return SummaryRow(
        label=row.method,
        kind=row.kind,
        baseline=row.method == board.baseline,
        failed=row.failed,
        seeds=len(row.seeds),
        seconds=row.cost.seconds,
        usd=row.cost.usd,
        scores=[_cell(row, metric) for metric in board.primary],
    )


def _cell(row: RowEntry, metric: MetricEntry) -> ScoreCell | None:
    score = row.scores.get(metric.key)
    if score is None:
        return None
    delta = score.delta
    if delta is None:
        return ScoreCell(mean=score.mean, low=score.low, high=score.high)
    return ScoreCell(
        mean=score.mean,
        low=score.low,
        high=score.high,
        delta=delta.mean,
        delta_low=delta.low,
        delta_high=delta.high,
        mark=delta.mark,
        verdict=delta.verdict(metric),
    )
