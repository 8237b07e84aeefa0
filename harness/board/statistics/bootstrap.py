"""Intervals and tests from the hierarchical bootstrap: seeds, then questions, which the seeds share.

`draws` says what is resampled, `intervals` why percentiles are stretched, `differences` what is tested.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.board.statistics.differences import Difference, Gap, flip_tests
from harness.board.statistics.draws import Draws
from harness.board.statistics.intervals import Interval, t_interval
from harness.board.statistics.values import Floats, Values, shared
from harness.board.statistics.variance import Spread, components, spreads


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
    _drawn: Draws = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._drawn = Draws(self.draws, self.seed)

    def means(self, rows: Sequence[Values]) -> Floats:
        """Resampled means of rows on the same examples, [draws, rows]. NaN where a draw holds none of a row's values."""
        return self._drawn.means(rows)

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
            error = components(kept.values, kept.by_question(), spread)[1]
            low, high = t_interval(mean, error, self.level)
            found.append(Interval(mean, low, high, len(kept.examples)))
        return found

    def differences(
        self, rows: Sequence[Values], baseline: Values, drawn: tuple[Floats, Floats] | None = None
    ) -> list[Difference | ValueError]:
        """Each row against the baseline, or why it cannot be compared. Rows are on the baseline's examples.

        Rows with the baseline's seeds tell together how much a change of seeds does to a difference. `drawn` is the `means` of
        rows and baseline where those are there already: where nothing is missing, draws of a difference are their difference.
        """
        found: dict[int, Difference | ValueError] = {}
        gaps: dict[int, Gap] = {}
        for position, row in enumerate(rows):
            try:
                gaps[position] = Gap.between(row, baseline)
            except ValueError as error:
                found[position] = error
        pooled = _spreads([row for row in (*rows, baseline) if row.seeds == baseline.seeds])[1]
        resampled = self._resampled(gaps, rows, baseline, drawn)
        tests = flip_tests(list(gaps.values()), self.flips, self.seed)
        for (position, gap), p in zip(gaps.items(), tests, strict=True):
            spread = pooled if gap.row.seeds == baseline.seeds else None
            found[position] = gap.difference(resampled[position], p, spread, self.level)
        return [found[position] for position in range(len(rows))]

    def _resampled(
        self, gaps: Mapping[int, Gap], rows: Sequence[Values], baseline: Values, drawn: tuple[Floats, Floats] | None
    ) -> dict[int, Floats]:
        """The draws of each difference, [draws]."""
        examples, questions = baseline.examples, baseline.questions
        found: dict[int, Floats] = {}
        left_over: dict[int, Values] = {}
        whole = bool(np.isfinite(baseline.values).all())
        for position, gap in gaps.items():
            if gap.values is None:
                sides = [side.on(examples, questions) for side in (gap.row, gap.baseline)]
                found[position] = np.subtract(*self.means(sides).T)
            elif gap.values.values.size and np.ptp(gap.values.values) == 0:  # so that rounding makes no spread of none
                found[position] = np.full(self.draws, gap.values.values.flat[0])
            elif whole and drawn is not None and gap.covers(rows[position], baseline):
                found[position] = drawn[0][:, position] - drawn[1]
            else:
                left_over[position] = gap.values.on(examples, questions)
        if left_over:
            found |= dict(zip(left_over, self.means(list(left_over.values())).T, strict=True))
        return found


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
