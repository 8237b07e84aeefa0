"""A row of a comparison as `board.json` holds it: its statistics, mean cost and thinned curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite

import numpy as np

from harness.board.compare import Comparison
from harness.board.entries import CostEntry, Delta, MetricEntry, RowEntry, ScoreEntry, WinsEntry
from harness.board.result import RowResult
from harness.board.views.text import plain
from harness.board.statistics import Values, detectable, seeds_t_test, standardised, wins
from harness.api.types import Cost

CURVE_POINTS = 200  # kept per seed; a board is read by people


def row_entry(comparison: Comparison, row: RowResult) -> RowEntry:
    """The entry of one of the comparison's rows."""
    seeds = tuple(sorted({seed for runs in row.scores.values() for seed in runs} | set(row.costs)))
    return RowEntry(
        method=plain(row.label),
        data=row.data,
        objective=row.objective,
        rounds=row.rounds,
        kind=row.kind,
        seeds=seeds,
        scores={} if row.failed else dict(_scores(comparison, row, seeds)),
        cost=_mean_cost(row.costs),
        budget={key: float(value) for key, value in row.budget.items() if isfinite(value)},
        provenance=plain(row.provenance),
        curves={str(seed): _thinned(points) for seed, points in sorted(row.curves.items())},
        failed=None if row.failed is None else plain(row.failed) or "no reason given",
    )


def _scores(comparison: Comparison, row: RowResult, seeds: tuple[int, ...]) -> Iterator[tuple[str, ScoreEntry]]:
    for metric in comparison.metrics:
        values = comparison.values[row.label].get(metric.key)
        if values is None:
            continue
        filled = _per_seed(values)
        found = comparison.intervals[row.label, metric.key]
        aggregate = row.kind == "published"  # one number per seed: it has no examples to resample
        score = ScoreEntry(
            mean=found.mean,
            low=None if aggregate else found.low,
            high=None if aggregate else found.high,
            n=found.n,
            per_seed=tuple(filled.values()),
            seeds=None if tuple(filled) == seeds else tuple(filled),
            higher_is_better=metric.higher_is_better,
            delta=_delta(comparison, row, metric),
        )
        yield metric.key, score


def _delta(comparison: Comparison, row: RowResult, metric: MetricEntry) -> Delta | None:
    cell = row.label, metric.key
    gap = comparison.differences.get(cell)
    if gap is None:
        return None
    quiet = row.kind != "null" and abs(gap.mean) < comparison.noise.get(metric.key, 0.0)
    better = wins(gap.per_example if metric.higher_is_better is not False else -gap.per_example)
    return Delta(
        mean=gap.mean,
        low=gap.low,
        high=gap.high,
        p=gap.p,
        p_adjusted=comparison.correction.adjusted[cell],
        below_noise=True if quiet else None,
        p_flips=gap.p_flips,
        p_design=gap.p_seeds_and_questions,
        p_seeds=seeds_t_test(gap.row_seeds, gap.baseline_seeds),
        q=comparison.correction.discovery[cell],
        effect=standardised(gap.per_example),
        wins=WinsEntry(won=better.won, tied=better.tied, lost=better.lost),
        detectable=detectable(gap.error, comparison.correction.alpha(metric.key)),
        n=gap.n,
        seeds=gap.seeds,
    )


def _per_seed(values: Values) -> dict[int, float]:
    """Seed → mean over the examples it has a value for; seeds without any are left out."""
    means = {}
    for seed, cells in zip(values.seeds, values.values, strict=True):
        finite = cells[np.isfinite(cells)]
        if len(finite):
            means[seed] = float(finite.mean())
    return means


def _mean_cost(costs: Mapping[int, Cost]) -> CostEntry:
    """Of one seed, on average; absent rather than 0 where a row has no data and no training of its own, or no judge."""
    runs, found = list(costs.values()), {}
    if any(cost.seconds or cost.tokens_trained or cost.tokens_generated for cost in runs):
        names = ("seconds", "tokens_trained", "tokens_generated")
        found = {name: sum(getattr(cost, name) for cost in runs) / len(runs) for name in names}
    if any(cost.judge_tokens for cost in runs):
        found["judge_tokens"] = sum(cost.judge_tokens for cost in runs) / len(runs)
        dollars = [cost.usd for cost in runs if cost.usd is not None]
        if len(dollars) == len(runs):
            found["usd"] = sum(dollars) / len(runs)
    return CostEntry(**found)


def _thinned(points: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Evenly spaced points, the last among them; a number that is not finite is absent from its point."""
    keep = np.unique(np.linspace(0, len(points) - 1, min(len(points), CURVE_POINTS)).round().astype(int))
    return [{key: float(value) for key, value in points[index].items() if isfinite(value)} for index in keep]
