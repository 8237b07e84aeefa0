"""Rows against the baseline: intervals, differences, families of tests, and the noise floor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.api.types import Cost, Score
from harness.board.entries import FamilyEntry, Kind, MetricEntry, RowEntry
from harness.board.facts import Provenance
from harness.board.files import Scores
from harness.board.statistics import Bootstrap, Difference, Floats, Interval, Values, benjamini_hochberg, by_metric, holm

SURE = 0.05  # the family-wise error that a board allows itself
Cell = tuple[str, str]  # a row's label and a metric's key


DRAWS, FLIPS, LEVEL = 2000, 9999, 0.95


class Comparison:
    """Rows against the baseline. `warnings` says what is missing and why.

    Attributes:
        values: row → metric key → its values per seed and example.
        draws: metric key → (rows, their resampled means [draws, rows]), on draws that the rows share.
        intervals: (row, metric key) → its mean and interval.
        differences: (row, metric key) → row minus baseline.
        correction: the tests that are corrected together, and their corrected p-values.
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
        self.differences: dict[Cell, Difference] = {}
        self.intervals: dict[Cell, Interval] = {}
        self._apart = self._judged_apart_from_baseline()
        bootstrap = Bootstrap(DRAWS, FLIPS, LEVEL)
        for metric in metrics:
            self._resample(metric.key, bootstrap)
        self.correction = correct(metrics, self.differences)
        self.noise = self._floor()
        if not self.values[baseline]:
            self.warnings.append(f"The baseline {baseline} has no scores, so there are no differences and no tests.")
        self.warnings += self._strangers()

    def _read(self, row: RowResult) -> dict[str, Values]:
        found, warnings = readings(row, self.metrics)
        self.warnings += warnings
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
        apart = {}
        for row in self.rows:
            if row is not base and row.kind != "published":
                apart[row.label], warnings = judged_apart(row, base, self.rows, mixed=self.mixed_judges)
                self.warnings += warnings
        return apart

    def _comparable(self, key: str) -> set[str]:
        return {label for label, apart in self._apart.items() if key.partition("/")[0] not in apart}

    def _resample(self, key: str, bootstrap: Bootstrap) -> None:
        """Intervals, and differences where the baseline has the metric. Published numbers have nothing to resample."""
        own = [row.label for row in self.rows if key in self.values[row.label] and row.kind != "published"]
        for row in self.rows:
            if row.kind == "published" and key in self.values[row.label]:
                values = self.values[row.label][key]
                self.intervals[row.label, key] = Interval(float(np.nanmean(values.values)), 0.0, 0.0, len(values.examples))
        if not own:
            return
        tables = aligned([self.values[label][key] for label in own])
        drawn = bootstrap.means(tables)
        self.draws[key] = (tuple(own), drawn)
        self.intervals |= {(label, key): found for label, found in zip(own, bootstrap.intervals(tables, drawn), strict=True)}
        if self.baseline in own:
            self._compare(key, bootstrap, dict(zip(own, tables, strict=True)), drawn)

    def _compare(self, key: str, bootstrap: Bootstrap, tables: dict[str, Values], drawn: Floats) -> None:
        """Differences from the baseline of the rows that may be compared with it; `tables` in the order of `drawn`."""
        own, base = list(tables), tables[self.baseline]
        comparable = self._comparable(key)
        compared = [label for label in own if label in comparable]
        at_hand = drawn[:, [own.index(label) for label in compared]], drawn[:, own.index(self.baseline)]
        found = bootstrap.differences([tables[label] for label in compared], base, at_hand)
        for label, gap in zip(compared, found, strict=True):
            if isinstance(gap, ValueError):
                self.warnings.append(f"{label} is not compared on {key}: {gap}.")
                continue
            self.differences[label, key] = gap
            self._say_what_is_left_out(label, key, tables[label], base, gap)

    def _say_what_is_left_out(self, label: str, key: str, row: Values, base: Values, gap: Difference) -> None:
        left, right = row.answered(), base.answered()
        examples, seeds = max(len(left.examples), len(right.examples)), max(len(left.seeds), len(right.seeds))
        if gap.n < examples:
            self.warnings.append(f"{label} is compared on {gap.n} of {examples} examples of {key}.")
        if 0 < gap.seeds < seeds:
            self.warnings.append(f"{label} is compared on {gap.seeds} of {seeds} seeds of {key}: those that both rows have.")

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


@dataclass(frozen=True)
class Correction:
    """The p-values of every tested cell, corrected within its family.

    Attributes:
        adjusted: after Holm.
        discovery: after Benjamini–Hochberg.
    """

    families: tuple[FamilyEntry, ...]
    adjusted: Mapping[Cell, float]
    discovery: Mapping[Cell, float]

    def alpha(self, key: str) -> float:
        """The level of Holm's first step in the family of this metric."""
        return SURE / max(1, next((family.tests for family in self.families if key in family.metrics), 1))


