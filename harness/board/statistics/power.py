"""Power: the smallest difference that a design detects, and the seeds or prompts that a smaller one needs.

The power of the test that the board makes: Student's t with the variance between seeds pooled over rows, at Holm's first step,
together with the row's own t-test at the uncorrected level. Both use the same mean, so they are worked out together: given
the variance estimates the power is a normal probability, and it is averaged over draws of the estimates from their
chi-squared distributions. The draws are fixed, so the same design always has the same power.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import isfinite, sqrt

import numpy as np
from scipy import optimize, special, stats

from harness.board.statistics.correction import OWN_ALPHA
from harness.board.statistics.intervals import quantile
from harness.board.statistics.values import Floats
from harness.board.statistics.variance import Components, Error, Squares, errors

POWER = 0.8
NODES = 100
DRAWS = 4096  # of variance estimates; the Monte Carlo error of a power is below half a point
MOST = 10_000_000  # seeds or questions; beyond that, never


def power(difference: float, error: Error, alpha: float = 0.05) -> float:
    """How often Student's t-test alone finds a true `difference` at this standard error (Cohen 1988)."""
    if error.size == 0.0:
        return 1.0 if difference else alpha
    return _power(abs(difference) / error.size, *_limits(error.freedom, alpha))


def detectable(error: Error, alpha: float = 0.05, target: float = POWER) -> float:
    """The smallest true difference that Student's t-test alone finds with probability `target`."""
    limits, weights = _limits(error.freedom, alpha)
    return error.size * _smallest(lambda shift: _power(shift, limits, weights), target)


def design_power(
    difference: float, parts: Components, seeds: int | None = None, questions: int | None = None, alpha: float = 0.05
) -> float:
    """How often the board's two tests find a true `difference` of two rows.

    Args:
        parts: variances of the difference, with the degrees of freedom of the pooled variance between seeds.
        seeds: in the design; as many as `parts` was estimated from if None. `questions` likewise.
        alpha: two-sided level of the pooled test, 0.05 over the number of tests at Holm's first step.
    """
    size, limits = _design(parts, seeds or parts.seeds, questions or parts.questions, alpha)
    return (1.0 if difference else alpha) if size == 0.0 else _power(abs(difference) / size, limits, EVEN)


def design_detectable(
    parts: Components, seeds: int | None = None, questions: int | None = None, alpha: float = 0.05, target: float = POWER
) -> float:
    """The smallest true difference that the board's two tests find with probability `target`."""
    size, limits = _design(parts, seeds or parts.seeds, questions or parts.questions, alpha)
    return size * _smallest(lambda shift: _power(shift, limits, EVEN), target) if size > 0 else 0.0


@lru_cache(maxsize=64)
def _design(parts: Components, seeds: int, questions: int, alpha: float) -> tuple[float, Floats]:
    """The true standard error, and in its units what a mean has to exceed, [DRAWS]."""
    expected_seed = questions * parts.seed + parts.rest
    expected_question = seeds * parts.question + parts.rest
    if seeds == 1:
        size = sqrt((parts.question + parts.rest) / questions)
        free = float(questions - 1)
        return size, quantile(free, 1.0 - alpha) * np.sqrt(_chi_squared(free, 0))
    size = sqrt((expected_seed + expected_question - parts.rest) / (seeds * questions))
    if size == 0.0:
        return 0.0, np.zeros(DRAWS)
    free_pool, free_own = parts.freedom_per_seed * (seeds - 1), seeds - 1.0
    # The row is one of those that the pool is made of: its own degrees of freedom are a part of the pool's.
    own = expected_seed * _chi_squared(free_own, 0)
    others = max(free_pool - free_own, 0.0)
    shared = (free_own * own + others * expected_seed * _chi_squared(max(others, 1.0), 1)) / (free_own + others)
    rest = parts.rest * _chi_squared((seeds - 1.0) * (questions - 1.0), 2)
    squares = Squares(own, expected_question * _chi_squared(questions - 1.0, 3), rest, np.zeros(DRAWS), seeds, questions)
    pooled = errors(squares, shared / questions, free_own + others, always=True)
    alone = errors(squares)
    limits = np.maximum(
        quantile(pooled.freedom, 1.0 - alpha) * pooled.size, quantile(alone.freedom, 1.0 - OWN_ALPHA) * alone.size
    )
    return size, np.asarray(limits / size)


@lru_cache(maxsize=256)
def _chi_squared(freedom: float, dimension: int) -> Floats:
    """Draws of a mean square with expectation 1, [DRAWS], from a Sobol sequence's dimension."""
    return np.asarray(stats.chi2.ppf(_uniform()[:, dimension], freedom) / freedom)


@lru_cache(maxsize=1)
def _uniform() -> Floats:
    return np.asarray(np.clip(stats.qmc.Sobol(4, seed=0).random(DRAWS), 1e-9, 1.0 - 1e-9))


EVEN = np.full(DRAWS, 1.0 / DRAWS)


def _limits(freedom: float, alpha: float) -> tuple[Floats, Floats]:
    """Student's limit in units of the true standard error, over the quantiles of the estimated one, and their weights.

    So that the noncentral t becomes a weighted sum of normal tails: its own functions fail with few degrees of freedom.
    """
    if not isfinite(freedom):
        return np.array([-special.ndtri(alpha / 2)]), np.ones(1)
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    estimated = np.sqrt(special.chdtri(freedom, (1.0 - nodes) / 2.0) / freedom)
    return -special.stdtrit(freedom, alpha / 2) * estimated, weights / 2.0


def _power(shift: float, limits: Floats, weights: Floats) -> float:
    return float(weights @ (special.ndtr(shift - limits) + special.ndtr(-shift - limits)))


def _smallest(chance: Callable[[float], float], target: float) -> float:
    """The shift whose power is `target`, which more of it never lowers."""
    upper = 4.0
    while chance(upper) < target:
        upper *= 2.0
    return float(optimize.brentq(lambda shift: chance(shift) - target, 0.0, upper, xtol=1e-9))


def questions_needed(
    difference: float, parts: Components, seeds: int | None = None, alpha: float = 0.05, target: float = POWER
) -> int | None:
    """How many questions would show this difference with so many seeds; None where no number of questions would."""
    return _least(lambda count: design_power(difference, parts, seeds, count, alpha) >= target)


def seeds_needed(
    difference: float, parts: Components, questions: int | None = None, alpha: float = 0.05, target: float = POWER
) -> int | None:
    """How many seeds would show this difference on so many questions; None where no number of seeds would.

    From two on: a single seed cannot tell how far seeds lie apart.
    """
    return _least(lambda count: design_power(difference, parts, count, questions, alpha) >= target)


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
