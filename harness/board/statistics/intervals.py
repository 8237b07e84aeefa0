"""Intervals of an estimate from its standard error, degrees of freedom and skewness, inside what the metric can take.

Three methods, chosen by simulation (docs/statistics.md):

- Student's t after Hall's transformation, which takes the estimate's skewness out (Hall 1992, 'On the removal of skewness by
  transformation', JRSS B 54(1)). Without skewness it is Student's t.
- For a mean of values between two bounds, Wilson's score interval (1927, JASA 22(158)) with the effective number of
  observations that the design gives, as surveys do (Korn & Graubard 1998, Survey Methodology 24(2)): 0 of 6 is not ±0.
- For a difference of two proportions, two pseudo-questions are added, one won and one lost (Bonett & Price 2012,
  'Adjusted Wald confidence interval for a difference of binomial proportions based on paired data', JEBS 37(4)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from harness.board.statistics.values import Floats
from harness.board.statistics.variance import Error

MOST_SKEW = 1.0  # of an estimate; with a larger one the cubic transformation is no better than none


@dataclass(frozen=True)
class Interval:
    """A mean and its interval; `n` counts the examples with a value."""

    mean: float
    low: float
    high: float
    n: int


def quantile(freedom: Floats | float, level: float) -> Floats:
    """Student's two-sided quantile; the normal's where the freedom is infinite."""
    upper = 0.5 + level / 2.0
    free = np.asarray(freedom, dtype=np.float64)
    finite = np.isfinite(free)
    return np.asarray(np.where(finite, special.stdtrit(np.where(finite, free, 1.0), upper), special.ndtri(upper)))


def two_sided(t: Floats | float, freedom: Floats | float) -> Floats:
    """Two-sided p-values of Student's t; the normal's where the freedom is infinite."""
    free = np.asarray(freedom, dtype=np.float64)
    size, finite = -np.abs(t), np.isfinite(free)
    return np.asarray(2.0 * np.where(finite, special.stdtr(np.where(finite, free, 1.0), size), special.ndtr(size)))


def unskewed(t: Floats, skew: Floats | float) -> Floats:
    """Hall's cubic transformation of a t-statistic, T + λT²/3 + λ²T³/27 + λ/6, with the skewness λ of the estimate."""
    bent = np.clip(skew, -MOST_SKEW, MOST_SKEW)
    return np.asarray(t + bent * t**2 / 3.0 + bent**2 * t**3 / 27.0 + bent / 6.0)


def t_intervals(
    means: Floats, size: Floats, freedom: Floats, skew: Floats | float = 0.0, level: float = 0.95
) -> tuple[Floats, Floats]:
    """Bounds of means by Student's t after Hall's transformation; arrays of one shape."""
    limit = quantile(freedom, level)
    bent = np.clip(skew, -MOST_SKEW, MOST_SKEW) + np.zeros_like(limit)
    straight = np.abs(bent) < 1e-6
    safe = np.where(straight, 1.0, bent)

    def inverse(x: Floats) -> Floats:
        return np.where(straight, x, 3.0 / safe * (np.cbrt(1.0 + safe * (x - safe / 6.0)) - 1.0))

    return means - size * inverse(limit), means - size * inverse(-limit)


def score_intervals(
    means: Floats, size: Floats, freedom: Floats, questions: float, level: float = 0.95
) -> tuple[Floats, Floats]:
    """Wilson bounds of means of values between 0 and 1, with Student's quantile.

    Args:
        questions: independent observations where all values are equal, so that nothing is known about how they vary.
    """
    variance = means * (1.0 - means)
    effective = np.divide(variance, size**2, out=np.full_like(means, float(questions)), where=size > 0)
    effective = np.where(variance > 0, effective, float(questions))
    limit = quantile(freedom, level) ** 2 / effective
    centre = (means + limit / 2.0) / (1.0 + limit)
    half = np.sqrt(limit * variance + limit**2 / 4.0) / (1.0 + limit)
    return np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0)


def t_interval(mean: float, error: Error, level: float = 0.95) -> tuple[float, float]:
    """`t_intervals` of one mean."""
    low, high = t_intervals(np.array(mean), np.array(error.size), np.array(error.freedom), error.skew, level)
    return float(low), float(high)


def one_sided(t: Floats, freedom: Floats | float) -> Floats:
    """One-sided p-values of Student's t, small where it is large; the normal's where the freedom is infinite."""
    free = np.asarray(freedom, dtype=np.float64)
    finite = np.isfinite(free)
    return np.asarray(np.where(finite, special.stdtr(np.where(finite, free, 1.0), -t), special.ndtr(-t)))


def score_interval(
    mean: float, error: Error, questions: int, bounds: tuple[float, float], level: float = 0.95
) -> tuple[float, float]:
    """`score_intervals` of one mean of values between two bounds.

    Where all values are one inside the bounds, two pseudo-questions say how they may vary, one at either bound.
    """
    least, width = bounds[0], bounds[1] - bounds[0]
    place, size = float(np.clip((mean - least) / width, 0.0, 1.0)), error.size / width
    if size == 0.0 and 0.0 < place < 1.0:
        size = float(np.sqrt((place**2 + (1.0 - place) ** 2) / ((questions + 2) * (questions + 1))))
        error = Error(size, questions + 1)
    low, high = score_intervals(np.array(place), np.array(size), np.array(error.freedom), questions, level)
    return min(least + width * float(low), mean), max(least + width * float(high), mean)
