"""Metrics that are a function of a fit, such as a length-controlled win rate or Bradley–Terry strengths.

The predictions of a fit are no observations: they vary far less than the fit does. So the fit is made again with every
observation left out once, and its pseudo-values take the observations' place (Tukey 1958; Efron & Tibshirani 1993, 'An
Introduction to the Bootstrap', chapter 11; Miller 1974, 'An unbalanced jackknife', Annals of Statistics 2(4)). Their mean is
the fit's own value and their variance that of the fit, so that every interval, test and ranking of means holds for them too:
paired by prompt and by seed, with Student's t for few seeds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import special

from harness.board.statistics.values import Floats

CELLS_PER_CALL = 2_000_000
STEPS, CLOSE = 60, 1e-5  # of Newton's method: what is left after a step is about its square

Fit = Callable[[Floats], Floats]
"""weights [draws, observations] → values [draws, ...]; a weight of 0 leaves an observation out. Vectorised over draws."""


def pseudo_values(fit: Fit, observations: int, value: Floats | float | None = None) -> Floats:
    """Return [observations, ...] of pseudo-values, whose mean is `value`.

    Args:
        fit: weights [draws, observations] → values [draws, ...].
        value: the point estimate [...], if another program computes it; what `fit` gives for equal weights if None.

    Raises:
        ValueError: there is nothing to leave out.
    """
    if observations < 2:
        raise ValueError(f"a fit of {observations} observation has no error: give at least two")
    whole = fit(np.ones((1, observations)))[0]
    size = max(1, CELLS_PER_CALL // observations)
    parts = []
    for start in range(0, observations, size):
        dropped = np.arange(start, min(start + size, observations))
        weights = np.ones((len(dropped), observations))
        weights[np.arange(len(dropped)), dropped] = 0.0
        parts.append(fit(weights))
    influence = (observations - 1) * (whole - np.concatenate(parts))
    # The jackknife's estimate of bias is taken out again: the point estimate stays the fit's own.
    centred = influence - influence.mean(axis=0)
    return np.asarray(centred + (whole if value is None else np.asarray(value, dtype=np.float64)), dtype=np.float64)


def crossed_pseudo_values(fit: Fit, seeds: int, prompts: int) -> Floats:
    """Return [seeds, prompts, ...] of pseudo-values of one fit to all seeds and prompts together.

    Args:
        fit: weights [draws, seeds, prompts] → values [draws, ...].
    """

    def flat(weights: Floats) -> Floats:
        return fit(weights.reshape(-1, seeds, prompts))

    found = pseudo_values(flat, seeds * prompts)
    return found.reshape(seeds, prompts, *found.shape[1:])


def logistic(features: Floats, targets: Floats, weights: Floats, *, penalty: Floats | float = 0.0) -> Floats:
    """Return [draws, features] of the coefficients of weighted logistic regressions without intercept, by Newton's method.

    Args:
        features: [observations, features], shared by all draws.
        targets: [observations], shares from 0 to 1.
        weights: [draws, observations], 0 or above.
        penalty: [features] or one number: the derivative of a penalty that is linear near the solution. For an L1 penalty
            of strength λ give λ times the sign of each coefficient; `inf` holds a coefficient at 0.

    Raises:
        ValueError: a draw has no finite solution, because its targets are separated.
    """
    draws, size = len(weights), features.shape[1]
    slope = np.broadcast_to(np.asarray(penalty, dtype=np.float64), (size,))
    free = np.flatnonzero(np.isfinite(slope))
    moving, slope = features[:, free], slope[free]
    products = (moving[:, :, None] * moving[:, None, :]).reshape(len(moving), -1)
    # Draws differ little from their mean, so its solution is where theirs are looked for.
    chosen = np.zeros((1, len(free)))
    if draws > 1:
        chosen = logistic(moving, targets, weights.mean(axis=0, keepdims=True), penalty=slope)
    for _ in range(STEPS):
        chance = special.expit(chosen @ moving.T)
        if len(chance) == 1:  # the first step, which starts all draws at one place: without a table of draws × observations
            gradient = weights @ ((targets - chance[0])[:, None] * moving) - slope
            curvature = weights @ ((chance * (1.0 - chance))[0, :, None] * products)
        else:
            gradient = (weights * (targets - chance)) @ moving - slope
            curvature = (weights * chance * (1.0 - chance)) @ products
        curvature = curvature.reshape(draws, len(free), len(free)) + 1e-12 * np.eye(len(free))
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        step *= np.minimum(1.0, 2.0 / np.maximum(np.abs(step).max(axis=1, keepdims=True, initial=0.0), 1e-300))
        chosen = chosen + step
        if np.abs(step).max(initial=0.0) < CLOSE:
            coefficients = np.zeros((draws, size))
            coefficients[:, free] = chosen
            return coefficients
    raise ValueError("a logistic regression has no finite solution: its targets are separated; give a larger penalty")
