"""A row minus the baseline, paired by example and by seed where both have it, with its interval and its tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from harness.board.statistics.intervals import t_interval
from harness.board.statistics.permutation import sign_flips
from harness.board.statistics.values import Floats, Values, mean_over_seeds, shared
from harness.board.statistics.variance import Components, Error, Spread, components, unpaired


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

    def covers(self, row: Values, baseline: Values) -> bool:
        """Whether it is of all seeds and examples of both sides, with nothing missing."""
        gap = self.values
        if gap is None:
            return False
        same = gap.seeds == row.seeds == baseline.seeds and gap.examples == baseline.examples
        return same and bool(np.isfinite(gap.values).all())

    def difference(self, drawn: Floats, p_flips: float, spread: Spread | None, level: float) -> Difference:
        """The difference by its draws; `spread` is what all rows with these seeds tell of them together."""
        parts: Components | None = None
        if self.values is not None:
            kept = self.values.answered()
            parts, error = components(kept.values, kept.by_question(), spread)
            mean, seeds = float(np.nanmean(self.values.values)), len(kept.seeds)
        else:
            error = unpaired(self.row.values, self.baseline.values, self.row.by_question())
            mean, seeds = float(np.nanmean(self.row.values) - np.nanmean(self.baseline.values)), 0
        low, high = t_interval(mean, error, level)
        p_t = p_flips if error.size == 0.0 else two_sided_t(mean, error)  # no spread tells nothing of seeds
        present = np.isfinite(self.per_example)
        return Difference(
            mean=mean,
            low=low,
            high=high,
            p=max(p_flips, p_t),
            p_flips=p_flips,
            p_seeds_and_questions=p_t,
            n=int(present.sum()),
            seeds=seeds,
            error=error,
            components=parts,
            per_example=self.per_example[present],
            row_seeds=_mean_of_seeds(self.row.values),
            baseline_seeds=_mean_of_seeds(self.baseline.values),
        )


def flip_tests(gaps: Sequence[Gap], flips: int, seed: int) -> list[float]:
    """Sign-flip p-values, of rows with equally many questions together; the examples of a question flip as one."""
    p = [1.0] * len(gaps)
    widths: dict[int, list[tuple[int, Floats]]] = {}
    for position, gap in enumerate(gaps):
        each = np.nan_to_num(gap.per_example)
        summed: Floats = np.bincount(gap.row.by_question(), weights=each).astype(np.float64)
        widths.setdefault(len(summed), []).append((position, summed))
    for members in widths.values():
        found = sign_flips(np.stack([summed for _, summed in members]), flips=flips, seed=seed)
        for (position, _), value in zip(members, found, strict=True):
            p[position] = float(value)
    return p


def two_sided_t(mean: float, error: Error) -> float:
    """Two-sided p-value of a mean of zero, given a standard error above 0."""
    t = abs(mean) / error.size
    return float(2.0 * (special.stdtr(error.freedom, -t) if np.isfinite(error.freedom) else special.ndtr(-t)))


def _mean_of_seeds(values: Floats) -> tuple[float, ...]:
    """Of each line of [seeds, examples] the mean of its finite values; lines without any are left out."""
    return tuple(float(line[np.isfinite(line)].mean()) for line in values if np.isfinite(line).any())
