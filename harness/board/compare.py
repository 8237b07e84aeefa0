"""Compare rows with the baseline: intervals, differences, families of corrected tests, and the noise floor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

import numpy as np

from harness.api.types import Cost, Score
from harness.board.entries import SIGNIFICANCE_LEVEL, FamilyEntry, Kind, MetricEntry, RowKind, TuningEntry
from harness.board.facts import Provenance
from harness.board.sequential import Decisions, Design, PromptsDesign, decisions
from harness.board.statistics import (
    Bootstrap,
    Bounds,
    Components,
    Difference,
    Floats,
    Interval,
    NoiseFloor,
    Spread,
    Values,
    benjamini_hochberg,
    both,
    by_metric,
    design_detectable,
    detectable,
    equivalence_p,
    holm,
    noise_floor,
    pooled_spreads,
    width_of,
)

Cell = tuple[str, str]  # a row's label and a metric's key


DRAWS, FLIPS, LEVEL = 2000, 9999, 0.95
ROUNDING = 1e-9  # a mean may lie so far beyond a metric's bounds


class Statistics:
    """All statistics of rows against the baseline. `warnings` says which are missing and why.

    Attributes:
        values: row → metric key → its values per seed and example.
        draws: metric key → (rows, their resampled means [draws, rows]), on draws that the rows share.
        intervals: (row, metric key) → its mean and interval.
        differences: (row, metric key) → row minus baseline.
        correction: the tests that are corrected together, and their corrected p-values.
        noise: metric key → the noise floor, where null rows or several seeds of several rows tell of seeds.
        equivalence: (row, metric key) → corrected p-value of practical equality, for metrics with a margin.
        decisions: of the looks at which rows got more seeds or prompts; None where all have the same.
    """

    def __init__(
        self,
        rows: Sequence[RowResult],
        metrics: Sequence[MetricEntry],
        baseline: str,
        *,
        mixed_judges: bool = False,
        design: Design | None = None,
        equivalent_within: Mapping[str, float] | None = None,
    ) -> None:
        self.metrics = metrics
        self.mixed_judges = mixed_judges
        self.rows, self.baseline = rows, baseline
        self.warnings: list[str] = []
        self.values = {row.label: {} if row.failed else self._read(row) for row in rows}
        self.draws: dict[str, tuple[tuple[str, ...], Floats]] = {}
        self.differences: dict[Cell, Difference] = {}
        self._spreads: dict[Cell, Spread | None] = {}  # of a difference at one seed; the baseline's for the noise floor
        self._prompts = design if isinstance(design, PromptsDesign) else None
        self._widths: dict[str, float] = {}  # the largest difference that two values can have, by metric key
        self.intervals: dict[Cell, Interval] = {}
        self._unpaired: dict[str, list[tuple[str, str]]] = {}  # metric key -> rows, and the examples that they share
        self._apart = self._judged_apart_from_baseline()
        self.decisions = self._decisions(design) if design else None
        bootstrap = Bootstrap(DRAWS, FLIPS, LEVEL)
        for metric in metrics:
            self._resample(metric, bootstrap)
        self.warnings += self._warnings_about_examples()
        if self.decisions is not None:
            self._test_at_every_look(self.decisions)
        self.correction = correct(metrics, self.differences)
        self.equivalence = self._equivalence(equivalent_within or {})
        self.noise = self._noise()
        if not self.values[baseline]:
            self.warnings.append(f"The baseline {baseline} has no scores, so there are no differences and no tests.")
        self.warnings += self._warnings_about_other_evaluators()
        self.warnings += self._warnings_about_seeds()

    def _read(self, row: RowResult) -> dict[str, Values]:
        values, warnings = readings(row, self.metrics)
        self.warnings += warnings
        return values

    def _warnings_about_other_evaluators(self) -> Iterator[str]:
        """Yield a warning about imported rows that share no metric with the baseline."""
        base = set(self.values[self.baseline])
        apart = sorted(row.label for row in self.rows if row.is_imported and base.isdisjoint(self.values[row.label]))
        if apart and base:
            yield (
                f"{', '.join(apart)}: measured by other evaluators than the baseline {self.baseline}, so shown with intervals "
                "and not compared with it."
            )

    def _warnings_about_seeds(self) -> Iterator[str]:
        """Yield a warning about rows that are models from elsewhere: nothing is known of other trainings of them."""
        labels = sorted(row.label for row in self.rows if row.is_as_it_is and not row.failed)
        if labels:
            verb, word = ("is a model", "it") if len(labels) == 1 else ("are models", "them")
            yield (
                f"{', '.join(labels)} {verb} from elsewhere, evaluated once: no seeds were sampled for {word}, so intervals "
                "and tests hold for these weights and not for the method that trained them."
            )

    def _judged_apart_from_baseline(self) -> dict[str, set[str]]:
        """Return by row the evaluators on which it is not compared. The baseline and published rows are never compared."""
        base = next(row for row in self.rows if row.label == self.baseline)
        apart = {}
        for row in self.rows:
            if row is not base and not row.is_published:
                apart[row.label], warnings = judged_apart(row, base, self.rows, mixed=self.mixed_judges)
                self.warnings += warnings
        return apart

    def _decisions(self, design: Design) -> Decisions:
        """Return what the looks decide, at the rows that may be compared with the baseline."""
        values = {
            label: {key: table for key, table in by_key.items() if self.is_comparable(label, key)}
            for label, by_key in self.values.items()
        }
        return decisions(design, values, {row.label: row for row in self.rows}, self.metrics, self.baseline)

    def _test_at_every_look(self, decided: Decisions) -> None:
        """Put p-values that hold at any look in the place of those that take the number of seeds as given."""
        for cell, (p, p_own) in decided.p.items():
            if cell in self.differences:
                self.differences[cell] = replace(self.differences[cell], p=p, p_own=p_own)

    def _comparable(self, key: str) -> set[str]:
        return {label for label, apart in self._apart.items() if key.partition("/")[0] not in apart}

    def is_comparable(self, label: str, key: str) -> bool:
        """Return whether a row was marked by the baseline's judges on a metric, or is the baseline."""
        return label == self.baseline or label in self._comparable(key)

    def paired_values(self, label: str, key: str) -> Values:
        """Return a row's values on a metric; of a model from elsewhere under seeds that no training has."""
        values = self.values[label][key]
        return _without_seeds(values) if any(row.is_as_it_is for row in self.rows if row.label == label) else values

    def _resample(self, metric: MetricEntry, bootstrap: Bootstrap) -> None:
        """Compute intervals, and differences where the baseline has the metric. Published means are never resampled."""
        key = metric.key
        labels = [row.label for row in self.rows if key in self.values[row.label] and not row.is_published]
        for row in self.rows:
            if row.is_published and key in self.values[row.label]:
                values = self.values[row.label][key]
                self.intervals[row.label, key] = Interval(float(np.nanmean(values.values)), 0.0, 0.0, len(values.examples))
        if not labels:
            return
        chosen = aligned([self.paired_values(label, key) for label in labels])
        tables = dict(zip(labels, chosen, strict=True))
        bounds = self._bounds(metric, tables)
        self._widths[key] = width_of(bounds)
        self.draws[key] = (tuple(labels), bootstrap.means(list(self.of_all(key, tables).values())))
        for here, cut in self._by_prompts(key, tables):
            intervals = dict(zip(cut, bootstrap.intervals(list(cut.values()), bounds=bounds), strict=True))
            self.intervals |= {(label, key): intervals[label] for label in here}
            if self.baseline in cut:
                self._compare(key, bootstrap, here, cut, bounds)
        if metric.fit == "rows":
            self._anchor(key)

    def _anchor(self, key: str) -> None:
        """Give rows the interval of their difference where the baseline is 0 by construction: the two are one number."""
        if (cell := (self.baseline, key)) in self.intervals:
            self.intervals[cell] = replace(self.intervals[cell], low=0.0, high=0.0)
        for (label, compared), gap in self.differences.items():
            if compared == key:
                self.intervals[label, key] = Interval(gap.mean, gap.low, gap.high, gap.n)

    def _bounds(self, metric: MetricEntry, tables: Mapping[str, Values]) -> Bounds:
        """Return the metric's bounds; none, with a warning, where the mean of a row lies beyond them."""
        if metric.bounds is None:
            return None
        least, largest = (-inf if metric.bounds[0] is None else metric.bounds[0], metric.bounds[1])
        bounds = least, inf if largest is None else largest
        for label, values in tables.items():
            mean = float(np.nanmean(values.values))
            if not bounds[0] - ROUNDING <= mean <= bounds[1] + ROUNDING:
                self.warnings.append(
                    f"{label} has {mean:.4g} on {metric.key}, which its evaluator bounds by {metric.bounds[0]} and "
                    f"{metric.bounds[1]}: intervals of this metric do not keep to these bounds."
                )
                return None
        return bounds

    def _by_prompts(self, key: str, tables: Mapping[str, Values]) -> Iterator[tuple[Collection[str], Mapping[str, Values]]]:
        """Yield the rows with the same prompts, fewest first, and all rows that have these, cut to them.

        Rows tell together what seeds do, and can do so on the same prompts alone. All rows at once where none are added.
        """
        design = self._prompts
        counts = {label: design.count({key: table}) for label, table in tables.items()} if design else {}
        if design is None or 0 in counts.values():  # 0: the metric is not of prompts that are added
            yield tables, tables
            return
        for count in sorted(set(counts.values())):
            asked = design.questions(count)
            cut = {label: _only(table, asked) for label, table in tables.items() if counts[label] >= count}
            yield [label for label in cut if counts[label] == count], cut

    def of_all(self, key: str, tables: Mapping[str, Values]) -> Mapping[str, Values]:
        """Return the tables cut to the prompts that all rows have, so that their means compare."""
        return next(cut for _, cut in self._by_prompts(key, tables))

    def _compare(
        self, key: str, bootstrap: Bootstrap, here: Collection[str], tables: Mapping[str, Values], bounds: Bounds
    ) -> None:
        """Compute the differences from the baseline of rows `here` that may be compared with it."""
        base, comparable = tables[self.baseline], self._comparable(key)
        compared = [label for label in tables if label in comparable]
        gaps = bootstrap.differences([tables[label] for label in compared], base, bounds=bounds)
        alike = [tables[label] for label in (*compared, self.baseline) if tables[label].seeds == base.seeds]
        spread = pooled_spreads(alike)[1]
        self._spreads.setdefault((self.baseline, key), spread)  # of the most rows, where they have different prompts
        for label, gap in zip(compared, gaps, strict=True):
            if label not in here:
                continue
            if isinstance(gap, ValueError):
                self.warnings.append(f"{label} is not compared on {key}: {gap}.")
                continue
            self.differences[label, key], self._spreads[label, key] = gap, spread
            self._warn_about_missing_pairs(label, key, tables[label], base, gap)

    def _warn_about_missing_pairs(self, label: str, key: str, row: Values, base: Values, gap: Difference) -> None:
        row_values, base_values = row.answered(), base.answered()
        examples = max(len(row_values.examples), len(base_values.examples))
        seeds = max(len(row_values.seeds), len(base_values.seeds))
        if gap.n < examples:
            self._unpaired.setdefault(key, []).append((label, f"{gap.n} of {examples}"))
        if 0 < gap.seeds < seeds and self.decisions is None:  # else rows have different numbers of seeds on purpose
            self.warnings.append(f"{label} is compared on {gap.seeds} of {seeds} seeds of {key}: those that both rows have.")

    def _equivalence(self, margins: Mapping[str, float]) -> dict[Cell, float]:
        """Return p-values of two one-sided tests, corrected by Holm over all rows and metrics with a margin.

        Where seeds or prompts were added, each is corrected for the number of looks too: the rule stops on other grounds.
        """
        cells = [cell for cell in self.differences if cell[1] in margins]
        gaps = [(self.differences[cell], cell[1]) for cell in cells]
        p = [self.looks(key) * equivalence_p(gap.centre, gap.interval_error, margins[key]) for gap, key in gaps]
        return dict(zip(cells, holm([min(1.0, value) for value in p]), strict=True))

    def adds_prompts(self, key: str) -> bool:
        """Return whether rows have different prompts of a metric, since more were added where they decide."""
        return self._prompts is not None and self.looks(key) > 1

    def looks(self, key: str) -> int:
        """Return how often a metric was looked at, at most, before rows got more seeds or prompts; 1 where none were added."""
        if self.decisions is None or not any(looked == key for _, looked in self.decisions.p):
            return 1
        return len(self.decisions.design.rule.looks)

    def _warnings_about_examples(self) -> Iterator[str]:
        """Yield a warning about rows that lack examples of metrics, one for all metrics that the same rows lack alike."""
        keys: dict[tuple[tuple[str, str], ...], list[str]] = {}
        for key, unpaired in self._unpaired.items():
            keys.setdefault(tuple(unpaired), []).append(key)
        for rows, listed in keys.items():
            if len(rows) == 1:
                yield f"{rows[0][0]} is compared on {rows[0][1]} examples of {', '.join(listed)}."
            else:
                shared = ", ".join(f"{label} {count}" for label, count in rows)
                yield f"Rows are compared on the examples of {', '.join(listed)} that both have: {shared}."

    def _noise(self) -> dict[str, NoiseFloor]:
        """Return the noise floor of each metric that a change of seeds can move, from null rows and the pooled variance."""
        nulls = {row.label for row in self.rows if row.is_null}
        floors = {}
        for key in {key: None for _, key in self._spreads}:
            spread = self._spreads[self.baseline, key]
            base = self.values[self.baseline][key].answered()
            means = [gap.mean for (label, metric), gap in self.differences.items() if metric == key and label in nulls]
            floor = noise_floor(spread, means, len(base.seeds))
            # beyond rounding: rows that are equal at every seed leave differences in the last digits
            if floor is not None and floor.size > 1e-9 * max(1.0, float(np.nanmax(np.abs(base.values)))):
                most = self._widths[key]
                floors[key] = replace(floor, **{name: min(getattr(floor, name), most) for name in ("size", "low", "high")})
        return floors

    def detectable(self, cell: Cell) -> float | None:
        """Return the smallest true difference that this cell's two tests find four times in five, at Holm's first step.

        None where the metric can take no difference as large.
        """
        parts, alpha = self.components(cell), self.correction.alpha(cell[1])
        if parts is None or parts.questions < 2:
            size = detectable(self.differences[cell].error, alpha)
        else:
            size = design_detectable(parts, alpha=alpha)
        return size if size <= self._widths[cell[1]] else None

    def components(self, cell: Cell) -> Components | None:
        """Return the variances of a difference with the pool's degrees of freedom, which a restless row is tested with too."""
        parts, spread = self.differences[cell].components, self._spreads[cell]
        if parts is None or spread is None or parts.seeds != len(self.values[self.baseline][cell[1]].answered().seeds):
            return parts
        return replace(parts, freedom_per_seed=spread.freedom / (parts.seeds - 1))


