"""How large a difference is, in units that do not depend on the metric; and the t-test over seeds that papers report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy import special

from harness.board.statistics.values import Floats


@dataclass(frozen=True)
class Wins:
    """Shares of examples on which a row is above, equal to and below another; they add up to 1."""

    won: float
    tied: float
    lost: float

    @property
    def share(self) -> float:
        """Wins and half of the ties."""
        return self.won + self.tied / 2


def standardised(differences: Floats) -> float | None:
    """Mean over standard deviation of paired differences: Cohen's d_z (Lakens 2013, 'Calculating and reporting effect sizes to
    facilitate cumulative science', Frontiers in Psychology 4:863). None where there is no spread.

    Args:
        differences: [examples], averaged over seeds.
    """
    if len(differences) < 2:
        return None
    spread = float(differences.std(ddof=1))
    return float(differences.mean()) / spread if spread > 1e-12 * float(np.abs(differences).max()) else None


def wins(differences: Floats) -> Wins:
    """Shares of examples with a difference above, at and below 0. [examples]"""
    scale = 1e-9 * max(1.0, float(np.abs(differences).max(initial=0.0)))
    won, lost = float(np.mean(differences > scale)), float(np.mean(differences < -scale))
    return Wins(won, max(0.0, 1.0 - won - lost), lost)


def seeds_t_test(row: Sequence[float], baseline: Sequence[float]) -> float | None:
    """Two-sided p-value of Student's two-sample t-test over the means of seeds, with pooled variance.

    That is the test of Sr-DPO's Table 3 (arXiv:2405.21040): its stars follow from the printed means and deviations of two
    seeds under this test, and not under Welch's. It knows nothing of prompts, and with two seeds nearly nothing. None with
    fewer than two seeds on a side, or without any spread.
    """
    if len(row) < 2 or len(baseline) < 2:
        return None
    left, right = np.asarray(row, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    freedom = len(left) + len(right) - 2
    pooled = (float(((left - left.mean()) ** 2).sum()) + float(((right - right.mean()) ** 2).sum())) / freedom
    error = sqrt(pooled * (1 / len(left) + 1 / len(right)))
    if error <= 1e-12 * max(float(np.abs(left).max()), float(np.abs(right).max())):
        return None
    return float(2.0 * special.stdtr(freedom, -abs(float(left.mean() - right.mean())) / error))
