"""List the prompts on which one row's answers are worse than another's: `harness diff --examples`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from harness.board.board import Board
from harness.board.entries import MetricEntry
from harness.board.example_scores import ExampleScores, Floats, example_ids
from harness.errors import DataError, did_you_mean


@dataclass(frozen=True)
class ExampleChange:
    """One prompt with both rows' scores, means over seeds; texts are None where a board has none."""

    id: str
    before: float
    after: float
    prompt: str | None
    answers: tuple[str | None, str | None]


@dataclass(frozen=True)
class ExampleChanges:
    """Prompts that got worse from one row to another, the worst first, and the counts of all common prompts."""

    metric: str
    rows: tuple[str, str]
    worse: int
    equal: int
    better: int
    shown: tuple[ExampleChange, ...]

    def as_dict(self) -> Mapping[str, object]:
        return asdict(self)


def worse_examples(
    before: Board, after: Board, rows: tuple[str, str] | None = None, metric: str | None = None, most: int = 5
) -> ExampleChanges:
    """Compare a row of one board with a row of the same or another one, prompt by prompt.

    Args:
        rows: the row of `before` and that of `after`; by default the best row that both have, and of one board its baseline
            and its best row.
        metric: the key of a metric that both have; by default the first primary one.
        most: the number of prompts that are returned.

    Raises:
        DataError: a board lacks the row, the metric or scores per example, or the two have no prompt in common.
    """
    entry = _metric(before, after, metric)
    left, right = rows or _rows(before, after)
    ids = sorted(set(example_ids(before)) & set(example_ids(after)))
    first, second = _means(before, left, ids, entry), _means(after, right, ids, entry)
    gap = (second - first) * (-1 if entry.higher_is_better is False else 1)
    if not np.isfinite(gap).any():
        raise DataError(f"{left} and {right} have no prompt with a score of {entry.key} in common")
    texts = [{example.id: example for example in board.example_rows} for board in (before, after)]
    order = [int(place) for place in np.argsort(gap, kind="stable") if gap[place] < 0]
    shown = []
    for place in order[:most]:
        examples = [by_id.get(ids[place]) for by_id in texts]
        answers = [example.answers.get(row) if example else None for example, row in zip(examples, (left, right), strict=True)]
        prompt = next((example.prompt for example in examples if example), None)
        shown.append(ExampleChange(ids[place], float(first[place]), float(second[place]), prompt, (answers[0], answers[1])))
    counts = len(order), int((gap == 0).sum()), int((gap > 0).sum())
    return ExampleChanges(entry.key, (left, right), *counts, tuple(shown))


def _metric(before: Board, after: Board, key: str | None) -> MetricEntry:
    common = {metric.key for metric in before.metrics} & {metric.key for metric in after.metrics}
    listed = [metric for metric in (*after.primary, *after.metrics) if metric.key in common]
    chosen = next((metric for metric in listed if key is None or metric.key == key), None)
    if chosen is None:
        fix = did_you_mean(key, sorted(common)) if key is not None else "they have no metric in common"
        raise DataError(f"--metric = {key!r}: {fix}")
    return chosen


def _rows(before: Board, after: Board) -> tuple[str, str]:
    """Return the rows that are compared where none are named."""
    ranked = [row.method for row in after.ranked if not row.failed]
    if before is after:
        best = next((label for label in ranked if label != after.baseline), None)
        if best is not None:
            return after.baseline, best
    else:
        best = next((label for label in ranked if before.row(label) is not None), None)
        if best is not None:
            return best, best
    raise DataError("there are no two rows to compare: name them with --rows LEFT,RIGHT")


def _means(board: Board, row: str, ids: list[str], metric: MetricEntry) -> Floats:
    if board.row(row) is None:
        raise DataError(f"--rows = {row!r}: {board.name} has none; {did_you_mean(row, [one.method for one in board.rows])}")
    scores = ExampleScores.read(board, [row], ids)
    column = next(scores.columns(metric.key), None) if scores else None
    return np.full(len(ids), np.nan) if column is None else column.means[0]
