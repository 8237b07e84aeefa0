"""Whether two evaluators say the same: over rows (do they order the methods alike), and over examples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from harness.board.statistics.values import Floats


@dataclass(frozen=True)
class Agreement:
    """Between two metrics.

    Attributes:
        kendall: τ-b over rows (Kendall 1945, 'The treatment of ties in ranking problems', Biometrika 33(3)).
        spearman: ρ over rows.
        rows: how many have both.
        per_example: Spearman's ρ over examples, averaged over rows; None where no row has both metrics on the same examples.
        examples: that both metrics have.
    """

    kendall: float
    spearman: float
    rows: int
    per_example: float | None
    examples: int


def agree(left: Floats, right: Floats) -> tuple[float, float] | None:
    """Kendall's τ-b and Spearman's ρ; None with fewer than three rows, or where one side is constant. [rows] each."""
    if len(left) < 3 or np.ptp(left) == 0 or np.ptp(right) == 0:
        return None
    return float(stats.kendalltau(left, right).statistic), float(stats.spearmanr(left, right).statistic)


def ranked(values: Floats) -> Floats:
    """Ranks of each row, centred and of length 1, so that products are Spearman's ρ; 0 for a constant. [rows, examples]"""
    ranks = stats.rankdata(values, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    length = np.sqrt((ranks * ranks).sum(axis=1, keepdims=True))
    return np.asarray(np.divide(ranks, length, out=np.zeros_like(ranks), where=length > 0))


def per_example(left: Floats, right: Floats) -> float | None:
    """Spearman's ρ between two metrics over examples, averaged over rows. Both [rows, examples] from `ranked`."""
    moving = left.any(axis=1) & right.any(axis=1)
    return float(np.einsum("ij,ij->i", left, right)[moving].mean()) if moving.any() else None
