"""An interval about a mean: the percentiles of its draws, stretched.

Percentiles of draws are too narrow with few seeds: the spread between S of them is estimated (S − 1)/S too small, and no
quantile of a normal knows that. So the draws keep their shape and are stretched about the mean until their spread is the
unbiased standard error times Student's t over the normal quantile, as in Hesterberg's expanded percentile interval (2015,
'What teachers should know about the bootstrap', The American Statistician 69(4)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from harness.board.statistics.values import Floats
from harness.board.statistics.variance import Error


@dataclass(frozen=True)
class Interval:
    """A mean and its interval; `n` counts the examples with a value."""

    mean: float
    low: float
    high: float
    n: int


def stretched(drawn: Floats, mean: float, error: Error, level: float) -> tuple[float, float]:
    """Percentiles of the draws, stretched about the mean to the spread that the standard error and its freedom ask for."""
    tail = (1.0 - level) / 2.0
    spread = float(np.nanstd(drawn))
    if spread <= 1e-12 * max(1.0, abs(mean)):
        return mean, mean
    quantile = float(special.stdtrit(error.freedom, 1.0 - tail)) if np.isfinite(error.freedom) else special.ndtri(1.0 - tail)
    factor = error.size / spread * float(quantile) / float(special.ndtri(1.0 - tail))
    low, high = np.nanquantile(drawn - mean, [tail, 1.0 - tail]) * factor + mean
    return float(low), float(high)
