"""A row minus the baseline, paired by example and by seed where both have it, with its interval and its tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from harness.board.statistics.intervals import t_interval, two_sided
from harness.board.statistics.permutation import sign_flips
from harness.board.statistics.values import Floats, Values, mean_over_seeds, shared
from harness.board.statistics.variance import Components, Error, Spread, components, unpaired, with_pseudo_questions


@dataclass(frozen=True)
class Difference:
    """Row minus baseline on the examples and seeds that both have.

    Attributes:
        p: two-sided; the larger of the two below, so that both tests must reject. It is what Holm's correction is of.
        p_flips: permutation over questions alone: it takes the trained models as given.
        p_seeds_and_questions: Student's t with the crossed design's standard error, the seeds' variance pooled over rows.
        p_own: the same with the variance of this row's own seeds. A difference is significant only where it is below 0.05
            too, uncorrected: the pool says nothing of a row that is more restless than the others.
        n: common examples.
        seeds: common seeds; 0 where the two sides share none and are compared without pairing them.
        error: the standard error of the difference.
        centre: the estimate that the interval is of, with `interval_error`; of proportions with two pseudo-questions.
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
    p_own: float
    n: int
    seeds: int
    error: Error
    centre: float
    interval_error: Error
    components: Components | None
    per_example: Floats
    row_seeds: tuple[float, ...] = ()
    baseline_seeds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Gap:
    """A row and the baseline on what both have.

    Attributes:
        values: row minus baseline per seed and example; None where they share no seed and are compared without pairing them.
        per_example: [n], the differences averaged over seeds.
    """

    row: Values
    baseline: Values
    values: Values | None
    per_example: Floats

    @classmethod
    def between(cls, row: Values, baseline: Values) -> Gap:
        """Row minus baseline.

        Raises:
            ValueError: why the two cannot be compared.
        """
        left, right, pairs = shared(row, baseline)
        if not pairs:
            return cls(left, right, None, mean_over_seeds(left.values) - mean_over_seeds(right.values))
        values = Values(left.examples, left.values - right.values, left.seeds, left.questions)
        if not np.isfinite(values.values).any():
            raise ValueError("no example has a value on both sides in the same seed")
        return cls(left, right, values, mean_over_seeds(values.values))

    def estimate(self, spread: Spread | None) -> tuple[float, Error, Error]:
        """Return the mean difference, its error for the pooled test, and that with the pair's own variance between seeds."""
        if self.values is None:
            error = unpaired(self.row.values, self.baseline.values, self.row.by_question())
            return float(np.nanmean(self.row.values) - np.nanmean(self.baseline.values)), error, error
        kept = self.values.answered()
        number = kept.by_question()
        pooled, own = components(kept.values, number, spread, always=True)[1], components(kept.values, number)[1]
        return float(np.nanmean(kept.values)), pooled, own

    def difference(self, p_flips: float, spread: Spread | None, level: float, bounds: Bounds = None) -> Difference:
        """The difference with its interval and tests.

        Args:
            spread: the variance between seeds of a difference, pooled over all rows with these seeds.
            bounds: the least and the largest value of the metric, infinite where it has none.
        """
        mean, pooled, own = self.estimate(spread)
        parts: Components | None = None
        error, seeds = pooled, 0
        if self.values is not None:
            kept = self.values.answered()
            parts, error = components(kept.values, kept.by_question(), spread, interval=True)
            seeds = len(kept.seeds)
        # Differences of skewed scores are hardly skewed, and an estimated skewness would only add noise to their interval.
        centre, spacious = self._estimate(mean, Error(error.size, error.freedom), spread, bounds)
        low, high = t_interval(centre, spacious, level)
        if (width := width_of(bounds)) < inf:
            low, high = min(max(low, -width), mean), max(min(high, width), mean)
        # Without any spread nothing is known of seeds, and the permutation test alone decides.
        p_t, p_own = (p_flips if e.size == 0.0 else float(two_sided(mean / e.size, e.freedom)) for e in (pooled, own))
        present = np.isfinite(self.per_example)
        return Difference(
            mean=mean,
            low=low,
            high=high,
            p=max(p_flips, p_t),
            p_flips=p_flips,
            p_seeds_and_questions=p_t,
            p_own=p_own,
            n=int(present.sum()),
            seeds=seeds,
            error=error,
            centre=centre,
            interval_error=spacious,
            components=parts,
            per_example=self.per_example[present],
            row_seeds=_mean_of_seeds(self.row.values),
            baseline_seeds=_mean_of_seeds(self.baseline.values),
        )

    def _estimate(self, mean: float, error: Error, spread: Spread | None, bounds: Bounds) -> tuple[float, Error]:
        """Return the estimate and the error of the interval: as they are, or of proportions with two pseudo-questions."""
        if (width := width_of(bounds)) == inf or self.values is None:
            return mean, error
        gap = self.values.answered().values / width
        if not (np.isfinite(gap).all() and np.isin(gap, (-1.0, 0.0, 1.0)).all()):
            return mean, error
        table = with_pseudo_questions(gap)
        narrower = None if spread is None else Spread(spread.variance / width**2, spread.freedom)
        wide = components(table, None, narrower, interval=True)[1]
        return float(table.mean()) * width, Error(wide.size * width, wide.freedom)


Bounds = tuple[float, float] | None


def width_of(bounds: Bounds) -> float:
    """Return the largest difference that two values can have."""
    return inf if bounds is None else bounds[1] - bounds[0]


def flip_tests(gaps: Sequence[Gap], flips: int, seed: int) -> list[float]:
    """Sign-flip p-values, of rows with equally many questions together; the examples of a question flip as one."""
    p = [1.0] * len(gaps)
    widths: dict[int, list[tuple[int, Floats]]] = {}
    for position, gap in enumerate(gaps):
        each = np.nan_to_num(gap.per_example)
        summed: Floats = np.bincount(gap.row.by_question(), weights=each).astype(np.float64)
        widths.setdefault(len(summed), []).append((position, summed))
    for members in widths.values():
        flipped = sign_flips(np.stack([summed for _, summed in members]), flips=flips, seed=seed)
        for (position, _), value in zip(members, flipped, strict=True):
            p[position] = float(value)
    return p


def _mean_of_seeds(values: Floats) -> tuple[float, ...]:
    """Return the mean of the finite values of each line of [seeds, examples]; lines without any are left out."""
    return tuple(float(line[np.isfinite(line)].mean()) for line in values if np.isfinite(line).any())
