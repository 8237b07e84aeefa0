"""Everything about a board that needs more than one row: differences, families of tests, the noise floor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np

from harness.leaderboard.entries import CostEntry, Delta, FamilyEntry, Kind, MetricEntry, RowEntry, ScoreEntry, WinsEntry
from harness.leaderboard.text import plain
from harness.statistics import (
    Bootstrap,
    Difference,
    Floats,
    Interval,
    Values,
    benjamini_hochberg,
    by_metric,
    detectable,
    holm,
    seeds_t_test,
    standardised,
    wins,
)
from harness.types import Cost, Score

DRAWS, FLIPS, LEVEL = 2000, 9999, 0.95
SURE = 0.05  # the family-wise error that a board allows itself
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
    """Rows against the baseline. `warnings` says what is missing and why.

    Attributes:
        values: row → metric key → its values per seed and example.
        draws: metric key → (rows, their resampled means [draws, rows]), on draws that the rows share.
        differences: (row, metric key) → row minus baseline.
        families: the tests that are corrected together.
        noise: metric key → what a change of seeds alone could show.
    """

    def __init__(
        self, rows: Sequence[RowResult], metrics: Sequence[MetricEntry], baseline: str, *, mixed_judges: bool = False
    ) -> None:
        self.metrics = metrics
        self.mixed_judges = mixed_judges
        self.rows, self.baseline = rows, baseline
        self.warnings: list[str] = []
        self.values = {row.label: {} if row.failed else self._read(row) for row in rows}
        self.draws: dict[str, tuple[tuple[str, ...], Floats]] = {}
        self.differences: dict[tuple[str, str], Difference] = {}
        self._intervals: dict[tuple[str, str], Interval] = {}
        self._apart = self._judged_apart_from_baseline()
        bootstrap = Bootstrap(DRAWS, FLIPS, LEVEL)
        for metric in metrics:
            self._resample(metric.key, bootstrap)
        self.families, self._adjusted, self._discovery = self._correct()
        self.noise = self._floor()
        if not self.values[baseline]:
            self.warnings.append(f"The baseline {baseline} has no scores, so there are no differences and no tests.")
        self.warnings += self._strangers()

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

    def alpha(self, key: str) -> float:
        """The level of Holm's first step in the family of this metric."""
        return SURE / max(1, next((family.tests for family in self.families if key in family.metrics), 1))

    def _read(self, row: RowResult) -> dict[str, Values]:
        """Values per metric; says why where there are none, and where some are missing."""
        found: dict[str, Values] = {}
        silent: dict[str, list[str]] = {}
        sorted_out: dict[str, dict[str, dict[int, list[Score]]]] = {}
        for metric in self.metrics:
            evaluator, _, name = metric.key.partition("/")
            runs = row.scores.get(evaluator)
            if evaluator not in sorted_out:
                sorted_out[evaluator] = by_metric(runs or {})
            values = Values.from_scores(sorted_out[evaluator].get(name, dict.fromkeys(runs or {}, ())), name)
            kept = values.answered()
            if row.kind in ("published", "imported") and not kept.examples:
                continue  # others report what they report
            if not runs:
                silent.setdefault(evaluator, []).append(name)
                continue
            if not kept.examples:
                self.warnings.append(f"{row.label} has no {metric.key}: {evaluator} reported no finite value of it.")
                continue
            holes = values.values.size - kept.values.size
            if holes:
                self.warnings.append(
                    f"{row.label}: {holes} of {values.values.size} values of {metric.key} are missing or not finite; "
                    "the mean is over the others."
                )
            found[metric.key] = values
        for evaluator, names in silent.items():
            self.warnings.append(f"{row.label} has no {', '.join(names)} of {evaluator}, which gave it no scores.")
        return found

    def _strangers(self) -> Iterator[str]:
        """Imported rows that were measured by nothing that the baseline was measured by."""
        base = set(self.values[self.baseline])
        apart = sorted(row.label for row in self.rows if row.kind == "imported" and base.isdisjoint(self.values[row.label]))
        if apart and base:
            yield (
                f"{', '.join(apart)}: measured by other evaluators than the baseline {self.baseline}, so shown with intervals "
                "and not compared with it."
            )

    def _judged_apart_from_baseline(self) -> dict[str, set[str]]:
        """Row → the evaluators on which it is not compared. The baseline and what is published are never compared."""
        base = next(row for row in self.rows if row.label == self.baseline)
        others = [row for row in self.rows if row is not base and row.kind != "published"]
        return {row.label: self._judged_apart(row, base) for row in others}

    def _comparable(self, key: str) -> set[str]:
        return {label for label, apart in self._apart.items() if key.partition("/")[0] not in apart}

    def _judged_apart(self, row: RowResult, base: RowResult) -> set[str]:
        """Evaluators whose scores of two rows come from different judges or versions, and are not compared for that."""
        found = set()
        for evaluator in (name for name in row.scores if row.scores[name] and base.scores.get(name)):
            one, other = (_judges_of(side, evaluator) for side in (row, base))
            if one == other:
                continue
            said = f"{row.label} was judged by {_named(one)} and {base.label} by {_named(other)} on {evaluator}"
            if self.mixed_judges:
                self.warnings.append(f"{said}; they are compared because judge.allow_mixed_judges is set.")
                continue
            found.add(evaluator)
            self.warnings.append(f"{said}: they are not compared; set judge.allow_mixed_judges to compare all the same.")
        return found

    def _resample(self, key: str, bootstrap: Bootstrap) -> None:
        """Intervals, and differences where the baseline has the metric. Published numbers have nothing to resample."""
        own = [row.label for row in self.rows if key in self.values[row.label] and row.kind != "published"]
        for row in self.rows:
            if row.kind == "published" and key in self.values[row.label]:
                values = self.values[row.label][key]
                self._intervals[row.label, key] = Interval(float(np.nanmean(values.values)), 0.0, 0.0, len(values.examples))
        if not own:
            return
        aligned = _aligned([self.values[label][key] for label in own])
        drawn = bootstrap.means(aligned)
        self.draws[key] = (tuple(own), drawn)
        self._intervals |= {(label, key): found for label, found in zip(own, bootstrap.intervals(aligned, drawn), strict=True)}
        if self.baseline not in own:
            return
        base = aligned[own.index(self.baseline)]
        compared = [(label, values) for label, values in zip(own, aligned, strict=True) if label in self._comparable(key)]
        columns = [own.index(label) for label, _ in compared]
        at_hand = drawn[:, columns], drawn[:, own.index(self.baseline)]
        found = bootstrap.differences([values for _, values in compared], base, at_hand)
        for (label, values), gap in zip(compared, found, strict=True):
            if isinstance(gap, ValueError):
                self.warnings.append(f"{label} is not compared on {key}: {gap}.")
                continue
            self.differences[label, key] = gap
            self._say_what_is_left_out(label, key, values, base, gap)

    def _say_what_is_left_out(self, label: str, key: str, row: Values, base: Values, gap: Difference) -> None:
        left, right = row.answered(), base.answered()
        examples, seeds = max(len(left.examples), len(right.examples)), max(len(left.seeds), len(right.seeds))
        if gap.n < examples:
            self.warnings.append(f"{label} is compared on {gap.n} of {examples} examples of {key}.")
        if 0 < gap.seeds < seeds:
            self.warnings.append(f"{label} is compared on {gap.seeds} of {seeds} seeds of {key}: those that both rows have.")

    def _correct(self) -> tuple[tuple[FamilyEntry, ...], dict[tuple[str, str], float], dict[tuple[str, str], float]]:
        """Holm and Benjamini–Hochberg over rows × metrics, the primary metrics one family and the others another."""
        families: list[FamilyEntry] = []
        adjusted: dict[tuple[str, str], float] = {}
        discovery: dict[tuple[str, str], float] = {}
        for name, primary in (("primary metrics", True), ("other metrics", False)):
            metrics = tuple(metric.key for metric in self.metrics if metric.primary == primary)
            cells = [cell for cell in self.differences if cell[1] in metrics]
            p = [self.differences[cell].p for cell in cells]
            adjusted |= dict(zip(cells, holm(p), strict=True))
            discovery |= dict(zip(cells, benjamini_hochberg(p), strict=True))
            if cells:
                tested = tuple(key for key in metrics if any(key == cell[1] for cell in cells))
                families.append(FamilyEntry(name=name, metrics=tested, tests=len(cells)))
        return tuple(families), adjusted, discovery

    def _floor(self) -> dict[str, float]:
        """Per metric what a change of seeds alone could show: the larger bound, in size, of the null rows' intervals.

        The difference itself is near 0 by luck. A metric that no change of seeds can move has no floor.
        """
        nulls = {row.label for row in self.rows if row.kind == "null"}
        floor: dict[str, float] = {}
        for (label, key), gap in self.differences.items():
            if label in nulls:
                floor[key] = max(floor.get(key, 0.0), abs(gap.low), abs(gap.high))
        return floor

    def _scores(self, row: RowResult, seeds: tuple[int, ...]) -> Iterator[tuple[str, ScoreEntry]]:
        for metric in self.metrics:
            values = self.values[row.label].get(metric.key)
            if values is None:
                continue
            filled = _per_seed(values)
            found = self._intervals[row.label, metric.key]
            aggregate = row.kind == "published"  # one number per seed: it has no examples to resample
            score = ScoreEntry(
                mean=found.mean,
                low=None if aggregate else found.low,
                high=None if aggregate else found.high,
                n=found.n,
                per_seed=tuple(filled.values()),
                seeds=None if tuple(filled) == seeds else tuple(filled),
                higher_is_better=metric.higher_is_better,
                delta=self._delta(row, metric),
            )
            yield metric.key, score

    def _delta(self, row: RowResult, metric: MetricEntry) -> Delta | None:
        cell = row.label, metric.key
        gap = self.differences.get(cell)
        if gap is None:
            return None
        quiet = row.kind != "null" and abs(gap.mean) < self.noise.get(metric.key, 0.0)
        better = wins(gap.per_example if metric.higher_is_better is not False else -gap.per_example)
        return Delta(
            mean=gap.mean,
            low=gap.low,
            high=gap.high,
            p=gap.p,
            p_adjusted=self._adjusted[cell],
            below_noise=True if quiet else None,
            p_flips=gap.p_flips,
            p_design=gap.p_seeds_and_questions,
            p_seeds=seeds_t_test(gap.row_seeds, gap.baseline_seeds),
            q=self._discovery[cell],
            effect=standardised(gap.per_example),
            wins=WinsEntry(won=better.won, tied=better.tied, lost=better.lost),
            detectable=detectable(gap.error, self.alpha(metric.key)),
            n=gap.n,
            seeds=gap.seeds,
        )


def _judges_of(row: RowResult, evaluator: str) -> list[str]:
    """The judges of an evaluator's scores as `rows` notes them: models with the versions that their servers reported."""
    return sorted(row.provenance.get("judges", {}).get(evaluator, {}).get("versions", ()))


def _named(versions: Sequence[str]) -> str:
    return " and ".join(versions) or "nobody"


def _aligned(rows: Sequence[Values]) -> list[Values]:
    """All on the examples that any has."""
    if all((row.examples, row.questions) == (rows[0].examples, rows[0].questions) for row in rows):
        return list(rows)
    question = {name: asked for row in rows for name, asked in zip(row.examples, row.questions, strict=True)}
    examples = tuple(sorted(question))
    if examples == rows[0].examples:
        examples = rows[0].examples
    questions = tuple(question[name] for name in examples)
    return [row.on(examples, questions) for row in rows]


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
