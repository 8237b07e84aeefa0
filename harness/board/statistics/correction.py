"""Adjusting p-values for how many tests there were."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from harness.board.statistics.values import Floats


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that keep the family-wise error (Holm 1979): the i-th smallest times m − i + 1, made monotone."""
    return [float(p) for p in holm_steps(np.asarray(p_values, dtype=np.float64))]


def holm_steps(p: Floats) -> Floats:
    """`holm` of many families at once, [..., tests]."""
    order = np.argsort(p, axis=-1, kind="stable")
    stepped = np.take_along_axis(p, order, axis=-1) * np.arange(p.shape[-1], 0, -1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(np.maximum.accumulate(stepped, axis=-1), 1.0), axis=-1)
    return adjusted


# The level of the second test of a difference, with the variance of the row's own seeds. A row far more restless than the
# others passes it falsely this often, more where its seeds are skewed, whatever the pool says; the rest is for the others.
OWN_ALPHA, ALPHA = 0.035, 0.05


def both(p: Floats, p_own: Floats) -> Floats:
    """Adjusted p-values of differences that must pass two tests, [..., tests]: below 0.05 where both reject.

    Args:
        p: of the tests whose variance between seeds is pooled over rows; Holm's correction is of these.
        p_own: of the tests with each row's own variance, which need no correction among themselves.
    """
    return np.maximum(holm_steps(p), scaled(p_own))


def scaled(p_own: Floats) -> Floats:
    """p-values that are held to `OWN_ALPHA`, on the scale on which 0.05 is the limit."""
    return np.minimum(1.0, p_own * (ALPHA / OWN_ALPHA))


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that keep the false discovery rate (Benjamini & Hochberg 1995)."""
    p = np.asarray(p_values, dtype=np.float64)
    return [float(value) for value in stats.false_discovery_control(p)] if len(p) else []