@dataclass(frozen=True)
class Correction:
    """The p-values of every tested cell, corrected within its family.

    Attributes:
        adjusted: after Holm, and not below the test with the row's own variance between seeds: below 0.05 where both reject.
        discovery: after Benjamini–Hochberg.
    """

    families: tuple[FamilyEntry, ...]
    adjusted: Mapping[Cell, float]
    discovery: Mapping[Cell, float]

    def alpha(self, key: str) -> float:
        """Return the level of Holm's first step in the family of this metric."""
        return SIGNIFICANCE_LEVEL / max(1, next((family.tests for family in self.families if key in family.metrics), 1))


def correct(metrics: Sequence[MetricEntry], differences: Mapping[Cell, Difference]) -> Correction:
    """Correct the pooled tests' p-values by Holm and by Benjamini–Hochberg; primary metrics are one family, others a second.

    A difference has to pass the test with the row's own variance between seeds too, which needs no correction (`both`).
    """
    families: list[FamilyEntry] = []
    adjusted: dict[Cell, float] = {}
    discovery: dict[Cell, float] = {}
    for name, primary in (("primary metrics", True), ("other metrics", False)):
        keys = tuple(metric.key for metric in metrics if metric.primary == primary)
        cells = [cell for cell in differences if cell[1] in keys]
        p = [differences[cell].p for cell in cells]
        p_own = [differences[cell].p_own for cell in cells]
        adjusted |= dict(zip(cells, both(np.array(p), np.array(p_own)).tolist(), strict=True))
        discovery |= dict(zip(cells, benjamini_hochberg(p), strict=True))
        if cells:
            tested = tuple(key for key in keys if any(key == cell[1] for cell in cells))
            families.append(FamilyEntry(name=name, metrics=tested, tests=len(cells)))
    return Correction(tuple(families), adjusted, discovery)


