"""What a comparison could have seen, and what it would take to see more.

The power of the two-sided t-test with the crossed design's standard error (harness.board.statistics.variance), from the
noncentral t distribution (Cohen 1988, 'Statistical Power Analysis for the Behavioral Sciences').
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import isfinite

import numpy as np
from scipy import optimize, special

from harness.board.statistics.values import Floats
from harness.board.statistics.variance import Components, Error

POWER = 0.8
NODES = 100
MOST = 10_000_000  # seeds or questions; beyond that, never


def power(difference: float, error: Error, alpha: float = 0.05) -> float:
    """How often a true `difference` would be found at this standard error."""
    if error.size == 0.0:
        return 1.0 if difference else alpha
    return _power(abs(difference) / error.size, *_limits(error.freedom, alpha))


def detectable(error: Error, alpha: float = 0.05, target: float = POWER) -> float:
    """The smallest true difference that would be found with probability `target`."""
    limits, weights = _limits(error.freedom, alpha)
    upper = 4.0
    while _power(upper, limits, weights) < target:
        upper *= 2.0
    shift = optimize.brentq(lambda shift: _power(shift, limits, weights) - target, 0.0, upper, xtol=1e-9)
    return error.size * float(shift)


def _limits(freedom: float, alpha: float) -> tuple[Floats, Floats]:
    """Student's limit in units of the true standard error, over the quantiles of the estimated one, and their weights.

    So that the noncentral t becomes a weighted sum of normal tails: its own functions fail with few degrees of freedom.
    """
    if not isfinite(freedom):
        return np.array([-special.ndtri(alpha / 2)]), np.ones(1)
    nodes, weights = _quadrature()
    estimated = np.sqrt(special.chdtri(freedom, (1.0 - nodes) / 2.0) / freedom)
    return -special.stdtrit(freedom, alpha / 2) * estimated, weights / 2.0


@cache
def _quadrature() -> tuple[Floats, Floats]:
    """Gauss–Legendre nodes on [-1, 1] and their weights."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return nodes, weights


def _power(shift: float, limits: Floats, weights: Floats) -> float:
    return float(weights @ (special.ndtr(shift - limits) + special.ndtr(-shift - limits)))


def questions_needed(
    difference: float, parts: Components, seeds: int | None = None, alpha: float = 0.05, target: float = POWER
) -> int | None:
    """How many questions would show this difference with so many seeds; None where no number of questions would."""
    return _least(lambda count: power(difference, parts.error(seeds, count), alpha) >= target)


def seeds_needed(
    difference: float, parts: Components, questions: int | None = None, alpha: float = 0.05, target: float = POWER
) -> int | None:
    """How many seeds would show this difference on so many questions; None where no number of seeds would.

    From two on: a single seed cannot tell how far seeds lie apart.
    """
    return _least(lambda count: power(difference, parts.error(count, questions), alpha) >= target)


def _least(enough: Callable[[int], bool]) -> int | None:
    """The smallest whole number from 2 on that is enough; more of it is never less."""
    low, high = 1, 2
    while not enough(high):
        low, high = high, high * 2
        if high > MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
