"""Analyse all rows together: the stability of their order, shares of wins, agreement between metrics and judges, and power."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from statistics import median

import numpy as np

from harness.board.compare import LEVEL, Statistics
from harness.board.entries import (
    AgreementEntry,
    AnalysisEntry,
    EstimateEntry,
    MetricEntry,
    NoiseEntry,
    PowerEntry,
    RankEntry,
    RatersEntry,
    WinMatrix,
)
from harness.board.first_place import first_place
from harness.board.statistics import (
    Components,
    Floats,
    agree,
    design_detectable,
    mean_over_seeds,
    rank_stability,
    rater_agreement,
    win_shares,
)
from harness.board.statistics.agreement import Estimate, per_example, ranked
from harness.board.views.text import plain

RATERS = ("judge", "reward")  # fields of an evaluator that name who gives its values


def analyse(statistics: Statistics, config: Mapping[str, object]) -> AnalysisEntry:
    """Return the board's entry.

    Args:
        config: the board's, which says which evaluators differ in their judge or reward model alone.
    """
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
        raters=tuple(_raters(statistics, rater_pairs(config))) or None,
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


def rater_pairs(config: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return the labels of each two evaluators of a config that ask the same of different judges or reward models."""
    listed = config.get("evaluators")
    entries = [entry for entry in listed if isinstance(entry, Mapping)] if isinstance(listed, list | tuple) else []
    asking: dict[str, list[str]] = {}
    for entry in entries:
        asked = {name: value for name, value in entry.items() if name not in ("label", *RATERS)}
        asking.setdefault(repr(sorted(asked.items(), key=lambda item: str(item[0]))), []).append(
            str(entry.get("label") or entry.get("name"))
        )
    return [pair for labels in asking.values() for pair in combinations(labels, 2)]


def _raters(statistics: Statistics, pairs: Sequence[tuple[str, str]]) -> Iterator[RatersEntry]:
    """Yield the agreement of each two evaluators on every metric that both have, over all rows that were evaluated here."""
    keys = [metric.key for metric in statistics.metrics]
    for left, right in pairs:
        for key in keys:
            # With `opponent: each`, an evaluator's metrics begin with its label and a row's, `one@dpo/win_rate`.
            if key.startswith((f"{left}/", f"{left}@")) and (other := right + key.removeprefix(left)) in keys:
                entry = _rated_alike(statistics, key, other)
                if entry is not None:
                    yield entry


def _rated_alike(statistics: Statistics, left: str, right: str) -> RatersEntry | None:
    """Return the agreement of two metrics answer by answer; None with fewer than three answers that have both."""
    sides: tuple[list[Floats], list[Floats]] = ([], [])
    asked: list[str] = []
    for row in statistics.rows:
        values = statistics.values[row.label]
        if row.is_published or left not in values or right not in values:
            continue
        one, other = values[left], values[right].on(values[left].examples)
        seeds = [seed for seed in one.seeds if seed in other.seeds]
        for side, table in zip(sides, (one, other), strict=True):
            side.append(table.of_seeds(seeds).values.ravel())
        asked += one.questions * len(seeds)
    if not asked:
        return None
    a, b = (np.concatenate(side) for side in sides)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(asked))}
    one_scale = all(bool(np.isfinite(side).any()) and np.nanmin(side) >= 0 and np.nanmax(side) <= 1 for side in (a, b))
    measured = rater_agreement(a, b, np.array([numbers[name] for name in asked], dtype=np.intp), one_scale=one_scale)
    if measured is None:
        return None
    return RatersEntry(
        left=left,
        right=right,
        spearman=_estimate(measured.spearman),
        alpha=_estimate(measured.alpha),
        same=measured.same,
        answers=measured.answers,
        questions=measured.questions,
    )


def _estimate(estimate: Estimate | None) -> EstimateEntry | None:
    return None if estimate is None else EstimateEntry(mean=estimate.mean, low=estimate.low, high=estimate.high)


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