def readings(row: RowResult, metrics: Sequence[MetricEntry]) -> tuple[dict[str, Values], list[str]]:
    """Return a row's values by metric key, and warnings about values that are missing."""
    values_by_key: dict[str, Values] = {}
    warnings: list[str] = []
    without_scores: dict[str, list[str]] = {}
    unreadable: dict[str, list[str]] = {}
    absent: dict[tuple[str, str], list[str]] = {}
    by_evaluator: dict[str, dict[str, dict[int, list[Score]]]] = {}
    for metric in metrics:
        evaluator, _, name = metric.key.partition("/")
        runs = row.scores.get(evaluator)
        if evaluator not in by_evaluator:
            by_evaluator[evaluator] = by_metric(runs or {})
        values = Values.from_scores(by_evaluator[evaluator].get(name, dict.fromkeys(runs or {}, ())), name)
        kept = values.answered()
        if (row.is_published or row.is_imported) and not kept.examples:
            continue  # another tool reports the metrics it has, and no other is missing
        if not kept.examples and (reason := row.absent(evaluator, name)):
            absent.setdefault((evaluator, reason), []).append(name)
            continue
        if not runs:
            without_scores.setdefault(evaluator, []).append(name)
            continue
        if not kept.examples:
            unreadable.setdefault(evaluator, []).append(name)
            continue
        holes = values.values.size - kept.values.size
        if holes:
            warnings.append(
                f"{row.label}: {holes} of {values.values.size} values of {metric.key} are missing or not finite; "
                "the mean is over the others."
            )
        values_by_key[metric.key] = values
    for evaluator, names in unreadable.items():
        it = "it" if len(names) == 1 else "them"
        warnings.append(f"{row.label} has no {', '.join(names)} of {evaluator}, which reported no finite value of {it}.")
    for (evaluator, reason), names in absent.items():
        warnings.append(f"{row.label} has no {', '.join(names)} of {evaluator}: {reason}.")
    for evaluator, names in without_scores.items():
        warnings.append(f"{row.label} has no {', '.join(names)} of {evaluator}, which gave it no scores.")
    return values_by_key, warnings


