"""Rows against the baseline: intervals, differences, families of tests, and the noise floor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from harness.board.entries import MetricEntry
from harness.board.families import Cell, correct
from harness.board.judges import judged_apart
from harness.board.readings import aligned, readings
from harness.board.result import RowResult
from harness.board.statistics import Bootstrap, Difference, Floats, Interval, Values

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