def correct(metrics: Sequence[MetricEntry], differences: Mapping[Cell, Difference]) -> Correction:
    """Holm and Benjamini–Hochberg over rows × metrics."""
    families: list[FamilyEntry] = []
    adjusted: dict[Cell, float] = {}
    discovery: dict[Cell, float] = {}
    for name, primary in (("primary metrics", True), ("other metrics", False)):
        keys = tuple(metric.key for metric in metrics if metric.primary == primary)
        cells = [cell for cell in differences if cell[1] in keys]
        p = [differences[cell].p for cell in cells]
        adjusted |= dict(zip(cells, holm(p), strict=True))
        discovery |= dict(zip(cells, benjamini_hochberg(p), strict=True))
        if cells:
            tested = tuple(key for key in keys if any(key == cell[1] for cell in cells))
            families.append(FamilyEntry(name=name, metrics=tested, tests=len(cells)))
    return Correction(tuple(families), adjusted, discovery)


def readings(row: RowResult, metrics: Sequence[MetricEntry]) -> tuple[dict[str, Values], list[str]]:
    """Values per metric key; why there are none of a metric, and where some are missing."""
    found: dict[str, Values] = {}
    warnings: list[str] = []
    silent: dict[str, list[str]] = {}
    sorted_out: dict[str, dict[str, dict[int, list[Score]]]] = {}
    for metric in metrics:
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
            warnings.append(f"{row.label} has no {metric.key}: {evaluator} reported no finite value of it.")
            continue
        holes = values.values.size - kept.values.size
        if holes:
            warnings.append(
                f"{row.label}: {holes} of {values.values.size} values of {metric.key} are missing or not finite; "
                "the mean is over the others."
            )
        found[metric.key] = values
    for evaluator, names in silent.items():
        warnings.append(f"{row.label} has no {', '.join(names)} of {evaluator}, which gave it no scores.")
    return found, warnings


def aligned(rows: Sequence[Values]) -> list[Values]:
    """All on the examples that any has."""
    if all((row.examples, row.questions) == (rows[0].examples, rows[0].questions) for row in rows):
        return list(rows)
    question = {name: asked for row in rows for name, asked in zip(row.examples, row.questions, strict=True)}
    examples = tuple(sorted(question))
    if examples == rows[0].examples:
        examples = rows[0].examples
    questions = tuple(question[name] for name in examples)
    return [row.on(examples, questions) for row in rows]


def judged_apart(row: RowResult, base: RowResult, rows: Sequence[RowResult], *, mixed: bool) -> tuple[set[str], list[str]]:
    """Evaluators whose scores of two rows come from different judges or versions, and are not compared for that.

    A row that nobody had to be asked about, such as the baseline against itself, goes with any judge. Where the baseline is
    such a row, the judge of most of `rows` stands for its own.

    Args:
        mixed: compare them all the same, and say so.
    """
    found: set[str] = set()
    warnings = []
    for evaluator in (name for name in row.scores if row.scores[name] and base.scores.get(name)):
        held = _yardstick(base, rows, evaluator)
        one, other = judges_of(row, evaluator), judges_of(held, evaluator)
        if one == other or _unasked(row, evaluator):
            continue
        said = f"{row.label} was judged by {_named(one)} and {held.label} by {_named(other)} on {evaluator}"
        if mixed:
            warnings.append(f"{said}; they are compared because judge.allow_mixed_judges is set.")
            continue
        found.add(evaluator)
        warnings.append(f"{said}: they are not compared; set judge.allow_mixed_judges to compare all the same.")
    return found, warnings


def judges_of(row: RowResult, evaluator: str) -> list[str]:
    """The judges of an evaluator's scores as `rows` notes them: models with the versions that their servers reported."""
    judge = row.provenance.judges.get(evaluator)
    return sorted(judge.versions) if judge else []


def _yardstick(base: RowResult, rows: Sequence[RowResult], evaluator: str) -> RowResult:
    """The row whose judges an evaluator's others must have: the baseline, unless nobody was asked about it. Then one with the
    judges of most rows, whatever the rows' order."""
    if not _unasked(base, evaluator):
        return base
    marked = [row for row in rows if row.kind != "published" and row.scores.get(evaluator) and judges_of(row, evaluator)]
    judges = {row.label: tuple(judges_of(row, evaluator)) for row in marked}
    counts = Counter(judges.values())
    return min(marked, key=lambda row: (-counts[judges[row.label]], judges[row.label], row.label), default=base)


def _unasked(row: RowResult, evaluator: str) -> bool:
    """Whether a judge was at hand and nothing had to be asked of it."""
    return evaluator in row.provenance.judges and not judges_of(row, evaluator)


def _named(versions: Sequence[str]) -> str:
    return " and ".join(versions) or "nobody"


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
    provenance: Provenance
    failed: str | None = None
    curves: Mapping[int, Sequence[Mapping[str, float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "provenance", Provenance.read(self.provenance))  # frozen, and any mapping of facts will do


def row_before_statistics(entry: RowEntry, scores: Scores) -> RowResult:
    """The row as it was before its statistics."""
    return RowResult(
        label=entry.method,
        data=entry.data,
        objective=entry.objective,
        rounds=entry.rounds,
        kind=entry.kind,
        scores=scores.get(entry.method, {}),
        costs={seed: Cost() for seed in entry.seeds},
        budget={},
        provenance=entry.provenance,
        failed=entry.failed,
    )