def _only(values: Values, questions: Container[str]) -> Values:
    """Return the values of the examples that belong to these questions."""
    return values.on([name for name, asked in zip(values.examples, values.questions, strict=True) if asked in questions])


def _without_seeds(values: Values) -> Values:
    """Return values under seeds that no training has, so that they are paired with other rows by example alone."""
    return replace(values, seeds=tuple(-1 - seed for seed in values.seeds))


def aligned(rows: Sequence[Values]) -> list[Values]:
    """Return the rows' values over the union of their examples; NaN where a row lacks an example."""
    if all((row.examples, row.questions) == (rows[0].examples, rows[0].questions) for row in rows):
        return list(rows)
    question = {name: asked for row in rows for name, asked in zip(row.examples, row.questions, strict=True)}
    examples = tuple(sorted(question))
    if examples == rows[0].examples:
        examples = rows[0].examples
    questions = tuple(question[name] for name in examples)
    return [row.on(examples, questions) for row in rows]


def judged_apart(row: RowResult, base: RowResult, rows: Sequence[RowResult], *, mixed: bool) -> tuple[set[str], list[str]]:
    """Return the evaluators on which a row is not compared because other judges or versions marked it, and warnings.

    A row that needed no judge, such as the baseline against itself, goes with any judge. Where the baseline is such a row, the
    judge of most of `rows` stands for its own.

    Args:
        mixed: compare them all the same, with a warning.
    """
    apart: set[str] = set()
    warnings = []
    for evaluator in (name for name in row.scores if row.scores[name] and base.scores.get(name)):
        reference = _judge_reference(base, rows, evaluator)
        one, other = row.judges(evaluator), reference.judges(evaluator)
        if one == other or row.needed_no_judge(evaluator):
            continue
        sentence = f"{row.label} was judged by {_named(one)} and {reference.label} by {_named(other)} on {evaluator}"
        if mixed:
            warnings.append(f"{sentence}; they are compared because judge.allow_mixed_judges is set.")
            continue
        apart.add(evaluator)
        warnings.append(f"{sentence}: they are not compared; set judge.allow_mixed_judges to compare all the same.")
    return apart, warnings


