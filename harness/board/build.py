"""From scores to a board: what a run hands in, what a person gets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from harness.api.types import Cost, Metric
from harness.board.analysis import analyse
from harness.board.board import Board, ExampleRow, FamilyEntry, StatisticsEntry
from harness.board.compare import DRAWS, FLIPS, LEVEL, SURE, Comparison, RowResult
from harness.board.entries import CostEntry, Delta, MetricEntry, RowEntry, ScoreEntry, WinsEntry
from harness.board.facts import SharingFacts
from harness.board.statistics import Values, detectable, seeds_t_test, standardised, wins
from harness.board.views.text import plain, signed
from harness.errors import DataError, did_you_mean
from harness.version import __version__

CURVE_POINTS = 200  # kept per seed; a board is read by people


__all__ = ["Board", "Derived", "ExampleRow", "RowResult", "build_board"]


@dataclass(frozen=True)
class Derived:
    """A metric that is computed over all rows together; `scores` by label. It has no values per example and no test."""

    metric: MetricEntry
    scores: Mapping[str, ScoreEntry]


def build_board(
    *,
    name: str,
    description: str,
    config: Mapping[str, Any],
    baseline: str,
    rows: Sequence[RowResult],
    metrics: Mapping[str, Sequence[Metric]],
    examples: Sequence[ExampleRow],
    sharing: Mapping[str, Any],
    created: str,
    warnings: Sequence[str],
    commit: str | None = None,
    mixed_judges: bool = False,
    derived: Sequence[Derived] = (),
) -> Board:
    """Compare every row with the baseline and put the best first.

    Args:
        metrics: per evaluator name; the first primary one decides the order, the others that of rows without it.
        commit: of the harness that ran, where known.
        derived: metrics over all rows together, added to the rows they name.
        mixed_judges: compare rows although different judges, or versions of one, marked them.

    Raises:
        DataError: two rows share a label, or no row is called `baseline`.
    """
    _check_labels(rows, baseline)
    entries = _metric_entries(metrics, rows)
    comparison = Comparison(rows, entries, baseline, mixed_judges=mixed_judges)
    board = Board(
        name=plain(name),
        description=plain(description),
        created=created,
        harness={"version": __version__} | ({"commit": commit} if commit else {}),
        config=plain(config),
        baseline=plain(baseline),
        metrics=(*entries, *(item.metric for item in derived)),
        rows=(),
        statistics=_methods(comparison.correction.families),
        sharing=SharingFacts.read(sharing),
    )
    ordered = _ordered([_with_derived(row_entry(comparison, row), derived) for row in rows], board.primary)
    analysis, notes = analyse(comparison)
    said = (*warnings, *comparison.warnings, *_noise_warnings(ordered, board.primary), *notes)
    board = board.model_copy(
        update={"rows": ordered, "warnings": tuple(plain(text) for text in said), "analysis": analysis}
    ).with_examples(examples)
    return board.with_scores({row.label: row.scores for row in rows if not row.failed})


def _metric_entries(metrics: Mapping[str, Sequence[Metric]], rows: Sequence[RowResult]) -> tuple[MetricEntry, ...]:
    """Every metric that the evaluators name, but for optional ones that no row has a score of."""
    optional = {f"{name}/{metric.name}" for name, listed in metrics.items() for metric in listed if metric.optional}
    scored = {
        f"{name}/{score.metric}"
        for row in rows
        for name, runs in row.scores.items()
        if any(key.startswith(f"{name}/") for key in optional)
        for scores in runs.values()
        for score in scores
    }
    return tuple(
        MetricEntry(
            key=f"{evaluator}/{metric.name}",
            description=metric.description,
            higher_is_better=metric.higher_is_better,
            primary=metric.primary,
        )
        for evaluator, listed in metrics.items()
        for metric in listed
        if f"{evaluator}/{metric.name}" not in optional - scored
    )


def _with_derived(row: RowEntry, derived: Sequence[Derived]) -> RowEntry:
    found = {item.metric.key: item.scores[row.method] for item in derived if row.method in item.scores}
    return row.model_copy(update={"scores": {**row.scores, **found}})


def _check_labels(rows: Sequence[RowResult], baseline: str) -> None:
    labels = [row.label for row in rows]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise DataError(f"two rows of the board are called {twice[0]!r}: give each its own label")
    if baseline not in labels:
        raise DataError(f"the baseline {baseline!r} is not a row of the board: {did_you_mean(baseline, labels)}")


def _ordered(rows: Sequence[RowEntry], primary: Sequence[MetricEntry]) -> tuple[RowEntry, ...]:
    """By the first primary metric, best first; rows without it by the first one they have; failed rows last; ties as given."""

    def place(row: RowEntry) -> tuple[bool, int, float]:
        for number, metric in enumerate(primary):
            score = row.scores.get(metric.key)
            if score is not None:
                return (row.failed is not None, number, score.mean if metric.higher_is_better is False else -score.mean)
        return (row.failed is not None, len(primary), 0.0)

    return tuple(sorted(rows, key=place))


def _noise_warnings(rows: Sequence[RowEntry], primary: Sequence[MetricEntry]) -> list[str]:
    """A null row is the baseline again: where its difference is sure, no small difference of another row means anything."""
    said = []
    for row in rows:
        for metric in primary if row.kind == "null" else ():
            delta = row.scores[metric.key].delta if metric.key in row.scores else None
            if delta is not None and (delta.low > 0 or delta.high < 0):
                said.append(
                    f"The null row {row.method} differs from the baseline on {metric.key} by {signed(delta.mean)} "
                    f"({signed(delta.low)} to {signed(delta.high)}) although only its seeds differ: "
                    "take no difference of that size seriously, and add seeds."
                )
    return [*said, *_quiet_warnings(rows)]


def _quiet_warnings(rows: Sequence[RowEntry]) -> list[str]:
    """Differences that the tests call significant and a change of seeds alone could have made: one line per row."""
    said = []
    for row in rows:
        quiet = [
            key
            for key, score in row.scores.items()
            if score.delta is not None and score.delta.below_noise and (score.delta.p_adjusted or 0.0) < SURE
        ]
        if quiet:
            said.append(
                f"{row.method}: 'significant' after correction, yet smaller than what a change of seeds alone could show, "
                f"so not counted: {', '.join(quiet)}."
            )
    return said


def _methods(families: tuple[FamilyEntry, ...]) -> StatisticsEntry:
    return StatisticsEntry(
        interval="hierarchical bootstrap: seeds, then questions, which the seeds share; the draws are stretched to the "
        "unbiased standard error and Student's t; differences are paired by example, and by the value of the seed where both "
        "rows have it",
        test="the larger of two two-sided p-values: the sign-flip permutation test over questions, which takes the trained "
        "models as given, and Student's t with the standard error over seeds and questions (what seeds do is "
        "taken from all rows); "
        "a difference counts only where its interval excludes 0 too "
        "and its size is not below the noise floor: what a change of seeds alone could show, "
        f"at the bound of its {LEVEL:.0%} interval (the larger bound, in size, of the null row's)",
        correction="Holm over all rows and primary metrics; the other metrics are a second family",
        draws=DRAWS,
        flips=FLIPS,
        level=LEVEL,
        families=families or None,
    )


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
        provenance=row.provenance,
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
