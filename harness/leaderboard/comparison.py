"""Everything about a board that needs more than one row: differences, families of tests, the noise floor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np

from harness.leaderboard.schema import CostEntry, Delta, Kind, MetricEntry, RowEntry, ScoreEntry
from harness.leaderboard.text import plain
from harness.statistics import Difference, Values, holm, interval, paired
from harness.types import Cost, Score

DRAWS, FLIPS, LEVEL = 2000, 9999, 0.95
CURVE_POINTS = 200  # kept per seed; a board is read by people


@dataclass(frozen=True)
class RowResult:
    """What one row of the comparison brought home.

    Attributes:
        label: unique in the board.
        scores: evaluator → seed → scores.
        costs: per seed.
        budget: what it really used: prompts, pairs, updates, tokens.
        failed: why there are no scores; None where it ran.
        curves: per seed the training log, one mapping of numbers per logged step.
    """

    label: str
    data: str | None
    objective: str | None
    rounds: int
    kind: Kind
    scores: Mapping[str, Mapping[int, Sequence[Score]]]
    costs: Mapping[int, Cost]
    budget: Mapping[str, float]
    provenance: Mapping[str, Any]
    failed: str | None = None
    curves: Mapping[int, Sequence[Mapping[str, float]]] = field(default_factory=dict)


class Comparison:
    """Rows against the baseline. `warnings` says what is missing and why."""

    def __init__(self, rows: Sequence[RowResult], metrics: Sequence[MetricEntry], baseline: str) -> None:
        self.metrics = metrics
        self.warnings: list[str] = []
        self._values = {row.label: {} if row.failed else self._read(row) for row in rows}
        self._differences = {(label, key): gap for label, key, gap in self._gaps(rows, baseline)}
        self._adjusted = self._correct()
        self._noise = self._floor(rows)
        if not self._values[baseline]:
            self.warnings.append(f"The baseline {baseline} has no scores, so there are no differences and no tests.")

    def entry(self, row: RowResult) -> RowEntry:
        seeds = tuple(sorted({seed for runs in row.scores.values() for seed in runs} | set(row.costs)))
        return RowEntry(
            method=plain(row.label),
            data=row.data,
            objective=row.objective,
            rounds=row.rounds,
            kind=row.kind,
            seeds=seeds,
            scores={} if row.failed else dict(self._scores(row, seeds)),
            cost=_mean_cost(row.costs),
            budget={key: float(value) for key, value in row.budget.items() if isfinite(value)},
            provenance=plain(row.provenance),
            curves={str(seed): _thinned(points) for seed, points in sorted(row.curves.items())},
            failed=None if row.failed is None else plain(row.failed) or "no reason given",
        )

    def _read(self, row: RowResult) -> dict[str, Values]:
        """Values per metric; says why where there are none, and where some are missing."""
        found: dict[str, Values] = {}
        for metric in self.metrics:
            evaluator, _, name = metric.key.partition("/")
            runs = row.scores.get(evaluator)
            values = Values.from_scores(runs or {}, name)
            if row.kind == "published" and not values.answered().examples:
                continue  # a paper reports what it reports
            if not runs:
                self.warnings.append(f"{row.label} has no {metric.key}: {evaluator} gave it no scores.")
                continue
            holes = values.values.size - len(values.answered().examples) * len(values.answered().values)
            if not values.answered().examples:
                self.warnings.append(f"{row.label} has no {metric.key}: {evaluator} reported no finite value of it.")
                continue
            if holes:
                self.warnings.append(
                    f"{row.label}: {holes} of {values.values.size} values of {metric.key} are missing or not finite; "
                    "the mean is over the others."
                )
            found[metric.key] = values
        return found

    def _gaps(self, rows: Sequence[RowResult], baseline: str) -> Iterator[tuple[str, str, Difference]]:
        for row in rows:
            if row.label == baseline or row.kind == "published":
                continue
            for key, values in self._values[row.label].items():
                base = self._values[baseline].get(key)
                if base is None:
                    continue
                try:
                    gap = paired(values, base, draws=DRAWS, flips=FLIPS, level=LEVEL)
                except ValueError as error:
                    self.warnings.append(f"{row.label} is not compared on {key}: {error}.")
                    continue
                examples = max(len(values.answered().examples), len(base.answered().examples))
                if gap.n < examples:
                    self.warnings.append(f"{row.label} is compared on {gap.n} of {examples} examples of {key}.")
                yield row.label, key, gap

    def _correct(self) -> dict[tuple[str, str], float]:
        """Holm over rows × metrics, the primary metrics one family and the others another."""
        primary = {metric.key for metric in self.metrics if metric.primary}
        adjusted: dict[tuple[str, str], float] = {}
        for family in (True, False):
            cells = [cell for cell in self._differences if (cell[1] in primary) == family]
            adjusted |= dict(zip(cells, holm([self._differences[cell].p for cell in cells]), strict=True))
        return adjusted

    def _floor(self, rows: Sequence[RowResult]) -> dict[str, float]:
        """Per metric what a change of seeds alone could show: the larger bound, in size, of the null rows' intervals.

        The difference itself is near 0 by luck. A metric that no change of seeds can move has no floor.
        """
        nulls = {row.label for row in rows if row.kind == "null"}
        floor: dict[str, float] = {}
        for (label, key), gap in self._differences.items():
            if label in nulls:
                floor[key] = max(floor.get(key, 0.0), abs(gap.low), abs(gap.high))
        return floor

    def _scores(self, row: RowResult, seeds: tuple[int, ...]) -> Iterator[tuple[str, ScoreEntry]]:
        for metric in self.metrics:
            values = self._values[row.label].get(metric.key)
            if values is None:
                continue
            runs = row.scores[metric.key.partition("/")[0]]
            filled = _per_seed(sorted(runs), values)
            found = interval(values, draws=DRAWS, level=LEVEL)
            aggregate = row.kind == "published"  # one number per seed: it has no examples to resample
            score = ScoreEntry(
                mean=found.mean,
                low=None if aggregate else found.low,
                high=None if aggregate else found.high,
                n=found.n,
                per_seed=tuple(filled.values()),
                seeds=None if tuple(filled) == seeds else tuple(filled),
                higher_is_better=metric.higher_is_better,
                delta=self._delta(row, metric.key),
            )
            yield metric.key, score

    def _delta(self, row: RowResult, key: str) -> Delta | None:
        gap = self._differences.get((row.label, key))
        if gap is None:
            return None
        quiet = row.kind != "null" and abs(gap.mean) < self._noise.get(key, 0.0)
        return Delta(
            mean=gap.mean,
            low=gap.low,
            high=gap.high,
            p=gap.p,
            p_adjusted=self._adjusted[row.label, key],
            below_noise=True if quiet else None,
        )


def _per_seed(runs: Sequence[int], values: Values) -> dict[int, float]:
    """Seed → mean over the examples it has a value for; seeds without any are left out."""
    means = {}
    for seed, cells in zip(runs, values.values, strict=True):
        finite = cells[np.isfinite(cells)]
        if len(finite):
            means[seed] = float(finite.mean())
    return means


def _mean_cost(costs: Mapping[int, Cost]) -> CostEntry:
    """Of one seed, on average; absent rather than 0 where a row has no data and no training of its own."""
    runs = list(costs.values())
    if all(cost == Cost() for cost in runs):
        return CostEntry()
    return CostEntry(
        seconds=sum(cost.seconds for cost in runs) / len(runs),
        tokens_trained=sum(cost.tokens_trained for cost in runs) / len(runs),
        tokens_generated=sum(cost.tokens_generated for cost in runs) / len(runs),
    )


def _thinned(points: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Evenly spaced points, the last among them; a number that is not finite is absent from its point."""
    keep = np.unique(np.linspace(0, len(points) - 1, min(len(points), CURVE_POINTS)).round().astype(int))
    return [{key: float(value) for key, value in points[index].items() if isfinite(value)} for index in keep]