def _judge_reference(base: RowResult, rows: Sequence[RowResult], evaluator: str) -> RowResult:
    """Return the row whose judges all others must share: the baseline, unless no judge was asked about it.

    Then it is a row with the judges that most rows have, whatever the order of the rows.
    """
    if not base.needed_no_judge(evaluator):
        return base
    marked = [row for row in rows if not row.is_published and row.scores.get(evaluator) and row.judges(evaluator)]
    judges = {row.label: tuple(row.judges(evaluator)) for row in marked}
    counts = Counter(judges.values())
    return min(marked, key=lambda row: (-counts[judges[row.label]], judges[row.label], row.label), default=base)


def _named(versions: Sequence[str]) -> str:
    return " and ".join(versions) or "nobody"


@dataclass(frozen=True)
class RowState:
    """A state that a row's model went through while it was trained.

    Attributes:
        position: share of the row's whole training, every round counted alike; 0 is its start.
        round: counted from 1.
        share: of the round's steps.
        scores: evaluator → seed → scores.
    """

    position: float
    round: int
    share: float
    scores: Mapping[str, Mapping[int, Sequence[Score]]]


@dataclass(frozen=True)
class RowResult(RowKind):
    """The result of one row of the comparison, before any statistics.

    Attributes:
        label: unique in the board.
        scores: evaluator → seed → scores.
        costs: per seed.
        budget: what it really used: prompts, pairs, updates, tokens.
        failed: why there are no scores; None where it ran.
        curves: per seed the training log, one mapping of numbers per logged step.
        states: those that were evaluated while it was trained, in their order.
        without_states: why it has none, where other rows may have some.
        tuning: the search for its settings; None where there was none.
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
    states: Sequence[RowState] = ()
    without_states: str | None = None
    tuning: TuningEntry | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "provenance", Provenance.read(self.provenance))  # frozen, and any mapping of facts will do

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds that it has scores or a cost of."""
        return tuple(sorted({seed for runs in self.scores.values() for seed in runs} | set(self.costs)))

    def judges(self, evaluator: str) -> list[str]:
        """Return the judges of an evaluator's scores: models with the versions that their servers reported."""
        facts = self.provenance.judges.get(evaluator)
        return sorted(facts.versions) if facts else []

    def needed_no_judge(self, evaluator: str) -> bool:
        """Whether the evaluator has a judge and asked it nothing about this row."""
        return evaluator in self.provenance.judges and not self.judges(evaluator)

    def absent(self, evaluator: str, metric: str) -> str | None:
        """Return why the row's model cannot give a metric; None where nothing is noted."""
        notes = self.provenance.notes.get(evaluator, {}).values()
        return next((note.absent[metric] for note in notes if note.absent and metric in note.absent), None)
