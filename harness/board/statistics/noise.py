"""How large a difference a change of seeds alone makes, and whether two rows are practically equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, sqrt

from scipy import special, stats

from harness.board.statistics.variance import Error, Spread


@dataclass(frozen=True)
class NoiseFloor:
    """A training with other seeds differs from the baseline by less than `size` with probability `probability`.

    Attributes:
        low: the 95 % confidence interval of the `probability` quantile itself, to `high`: how well `size` is known.
        freedom: of the variance that it is computed from.
        nulls: how many null rows it uses.
    """

    size: float
    low: float
    high: float
    probability: float
    freedom: float
    nulls: int


def noise_floor(spread: Spread | None, nulls: Sequence[float], seeds: int, *, probability: float = 0.95) -> NoiseFloor | None:
    """Return what a change of seeds alone makes, as a prediction interval about 0; None where nothing is known of seeds.

    A null row is the baseline trained again, so its difference has mean 0 and its square estimates the same variance as the
    interaction of rows and seeds does. Both are pooled by their degrees of freedom (Hahn & Meeker 1991, 'Statistical
    Intervals', chapter 4), and Student's t makes the statement hold with the stated probability over boards.

    Args:
        spread: the second of `variance.spreads`: of a difference at one seed, pooled over rows.
        nulls: the differences of the null rows' means from the baseline's, over `seeds` seeds each.
    """
    freedom = float(len(nulls)) + (spread.freedom if spread is not None else 0.0)
    if not freedom:
        return None
    squares = sum(difference**2 for difference in nulls)
    squares += spread.freedom * spread.variance / seeds if spread is not None else 0.0
    variance = squares / freedom
    size = float(special.stdtrit(freedom, 0.5 + probability / 2.0)) * sqrt(variance)
    normal = float(special.ndtri(0.5 + probability / 2.0))
    low, high = (normal * sqrt(squares / float(stats.chi2.ppf(level, freedom))) for level in (0.975, 0.025))
    return NoiseFloor(size, low, high, probability, freedom, len(nulls))


def equivalence_p(mean: float, error: Error, margin: float) -> float:
    """p-value of two one-sided tests (Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15(6)).

    Below 0.05 the true difference lies within ± `margin`; the 90 % interval of the difference is then inside.

    Raises:
        ValueError: the margin is not a number above 0.
    """
    if not (isfinite(margin) and margin > 0):
        raise ValueError(f"margin = {margin}: give a number above 0, in the metric's unit")
    distance = margin - abs(mean)
    if error.size == 0.0:
        return 0.0 if distance > 0 else 1.0
    t = distance / error.size
    return float(special.stdtr(error.freedom, -t) if isfinite(error.freedom) else special.ndtr(-t))
