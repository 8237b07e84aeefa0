"""Intervals from the hierarchical bootstrap: seeds, then questions, which the seeds share.

What is sampled is both the seeds and the questions, so a draw resamples both (Owen 2007, 'The pigeonhole bootstrap', Annals
of Applied Statistics 1(2)). Percentiles of such draws are too narrow with few seeds: the spread between S of them is
estimated (S − 1)/S too small, and no quantile of a normal knows that. So the draws keep their shape and are stretched about
the mean until their spread is the unbiased standard error times Student's t over the normal quantile, as in Hesterberg's
expanded percentile interval (2015, 'What teachers should know about the bootstrap', The American Statistician 69(4)).
All rows of a metric share the draws: that is what makes ranks comparable, and 50 rows as cheap as one matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import special

from harness.statistics.permutation import sign_flips
from harness.statistics.values import Floats, Values, mean_over_seeds, shared
from harness.statistics.variance import Components, Error, Spread, components, spreads, unpaired

CELLS_PER_CHUNK = 4_000_000  # numbers held at once: 32 MB
Gap = tuple[int, Values, Values, Values | None]  # the row's position, both sides, and their difference where seeds are paired


@dataclass(frozen=True)
class Interval:
    """A mean and its interval; `n` counts the examples with a value."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Difference:
    """Row minus baseline on the examples and seeds that both have.

    Attributes:
        p: two-sided; the larger of the two below, so that both tests must reject.
        p_flips: permutation over questions alone: it takes the trained models as given.
        p_seeds_and_questions: Student's t with the standard error of the crossed design.
        n: common examples.
        seeds: common seeds; 0 where the two sides share none and are compared without pairing them.
        error: the standard error of the difference.
        components: of the differences; None where seeds are not paired.
        per_example: [n], the differences averaged over seeds.
        row_seeds: the row's mean of each seed on the common examples; `baseline_seeds` the baseline's.
    """

    mean: float
    low: float
    high: float
    p: float
    p_flips: float
    p_seeds_and_questions: float
    n: int
    seeds: int
    error: Error
    components: Components | None
    per_example: Floats
    row_seeds: tuple[float, ...] = ()
    baseline_seeds: tuple[float, ...] = ()


