"""Resampled means: each draw takes seeds and questions with replacement, and all rows share it.

What is sampled is both the seeds and the questions, so a draw resamples both (Owen 2007, 'The pigeonhole bootstrap', Annals
of Applied Statistics 1(2)). Rows that share the draws have comparable ranks, and 50 of them are as cheap as one matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from harness.board.statistics.values import Floats, Values

CELLS_PER_CHUNK = 4_000_000  # numbers held at once: 32 MB


@dataclass
class Draws:
    """Draws that all rows and metrics on the same examples share.

    Attributes:
        count: resamples.
    """

    count: int
    seed: int
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

    def _counts(self, row: Values) -> NDArray[np.uint8]:
        """How often each example is in each draw, [draws, examples]; the examples of a question come and go together."""
        key = (*row.examples, "|", *row.questions)
        if key not in self._questions:
            self._questions.clear()  # metrics of one evaluator come one after another, on the same examples
            rng = np.random.default_rng([self.seed, 1])
            numbers = row.by_question()
            size = int(numbers.max()) + 1
            parts = [_resampled(rng, chunk, size) for chunk in _chunks(self.count, size)]
            self._questions[key] = np.concatenate(parts)[:, numbers]
        return self._questions[key]

    def _seed_counts(self, seeds: tuple[int, ...]) -> Floats:
        """How often each seed is in each draw, [draws, seeds]: the same for all rows with these seeds."""
        if seeds not in self._seeds:
            rng = np.random.default_rng([self.seed, 2, *(seed % 2**32 for seed in seeds)])
            self._seeds[seeds] = _resampled(rng, self.count, len(seeds)).astype(np.float64)
        return self._seeds[seeds]

    def _sums(self, counts: NDArray[np.uint8], cells: Floats) -> Floats:
        """Resampled sums, [draws, lines]."""
        parts, start = [], 0
        for size in _chunks(len(counts), counts.shape[1]):
            parts.append(counts[start : start + size].astype(np.float64) @ cells.T)
            start += size
        return np.concatenate(parts)


def _resampled(rng: np.random.Generator, draws: int, size: int) -> NDArray[np.uint8]:
    """How often each of `size` things is in a resample of as many, [draws, size]."""
    drawn = rng.integers(0, size, size=(draws, size)) + size * np.arange(draws)[:, None]
    return np.minimum(np.bincount(drawn.ravel(), minlength=draws * size), 255).astype(np.uint8).reshape(draws, size)


def _chunks(draws: int, width: int) -> list[int]:
    """`draws` cut into parts of no more than `CELLS_PER_CHUNK` numbers each."""
    size = max(1, CELLS_PER_CHUNK // max(1, width))
    return [min(size, draws - start) for start in range(0, draws, size)]
