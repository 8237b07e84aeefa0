"""What only all rows together tell: how stable the order is, who wins, whether metrics agree, what could be seen."""

from __future__ import annotations

from itertools import combinations
from statistics import median

import numpy as np

from harness.board.compare import LEVEL, Comparison
from harness.board.entries import AgreementEntry, AnalysisEntry, MetricEntry, PowerEntry, RankEntry, WinMatrix
from harness.board.statistics import Floats, agree, detectable, mean_over_seeds, rank_stability, win_shares
from harness.board.statistics.agreement import per_example, ranked
from harness.board.views.text import plain

REFERENCE = ("control", "null", "published")
OFTEN = 0.5  # a first place in fewer draws than these is said to be unsure


def analyse(comparison: Comparison) -> tuple[AnalysisEntry, list[str]]:
    """The entry of the board, and what a reader should know of it."""
    primary = [metric for metric in comparison.metrics if metric.primary] or list(comparison.metrics[:1])
    entry = AnalysisEntry(
        noise={key: floor for key, floor in comparison.noise.items() if floor > 0},
        ranking={metric.key: found for metric in comparison.metrics if (found := _ranking(comparison, metric))},
        wins={metric.key: won for metric in primary if (won := _wins(comparison, metric))},
        agreement=tuple(_agreement(comparison)),
        power={metric.key: seen for metric in comparison.metrics if (seen := _power(comparison, metric.key))},
    )
    return entry, _unstable(entry, primary)


def _unstable(entry: AnalysisEntry, primary: list[MetricEntry]) -> list[str]:
    """One warning where the first place on the first primary metric is anybody's."""
    ranks = entry.ranking.get(primary[0].key, {}) if primary else {}
    if len(ranks) < 3:
        return []
    label, best = min(ranks.items(), key=lambda item: (-item[1].first, item[0]))
    if best.first >= OFTEN:
        return []
    return [
        f"No row comes first on {primary[0].key} in half of the bootstrap draws; {label} does most often, in {best.first:.0%}."
    ]


def _competing(comparison: Comparison) -> list[str]:
    """The rows that stand in the ranking."""
    return [row.label for row in comparison.rows if row.kind not in REFERENCE]


def _ranking(comparison: Comparison, metric: MetricEntry) -> dict[str, RankEntry]:
    if metric.higher_is_better is None or metric.key not in comparison.draws:
        return {}
    labels, means = comparison.draws[metric.key]
    competing = [label for label in _competing(comparison) if label in labels]
    if len(competing) < 2:
        return {}
    columns = means[:, [labels.index(label) for label in competing]]
    found = rank_stability(columns, higher_is_better=metric.higher_is_better, level=LEVEL)
    return {
        plain(label): RankEntry(first=rank.first, mean=rank.mean, low=rank.low, high=rank.high)
        for label, rank in zip(competing, found, strict=False)
    }


def _table(comparison: Comparison, key: str, labels: list[str]) -> tuple[tuple[str, ...], Floats]:
    """Examples that any of the rows has, and [rows, examples] averaged over seeds."""
    rows = [comparison.values[label][key] for label in labels]
    alike = all(row.examples == rows[0].examples for row in rows)
    examples = tuple(sorted(rows[0].examples if alike else {name for row in rows for name in row.examples}))
    return examples, np.stack([mean_over_seeds(row.on(examples).values) for row in rows])


def _wins(comparison: Comparison, metric: MetricEntry) -> WinMatrix | None:
    labels = sorted(
        row.label for row in comparison.rows if row.kind != "published" and metric.key in comparison.values[row.label]
    )
    if len(labels) < 2:
        return None
    table = _table(comparison, metric.key, labels)[1]
    shares = win_shares(-table if metric.higher_is_better is False else table)
    return WinMatrix(
        methods=tuple(plain(label) for label in labels),
        shares=tuple(
            tuple(float(share) if np.isfinite(share) and i != j else None for j, share in enumerate(line))
            for i, line in enumerate(shares)
        ),
    )


def _agreement(comparison: Comparison) -> list[AgreementEntry]:
    """Between any two metrics that have a direction, turned so that higher is better; null rows and papers stand aside."""
    labels = [row.label for row in comparison.rows if row.kind in ("measured", "control", "imported")]
    metrics = [metric for metric in comparison.metrics if metric.higher_is_better is not None]
    tables: dict[str, tuple[list[str], tuple[str, ...], Floats, Floats | None]] = {}
    for metric in metrics:
        here = [label for label in labels if metric.key in comparison.values[label]]
        if len(here) >= 3:
            examples, table = _table(comparison, metric.key, here)
            table = table if metric.higher_is_better else -table
            tables[metric.key] = (here, examples, table, ranked(table) if np.isfinite(table).all() else None)
    found, means = [], {key: np.nanmean(table, axis=1) for key, (_, _, table, _) in tables.items()}
    for left, right in combinations(tables, 2):
        (rows, examples, _, ranks_a), (others, asked, _, ranks_b) = tables[left], tables[right]
        both = [label for label in rows if label in others]
        i, j = [rows.index(label) for label in both], [others.index(label) for label in both]
        over_rows = agree(means[left][i], means[right][j])
        if over_rows is None:
            continue
        alike = examples == asked and ranks_a is not None and ranks_b is not None
        found.append(
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
    return found


def _lines(table: Floats, rows: list[int]) -> Floats:
    """These rows of a table; the table itself where they are all of it."""
    return table if rows == list(range(len(table))) else table[rows]


def _power(comparison: Comparison, key: str) -> PowerEntry | None:
    """Medians over the rows that are paired with the baseline by seed and are not equal to it."""
    parts = [
        (gap, gap.components)
        for (_, metric), gap in comparison.differences.items()
        if metric == key and gap.components is not None and gap.error.size > 0
    ]
    if not parts:
        return None
    alpha = comparison.correction.alpha(key)
    return PowerEntry(
        alpha=alpha,
        detectable=median(detectable(gap.error, alpha) for gap, _ in parts),
        seeds=round(median(found.seeds for _, found in parts)),
        questions=round(median(found.questions for _, found in parts)),
        seed_variance=median(found.seed for _, found in parts),
        question_variance=median(found.question for _, found in parts),
        rest_variance=median(found.rest for _, found in parts),
        freedom_per_seed=median(found.freedom_per_seed for _, found in parts),
    )