@dataclass
class Bootstrap:
    """Draws that all rows and metrics on the same examples share.

    Attributes:
        draws: resamples.
        flips: random sign flips per test.
        level: of the intervals.
    """

    draws: int = 2000
    flips: int = 9999
    level: float = 0.95
    seed: int = 0
    _questions: dict[tuple[str, ...], NDArray[np.uint8]] = field(default_factory=dict, repr=False)
    _seeds: dict[tuple[int, ...], Floats] = field(default_factory=dict, repr=False)

    def means(self, rows: Sequence[Values]) -> Floats:
        """Resampled means of rows on the same examples, [draws, rows]. NaN where a draw holds none of a row's values."""
        cells = np.concatenate([row.values for row in rows])
        present = np.isfinite(cells)
        counts = self._counts(rows[0])
        totals = self._sums(counts, np.where(present, cells, 0.0))
        sizes = self._sums(counts, present.astype(np.float64)) if not present.all() else None
        everyone = counts.sum(axis=1, dtype=np.float64)
        columns, start = [], 0
        for row in rows:
            lines = slice(start, start + len(row.seeds))
            start += len(row.seeds)
            weights = self._seed_counts(row.seeds)
            above = (totals[:, lines] * weights).sum(axis=1)
            below = everyone * len(row.seeds) if sizes is None else (sizes[:, lines] * weights).sum(axis=1)
            columns.append(np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0))
        return np.stack(columns, axis=1)

    def intervals(self, rows: Sequence[Values], drawn: Floats | None = None) -> list[Interval]:
        """One interval per row; rows are on the same examples. `drawn` is their `means` where those are there already.

        Raises:
            ValueError: a row has no finite value.
        """
        if any(not np.isfinite(row.values).any() for row in rows):
            raise ValueError("no finite values to average")
        drawn, found = self.means(rows) if drawn is None else drawn, []
        kinds = {row.seeds for row in rows}
        pooled = {seeds: _spreads([row for row in rows if row.seeds == seeds])[0] for seeds in kinds}
        for position, row in enumerate(rows):
            kept = row.answered()
            mean = float(np.nanmean(kept.values))
            spread = pooled[row.seeds] if kept.seeds == row.seeds else None
            low, high = self._stretched(drawn[:, position], mean, components(kept.values, kept.by_question(), spread)[1])
            low, high = max(low, float(np.nanmin(kept.values))), min(high, float(np.nanmax(kept.values)))
            found.append(Interval(mean, low, high, len(kept.examples)))
        return found

    def differences(
        self, rows: Sequence[Values], baseline: Values, drawn: tuple[Floats, Floats] | None = None
    ) -> list[Difference | ValueError]:
        """Each row against the baseline, or why it cannot be compared. Rows are on the baseline's examples.

        Rows with the baseline's seeds tell together how much a change of seeds does to a difference. `drawn` is the `means` of
        rows and baseline where those are there already: where nothing is missing, draws of a difference are their difference.
        """
        found: list[Difference | ValueError] = []
        gaps: list[Gap] = []
        for position, row in enumerate(rows):
            try:
                left, right, paired_ = shared(row, baseline)
            except ValueError as error:
                found.append(error)
                continue
            gap = Values(left.examples, left.values - right.values, left.seeds, left.questions) if paired_ else None
            if gap is not None and not np.isfinite(gap.values).any():
                found.append(ValueError("no example has a value on both sides in the same seed"))
                continue
            gaps.append((position, left, right, gap))
            found.append(ValueError())  # replaced below
        spread = _spreads([row for row in (*rows, baseline) if row.seeds == baseline.seeds])[1]
        resampled = self._drawn(gaps, rows, baseline, drawn)
        for position, difference in zip(
            (item[0] for item in gaps), self._compared(gaps, resampled, spread, baseline), strict=True
        ):
            found[position] = difference
        return found

    def _drawn(
        self, gaps: Sequence[Gap], rows: Sequence[Values], baseline: Values, drawn: tuple[Floats, Floats] | None
    ) -> list[Floats]:
        """The resampled differences, [draws] each."""
        examples, questions = baseline.examples, baseline.questions
        found: dict[int, Floats] = {}
        whole = drawn is not None and bool(np.isfinite(baseline.values).all())
        left_over: list[tuple[int, Values]] = []
        for position, left, right, gap in gaps:
            if gap is None:
                sides = [side.on(examples, questions) for side in (left, right)]
                found[position] = np.subtract(*self.means(sides).T)
            elif gap.values.size and np.ptp(gap.values) == 0:  # so that rounding makes no spread where there is none
                found[position] = np.full(self.draws, gap.values.flat[0])
            elif whole and drawn is not None and _covers(gap, rows[position], baseline):
                found[position] = drawn[0][:, position] - drawn[1]
            else:
                left_over.append((position, gap.on(examples, questions)))
        if left_over:
            together = self.means([gap for _, gap in left_over]).T
            found |= {position: draws for (position, _), draws in zip(left_over, together, strict=True)}
        return [found[position] for position, *_ in gaps]

    def _compared(
        self, gaps: Sequence[Gap], drawn: Sequence[Floats], spread: Spread | None, baseline: Values
    ) -> list[Difference]:
        per_example = [
            mean_over_seeds(left.values) - mean_over_seeds(right.values) if gap is None else mean_over_seeds(gap.values)
            for _, left, right, gap in gaps
        ]
        flips = self._flips(gaps, per_example)
        found = []
        for (_, left, right, gap), draws, each, p in zip(gaps, drawn, per_example, flips, strict=True):
            numbers = left.by_question()
            if gap is not None:
                kept = gap.answered()
                pooled = spread if gap.seeds == baseline.seeds else None
                parts, error = components(kept.values, kept.by_question(), pooled)
                mean = float(np.nanmean(gap.values))
            else:
                parts, error = None, unpaired(left.values, right.values, numbers)
                mean = float(np.nanmean(left.values) - np.nanmean(right.values))
            low, high = self._stretched(draws, mean, error)
            t = p if error.size == 0.0 else two_sided_t(mean, error)  # no spread tells nothing of seeds
            n = int(np.isfinite(each).sum())
            seeds = len(gap.answered().seeds) if gap is not None else 0
            sides = (mean_of_seeds(left.values), mean_of_seeds(right.values))
            found.append(Difference(mean, low, high, max(p, t), p, t, n, seeds, error, parts, each[np.isfinite(each)], *sides))
        return found

    def _flips(self, gaps: Sequence[Gap], per_example: Sequence[Floats]) -> list[float]:
        """Sign-flip p-values, of rows with equally many questions together; the examples of a question flip as one."""
        p = [1.0] * len(gaps)
        widths: dict[int, list[tuple[int, Floats]]] = {}
        for position, ((_, left, _, _), each) in enumerate(zip(gaps, per_example, strict=True)):
            summed: Floats = np.bincount(left.by_question(), weights=np.nan_to_num(each)).astype(np.float64)
            widths.setdefault(len(summed), []).append((position, summed))
        for members in widths.values():
            found = sign_flips(np.stack([summed for _, summed in members]), flips=self.flips, seed=self.seed)
            for (position, _), value in zip(members, found, strict=True):
                p[position] = float(value)
        return p

    def _stretched(self, drawn: Floats, mean: float, error: Error) -> tuple[float, float]:
        """Percentiles of the draws, stretched about the mean to the spread that the standard error and its freedom ask for."""
        tail = (1.0 - self.level) / 2.0
        spread = float(np.nanstd(drawn))
        if spread <= 1e-12 * max(1.0, abs(mean)):
            return mean, mean
        quantile = (
            float(special.stdtrit(error.freedom, 1.0 - tail)) if np.isfinite(error.freedom) else special.ndtri(1.0 - tail)
        )
        factor = error.size / spread * float(quantile) / float(special.ndtri(1.0 - tail))
        low, high = np.nanquantile(drawn - mean, [tail, 1.0 - tail]) * factor + mean
        return float(low), float(high)

    def _counts(self, row: Values) -> NDArray[np.uint8]:
        """How often each example is in each draw, [draws, examples]; the examples of a question come and go together."""
        key = (*row.examples, "|", *row.questions)
        if key not in self._questions:
            self._questions.clear()  # metrics of one evaluator come one after another, on the same examples
            rng = np.random.default_rng([self.seed, 1])
            numbers = row.by_question()
            size = int(numbers.max()) + 1
            parts = [_resampled(rng, chunk, size) for chunk in _chunks(self.draws, size)]
            self._questions[key] = np.concatenate(parts)[:, numbers]
        return self._questions[key]

    def _seed_counts(self, seeds: tuple[int, ...]) -> Floats:
        """How often each seed is in each draw, [draws, seeds]: the same for all rows with these seeds."""
        if seeds not in self._seeds:
            rng = np.random.default_rng([self.seed, 2, *(seed % 2**32 for seed in seeds)])
            self._seeds[seeds] = _resampled(rng, self.draws, len(seeds)).astype(np.float64)
        return self._seeds[seeds]

    def _sums(self, counts: NDArray[np.uint8], cells: Floats) -> Floats:
        """Resampled sums, [draws, lines]."""
        parts, start = [], 0
        for size in _chunks(len(counts), counts.shape[1]):
            parts.append(counts[start : start + size].astype(np.float64) @ cells.T)
            start += size
        return np.concatenate(parts)


