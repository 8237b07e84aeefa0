"""How large a difference is, and how sure that is. numpy alone; every draw comes from a generator seeded by the caller.

The design is crossed: every seed of a row answers the same prompts. What is sampled is both the seeds and the prompts, so
an interval resamples both (Owen 2007, 'The pigeonhole bootstrap', Annals of Applied Statistics 1(2)); the prompts of one draw
are shared by its seeds, since a hard prompt is hard for all of them. The p-value conditions on the models that were
trained and permutes over prompts alone; how far two trainings of one method lie apart is what a null row shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from harness.types import Score

Floats = NDArray[np.float64]

CELLS_PER_CHUNK = 4_000_000  # random numbers held at once: 32 MB


@dataclass(frozen=True)
class Values:
    """What one row reached on one metric.

    Attributes:
        examples: prompt ids, one per column.
        values: [seeds, examples], the mean over the samples of a prompt; NaN where there is none.
    """

    examples: tuple[str, ...]
    values: Floats

    @classmethod
    def from_scores(cls, per_seed: Mapping[int, Iterable[Score]], metric: str) -> Values:
        """Average the samples of each prompt. Seeds and prompts are sorted; a value that is not finite counts as missing."""
        cells: list[dict[str, list[float]]] = []
        for seed in sorted(per_seed):
            found: dict[str, list[float]] = {}
            for score in per_seed[seed]:
                if score.metric == metric:
                    samples = found.setdefault(score.example, [])
                    if isfinite(score.value):
                        samples.append(score.value)
            cells.append(found)
        examples = tuple(sorted({example for found in cells for example in found}))
        column = {example: position for position, example in enumerate(examples)}
        values = np.full((len(cells), len(examples)), np.nan)
        for row, found in enumerate(cells):
            for example, samples in found.items():
                if samples:
                    values[row, column[example]] = sum(samples) / len(samples)
        return cls(examples, values)

    def only(self, examples: Sequence[str]) -> Values:
        """The same values for these examples, in this order."""
        column = {example: position for position, example in enumerate(self.examples)}
        return Values(tuple(examples), self.values[:, [column[example] for example in examples]])

    def answered(self) -> Values:
        """Without the seeds and the examples that have no value at all."""
        present = np.isfinite(self.values)
        columns = np.flatnonzero(present.any(axis=0))
        names = tuple(self.examples[column] for column in columns)
        return Values(names, self.values[np.flatnonzero(present.any(axis=1))][:, columns])


@dataclass(frozen=True)
class Interval:
    """A mean and its percentile interval; `n` counts the examples with a value."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Difference:
    """Row minus baseline, its percentile interval, a two-sided p-value, and on how many common examples."""

    mean: float
    low: float
    high: float
    p: float
    n: int


def interval(values: Values, *, draws: int = 2000, seed: int = 0, level: float = 0.95) -> Interval:
    """Percentile interval of the mean from the hierarchical bootstrap: seeds, then prompts.

    With S seeds the variance between seeds is estimated by its plug-in, (S − 1)/S of the unbiased one: with one seed the
    interval speaks of that one training only, with two it is still too narrow where seeds differ much.

    Raises:
        ValueError: no value is finite.
    """
    kept = values.answered()
    if not kept.examples:
        raise ValueError("no finite values to average")
    rng = np.random.default_rng(seed)
    means = np.concatenate([_draw_means(kept.values, rng, size) for size in _chunks(draws, len(kept.examples))])
    low, high = _percentiles(means, level)
    return Interval(float(np.nanmean(kept.values)), low, high, len(kept.examples))


def paired(
    values: Values, baseline: Values, *, draws: int = 2000, flips: int = 9999, seed: int = 0, level: float = 0.95
) -> Difference:
    """Row minus baseline on the examples both have.

    Seed i of the row is paired with seed i of the baseline when both have as many, because seeds fix the order of the data;
    otherwise the seeds of the two sides are drawn independently. Prompts are always paired.

    Raises:
        ValueError: no example has a finite value on both sides.
    """
    row, base = _common(values, baseline)
    rng = np.random.default_rng(seed)
    sizes = _chunks(draws, len(row.examples))
    if row.values.shape == base.values.shape:
        gaps = Values(row.examples, row.values - base.values).answered()
        if not gaps.examples:
            raise ValueError("no example has a value on both sides in the same seed")
        means = np.concatenate([_draw_means(gaps.values, rng, size) for size in sizes])
        per_prompt = np.nanmean(gaps.values, axis=0)
        mean = float(np.nanmean(gaps.values))
    else:
        means = np.concatenate([_draw_gaps(row.values, base.values, rng, size) for size in sizes])
        per_prompt = np.nanmean(row.values, axis=0) - np.nanmean(base.values, axis=0)
        mean = float(np.nanmean(row.values) - np.nanmean(base.values))
    low, high = _percentiles(means, level)
    return Difference(mean, low, high, sign_flip(per_prompt, flips=flips, seed=seed), len(per_prompt))


