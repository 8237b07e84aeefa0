"""Means and differences of many rows on one metric: their intervals and tests, and draws for the order of the rows.

`variance` says what the error of a mean is, `intervals` what follows from it, `differences` what is tested, `draws` what is
resampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

import numpy as np

from harness.board.statistics.differences import Bounds, Difference, Gap, flip_tests, width_of
from harness.board.statistics.draws import Draws
from harness.board.statistics.intervals import Interval, score_interval, t_interval
from harness.board.statistics.values import Floats, Values, shared
from harness.board.statistics.variance import Spread, components, spreads


@dataclass
class Bootstrap:
    """Draws that all rows and metrics on the same examples share.

    Attributes:
        draws: resamples, for the order of the rows.
        flips: random sign flips per test.
        level: of the intervals.
    """

    draws: int = 2000
    flips: int = 9999
    level: float = 0.95
    seed: int = 0
    _drawn: Draws = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._drawn = Draws(self.draws, self.seed)

    def means(self, rows: Sequence[Values]) -> Floats:
        """Resampled means of rows on the same examples, [draws, rows]. NaN where a draw holds none of a row's values."""
        return self._drawn.means(rows)

    def intervals(self, rows: Sequence[Values], drawn: Floats | None = None, bounds: Bounds = None) -> list[Interval]:
        """One interval per row; rows are on the same examples.

        Args:
            bounds: the least and the largest value of the metric, infinite where it has none; 0 and 1 if None and no row has
                another value.

        Raises:
            ValueError: a row has no finite value.
        """
        if any(not np.isfinite(row.values).any() for row in rows):
            raise ValueError("no finite values to average")
        bounds = bounds or bounds_of(rows)
        pooled = {
            seeds: pooled_spreads([row for row in rows if row.seeds == seeds])[0] for seeds in {row.seeds for row in rows}
        }
        intervals = []
        for row in rows:
            kept = row.answered()
            mean = float(np.nanmean(kept.values))
            spread = pooled[row.seeds] if kept.seeds == row.seeds else None
            error = components(kept.values, kept.by_question(), spread, interval=True)[1]
            if bounds is not None and width_of(bounds) < inf:
                low, high = score_interval(mean, error, len(set(kept.questions)), bounds, self.level)
            else:
                low, high = t_interval(mean, error, self.level)
                if bounds is not None:
                    low, high = max(low, bounds[0]), min(high, bounds[1])
            intervals.append(Interval(mean, low, high, len(kept.examples)))
        return intervals

    def differences(
        self,
        rows: Sequence[Values],
        baseline: Values,
        drawn: tuple[Floats, Floats] | None = None,
        bounds: Bounds = None,
    ) -> list[Difference | ValueError]:
        """Each row against the baseline, or why it cannot be compared. Rows are on the baseline's examples.

        Rows with the baseline's seeds tell together how much a change of seeds does to a difference.
        """
        bounds = bounds or bounds_of([*rows, baseline])
        results: dict[int, Difference | ValueError] = {}
        gaps: dict[int, Gap] = {}
        for position, row in enumerate(rows):
            try:
                gaps[position] = Gap.between(row, baseline)
            except ValueError as error:
                results[position] = error
        pooled = pooled_spreads([row for row in (*rows, baseline) if row.seeds == baseline.seeds])[1]
        tests = flip_tests(list(gaps.values()), self.flips, self.seed)
        for (position, gap), p in zip(gaps.items(), tests, strict=True):
            spread = pooled if gap.row.seeds == baseline.seeds else None
            results[position] = gap.difference(p, spread, self.level, bounds)
        return [results[position] for position in range(len(rows))]


def bounds_of(rows: Sequence[Values]) -> Bounds:
    """0 and 1 where the rows have no other values, as proportions do; None otherwise."""
    proportion = all(np.isin(row.values[np.isfinite(row.values)], (0.0, 1.0)).all() for row in rows)
    return (0.0, 1.0) if proportion else None


def interval(values: Values, *, level: float = 0.95, bounds: Bounds = None) -> Interval:
    """The mean of one row and its interval.

    Raises:
        ValueError: no value is finite.
    """
    return Bootstrap(level=level).intervals([values.answered()], bounds=bounds)[0]


def paired(
    values: Values,
    baseline: Values,
    *,
    flips: int = 9999,
    seed: int = 0,
    level: float = 0.95,
    bounds: Bounds = None,
) -> Difference:
    """Row minus baseline on the examples both have, paired by the value of the seed where both have it.

    Raises:
        ValueError: no example has a finite value on both sides.
    """
    row, base, _ = shared(values, baseline)
    difference = Bootstrap(flips=flips, level=level, seed=seed).differences([row], base, bounds=bounds)[0]
    if isinstance(difference, ValueError):
        raise difference
    return difference


def pooled_spreads(rows: Sequence[Values]) -> tuple[Spread | None, Spread | None]:
    """The variances between seeds that rows with the same seeds show together."""
    means = []
    for row in rows:
        present = np.isfinite(row.values)
        counts = present.sum(axis=1)
        totals = np.where(present, row.values, 0.0).sum(axis=1)
        means.append(np.divide(totals, counts, out=np.full(len(counts), np.nan), where=counts > 0))
    return spreads(np.stack(means))
