"""How stable an order is: who comes first, over bootstrap draws that all rows share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from harness.board.statistics.values import Floats


@dataclass(frozen=True)
class Rank:
    """Share of draws in which a row comes first (ties share it), its mean rank, and the interval of its ranks; 1 is best."""

    first: float
    mean: float
    low: float
    high: float


def rank_stability(means: Floats, *, higher_is_better: bool = True, level: float = 0.95) -> list[Rank]:
    """Ranks over draws (Goldstein & Spiegelhalter 1996, 'League tables and their limitations', JRSS A 159(3)).

    Args:
        means: [draws, rows], resampled jointly; a draw in which a row has no value is left out.
    """
    whole = means[np.isfinite(means).all(axis=1)]
    if not len(whole):
        return []
    ranks = stats.rankdata(-whole if higher_is_better else whole, axis=1, method="average")
    best = ranks == ranks.min(axis=1, keepdims=True)
    first = (best / best.sum(axis=1, keepdims=True)).mean(axis=0)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(ranks, [tail, 1.0 - tail], axis=0, method="inverted_cdf")
    rows = zip(first, ranks.mean(axis=0), low, high, strict=True)
    return [Rank(float(f), float(m), float(a), float(b)) for f, m, a, b in rows]


def win_shares(values: Floats) -> Floats:
    """[rows, rows], the share of examples on which one row is above another, ties half; NaN where two have none in common.

    Args:
        values: [rows, examples], averaged over seeds; NaN where there is none.
    """
    present = np.isfinite(values)
    scale = 1e-9 * max(1.0, float(np.nanmax(np.abs(values), initial=0.0)))
    shares = np.full((len(values), len(values)), np.nan)
    for row in range(len(values)):
        gaps = values[row] - values
        common = present[row] & present
        counts = common.sum(axis=1)
        points = np.where(common, (gaps > scale) + 0.5 * (np.abs(gaps) <= scale), 0.0).sum(axis=1)
        np.divide(points, counts, out=shares[row], where=counts > 0)
    return shares