def sign_flip(differences: Floats, *, flips: int = 9999, seed: int = 0) -> float:
    """Two-sided p-value of a mean difference of zero: signs of the paired differences are exchangeable under the null.

    All 2^n flips when there are no more than `flips` of them. Otherwise `flips` random ones and (b + 1) / (flips + 1), so
    that p is never 0 (Phipson & Smyth 2010, 'Permutation p-values should never be zero'). Differences of exactly zero keep
    their value under any flip and are left out of the flipping.

    Args:
        differences: [examples].
    """
    moving = differences[differences != 0]
    if not len(moving):
        return 1.0
    threshold = abs(moving.sum()) - 1e-9 * np.abs(moving).sum()  # ties count, whatever the order of the additions
    if len(moving) < 63 and 2 ** len(moving) <= flips:
        bits = (np.arange(2 ** len(moving))[:, None] >> np.arange(len(moving))) & 1
        return float(np.mean(np.abs((1.0 - 2.0 * bits) @ moving) >= threshold))
    rng = np.random.default_rng(seed)
    total, extreme = moving.sum(), 0
    for size in _chunks(flips, len(moving)):
        flipped = rng.integers(0, 2, size=(size, len(moving)), dtype=np.int8).astype(np.float64)
        extreme += int(np.count_nonzero(np.abs(total - 2.0 * (flipped @ moving)) >= threshold))
    return (extreme + 1) / (flips + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that keep the family-wise error (Holm 1979): the i-th smallest times m − i + 1, made monotone."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return _unsort(np.minimum(stepped, 1.0), order)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that keep the false discovery rate (Benjamini & Hochberg 1995): the i-th smallest times m / i."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = p[order] * len(p) / np.arange(1, len(p) + 1)
    return _unsort(np.minimum(np.minimum.accumulate(stepped[::-1])[::-1], 1.0), order)


def _unsort(adjusted: Floats, order: NDArray[np.intp]) -> list[float]:
    restored = np.empty_like(adjusted)
    restored[order] = adjusted
    return [float(value) for value in restored]


def _common(values: Values, baseline: Values) -> tuple[Values, Values]:
    row, base = values.answered(), baseline.answered()
    shared = sorted(set(row.examples) & set(base.examples))
    if not shared:
        raise ValueError("no example has a value on both sides")
    return row.only(shared), base.only(shared)


def _counts(rng: np.random.Generator, draws: int, size: int) -> Floats:
    """How often each of `size` things is in a resample of as many, [draws, size]."""
    drawn = rng.integers(0, size, size=(draws, size)) + size * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * size).reshape(draws, size).astype(np.float64)


def _weighted(values: Floats, seeds: Floats, prompts: Floats) -> Floats:
    """Mean per draw under resampling counts; missing cells count neither above nor below the line. [draws]."""
    present = np.isfinite(values)
    totals: Floats = ((prompts @ np.where(present, values, 0.0).T) * seeds).sum(axis=1)
    counts: Floats = ((prompts @ present.T.astype(np.float64)) * seeds).sum(axis=1)
    means: Floats = np.full(len(totals), np.nan)
    np.divide(totals, counts, out=means, where=counts > 0)
    return means


def _draw_means(values: Floats, rng: np.random.Generator, draws: int) -> Floats:
    seeds, prompts = _counts(rng, draws, values.shape[0]), _counts(rng, draws, values.shape[1])
    return _weighted(values, seeds, prompts)


def _draw_gaps(row: Floats, base: Floats, rng: np.random.Generator, draws: int) -> Floats:
    prompts = _counts(rng, draws, row.shape[1])
    left, right = _counts(rng, draws, row.shape[0]), _counts(rng, draws, base.shape[0])
    return _weighted(row, left, prompts) - _weighted(base, right, prompts)


def _percentiles(means: Floats, level: float) -> tuple[float, float]:
    tail = (1.0 - level) / 2.0
    low, high = np.nanquantile(means, [tail, 1.0 - tail])
    return float(low), float(high)


def _chunks(draws: int, width: int) -> list[int]:
    """`draws` cut into parts of no more than `CELLS_PER_CHUNK` random numbers each."""
    size = max(1, CELLS_PER_CHUNK // max(1, width))
    return [min(size, draws - start) for start in range(0, draws, size)]
