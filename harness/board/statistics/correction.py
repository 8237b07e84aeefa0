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


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that keep the false discovery rate (Benjamini & Hochberg 1995)."""
    p = np.asarray(p_values, dtype=np.float64)
    return [float(value) for value in stats.false_discovery_control(p)] if len(p) else []
