"""Analyse all rows together: the stability of their order, shares of wins, agreement between metrics, and power."""

from __future__ import annotations

from itertools import combinations
from statistics import median

import numpy as np

from harness.board.compare import LEVEL, Statistics
from harness.board.entries import AgreementEntry, AnalysisEntry, MetricEntry, NoiseEntry, PowerEntry, RankEntry, WinMatrix
from harness.board.first_place import first_place
from harness.board.statistics import Components, Floats, agree, design_detectable, mean_over_seeds, rank_stability, win_shares
from harness.board.statistics.agreement import per_example, ranked
from harness.board.views.text import plain


def analyse(statistics: Statistics) -> AnalysisEntry:
    """Return the board's entry."""
    primary = [metric for metric in statistics.metrics if metric.primary] or list(statistics.metrics[:1])
    return AnalysisEntry(
        noise={key: floor.size for key, floor in statistics.noise.items()},
        noise_floors={
            key: NoiseEntry(probability=floor.probability, low=floor.low, high=floor.high, nulls=floor.nulls)
            for key, floor in statistics.noise.items()
        }
        or None,
        first_place={metric.key: place for metric in primary if (place := first_place(statistics, metric))} or None,
        ranking={metric.key: ranks for metric in statistics.metrics if (ranks := _ranking(statistics, metric))},
        wins={metric.key: won for metric in primary if metric.fit is None and (won := _wins(statistics, metric))},
        agreement=tuple(_agreement(statistics)),
        power={metric.key: seen for metric in statistics.metrics if (seen := _power(statistics, metric.key))},
    )


def _competing(statistics: Statistics) -> list[str]:
    """Return the labels of the rows that stand in the ranking."""
    return [row.label for row in statistics.rows if not row.is_reference]


def _ranking(statistics: Statistics, metric: MetricEntry) -> dict[str, RankEntry]:
    if metric.higher_is_better is None or metric.key not in statistics.draws:
        return {}
    labels, means = statistics.draws[metric.key]
    competing = [label for label in _competing(statistics) if label in labels]
    if len(competing) < 2:
        return {}
    columns = means[:, [labels.index(label) for label in competing]]
    stability = rank_stability(columns, higher_is_better=metric.higher_is_better, level=LEVEL)
    return {
        plain(label): RankEntry(first=rank.first, mean=rank.mean, low=rank.low, high=rank.high)
        for label, rank in zip(competing, stability, strict=False)
    }


def _table(statistics: Statistics, key: str, labels: list[str], *, shared: bool = False) -> tuple[tuple[str, ...], Floats]:
    """Return the examples that any of the rows has, and values [rows, examples] averaged over seeds.

    Args:
        shared: leave out the prompts that only some rows got, where prompts are added until rows are decided.
    """
    tables = {label: statistics.values[label][key] for label in labels}
    rows = list((statistics.of_all(key, tables) if shared else tables).values())
    alike = all(row.examples == rows[0].examples for row in rows)
    examples = tuple(sorted(rows[0].examples if alike else {name for row in rows for name in row.examples}))
    return examples, np.stack([mean_over_seeds(row.on(examples).values) for row in rows])


def _wins(statistics: Statistics, metric: MetricEntry) -> WinMatrix | None:
    labels = sorted(row.label for row in statistics.rows if not row.is_published and metric.key in statistics.values[row.label])
    if len(labels) < 2:
        return None
    table = _table(statistics, metric.key, labels)[1]
    shares = win_shares(-table if metric.higher_is_better is False else table)
    return WinMatrix(
        methods=tuple(plain(label) for label in labels),
        shares=tuple(
            tuple(float(share) if np.isfinite(share) and i != j else None for j, share in enumerate(line))
            for i, line in enumerate(shares)
        ),
    )


def _agreement(statistics: Statistics) -> list[AgreementEntry]:
    """Compare the orders of any two metrics with a direction, higher being better on both, without null and published rows."""
    labels = [row.label for row in statistics.rows if not (row.is_null or row.is_published)]
    metrics = [metric for metric in statistics.metrics if metric.higher_is_better is not None]
    tables: dict[str, tuple[list[str], tuple[str, ...], Floats, Floats | None]] = {}
    for metric in metrics:
        scored = [label for label in labels if metric.key in statistics.values[label]]
        if len(scored) >= 3:
            examples, table = _table(statistics, metric.key, scored, shared=True)
            table = table if metric.higher_is_better else -table
            whole = metric.fit is None and bool(np.isfinite(table).all())
            tables[metric.key] = (scored, examples, table, ranked(table) if whole else None)
    entries, means = [], {key: np.nanmean(table, axis=1) for key, (_, _, table, _) in tables.items()}
    for left, right in combinations(tables, 2):
        (rows, examples, _, ranks_a), (others, asked, _, ranks_b) = tables[left], tables[right]
        both = [label for label in rows if label in others]
        i, j = [rows.index(label) for label in both], [others.index(label) for label in both]
        over_rows = agree(means[left][i], means[right][j])
        if over_rows is None:
            continue
        alike = examples == asked and ranks_a is not None and ranks_b is not None
        entries.append(
            AgreementEntry(
                left=left,
                right=right,
                kendall=over_rows[0],
                spearman=over_rows[1],
                rows=len(both),
                per_example=per_example(_lines(ranks_a, i), _lines(ranks_b, j))
                if alike and ranks_a is not None and ranks_b is not None
                else None,
                examples=len(examples) if alike else 0,
            )
        )
    return entries


def _lines(table: Floats, rows: list[int]) -> Floats:
    """Return these rows of a table; the table itself, not a copy, where they are all of it."""
    return table if rows == list(range(len(table))) else table[rows]


def _power(statistics: Statistics, key: str) -> PowerEntry | None:
    """Return what finds a difference with the median variances of rows that are paired with the baseline and differ from it."""
    parts = [
        part
        for cell, gap in statistics.differences.items()
        if cell[1] == key and gap.error.size > 0 and (part := statistics.components(cell)) is not None and part.questions > 1
    ]
    if not parts:
        return None
    middle = Components(
        seed=median(part.seed for part in parts),
        question=median(part.question for part in parts),
        rest=median(part.rest for part in parts),
        seeds=round(median(part.seeds for part in parts)),
        questions=round(median(part.questions for part in parts)),
        freedom_per_seed=median(part.freedom_per_seed for part in parts),
    )
    alpha = statistics.correction.alpha(key)
    return PowerEntry(
        alpha=alpha,
        detectable=design_detectable(middle, alpha=alpha),
        seeds=middle.seeds,
        questions=middle.questions,
        seed_variance=middle.seed,
        question_variance=middle.question,
        rest_variance=middle.rest,
        freedom_per_seed=middle.freedom_per_seed,
    )
