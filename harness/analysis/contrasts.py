"""Intervals that boards do not need: of weighted sums of rows, and of any statistic of the prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.board.statistics import Interval, Values, interval

Indices = NDArray[np.intp]

DRAWS = 2000


def contrast(rows: Sequence[Values], weights: Sequence[float]) -> Interval:
    """Return the interval of Σ wᵢ · rowᵢ over the prompts that all rows have, seeds paired by position.

    Raises:
        ValueError: the rows have no common prompt, or not equally many seeds.
    """
    shared = sorted(set.intersection(*(set(row.examples) for row in rows)))
    if not shared:
        raise ValueError("the rows have no prompt in common")
    if len({len(row.values) for row in rows}) > 1:
        raise ValueError("the rows have not equally many seeds")
    stacked = np.stack([row.on(shared).values for row in rows])  # [rows, seeds, prompts]
    return interval(Values(tuple(shared), np.tensordot(np.asarray(weights), stacked, axes=1)))


def resampled(
    count: int, statistic: Callable[[Indices], float], *, draws: int = DRAWS, seed: int = 0, reverse: bool = False
) -> Interval:
    """Return the 95 % bootstrap interval of a statistic of `count` prompts. A draw whose statistic is NaN is left out.

    Args:
        statistic: computes the statistic from the indices of the prompts drawn, repetitions included.
        reverse: take the basic interval, 2θ − quantiles, instead of the percentiles: for a statistic that is biased and
            that resampling biases as much again, such as a divergence of histograms.
    """
    rng = np.random.default_rng(seed)
    estimate = float(statistic(np.arange(count)))
    low, high = np.nanquantile([statistic(rng.integers(0, count, size=count)) for _ in range(draws)], [0.025, 0.975])
    low, high = (2 * estimate - high, 2 * estimate - low) if reverse else (low, high)
    return Interval(estimate, float(low), float(high), count)