def two_sided_t(mean: float, error: Error) -> float:
    """Two-sided p-value of a mean of zero, given a standard error above 0."""
    t = abs(mean) / error.size
    return float(2.0 * (special.stdtr(error.freedom, -t) if np.isfinite(error.freedom) else special.ndtr(-t)))


def interval(values: Values, *, draws: int = 2000, seed: int = 0, level: float = 0.95) -> Interval:
    """The mean of one row and its interval.

    Raises:
        ValueError: no value is finite.
    """
    return Bootstrap(draws, level=level, seed=seed).intervals([values.answered()])[0]


def paired(
    values: Values, baseline: Values, *, draws: int = 2000, flips: int = 9999, seed: int = 0, level: float = 0.95
) -> Difference:
    """Row minus baseline on the examples both have, paired by the value of the seed where both have it.

    Raises:
        ValueError: no example has a finite value on both sides.
    """
    row, base, _ = shared(values, baseline)
    found = Bootstrap(draws, flips, level, seed).differences([row], base)[0]
    if isinstance(found, ValueError):
        raise found
    return found


def _spreads(rows: Sequence[Values]) -> tuple[Spread | None, Spread | None]:
    """What rows with the same seeds say of seeds."""
    means = []
    for row in rows:
        present = np.isfinite(row.values)
        counts = present.sum(axis=1)
        totals = np.where(present, row.values, 0.0).sum(axis=1)
        means.append(np.divide(totals, counts, out=np.full(len(counts), np.nan), where=counts > 0))
    return spreads(np.stack(means))


def mean_of_seeds(values: Floats) -> tuple[float, ...]:
    """Of each line of [seeds, examples] the mean of its finite values; lines without any are left out."""
    return tuple(float(line[np.isfinite(line)].mean()) for line in values if np.isfinite(line).any())


def _covers(gap: Values, row: Values, baseline: Values) -> bool:
    """Whether the difference is of all seeds and examples of both sides, with nothing missing."""
    same = gap.seeds == row.seeds == baseline.seeds and gap.examples == baseline.examples
    return same and bool(np.isfinite(gap.values).all())


def _resampled(rng: np.random.Generator, draws: int, size: int) -> NDArray[np.uint8]:
    """How often each of `size` things is in a resample of as many, [draws, size]."""
    drawn = rng.integers(0, size, size=(draws, size)) + size * np.arange(draws)[:, None]
    return np.minimum(np.bincount(drawn.ravel(), minlength=draws * size), 255).astype(np.uint8).reshape(draws, size)


def _chunks(draws: int, width: int) -> list[int]:
    """`draws` cut into parts of no more than `CELLS_PER_CHUNK` numbers each."""
    size = max(1, CELLS_PER_CHUNK // max(1, width))
    return [min(size, draws - start) for start in range(0, draws, size)]
