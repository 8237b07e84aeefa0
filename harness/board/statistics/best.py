"""The set of rows that may be the best, and simultaneous intervals of ranks.

Multiple comparisons with the best (Hsu 1981, 'Simultaneous confidence intervals for all distances from the "best"', Annals of
Statistics 9(5)): a row may be the best unless another row is significantly better. The hypothesis 'row i is the best' is
rejected by the smallest of its k − 1 one-sided p-values against the others, each of them corrected for how many they are, so
the set holds the true best with the stated probability. Bonferroni's correction costs little beside Dunnett's here, and it
holds for rows whose seeds vary differently.

The same pairwise tests, corrected over all pairs, give every row a set of ranks that holds its true rank with the stated
probability for all rows at once (Klein, Wright & Wieczorek 2020, 'A joint confidence region for an overall ranking of
populations', JRSS C 69(3)).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from harness.board.statistics.correction import both, scaled
from harness.board.statistics.intervals import one_sided
from harness.board.statistics.values import Floats
from harness.board.statistics.variance import errors, mean_squares, pooled


@dataclass(frozen=True)
class Pairs:
    """All differences of rows on one metric; arrays [..., rows, rows] of the row minus the column.

    Attributes:
        difference: of the means.
        p: one-sided p-value that the row is not above the column, with the seeds' variance pooled over rows.
        p_own: the same with the pair's own variance between seeds.
    """

    difference: Floats
    p: Floats
    p_own: Floats


def pairs(tables: Floats) -> Pairs:
    """Compare all rows with each other.

    Args:
        tables: [..., rows, seeds, questions] without holes, higher is better.
    """
    rows, seeds, _ = tables.shape[-3:]
    variance, freedom = pooled(tables.mean(axis=-1))[2:] if seeds > 1 and rows > 1 else (None, inf)
    shape = (*tables.shape[:-3], rows, rows)
    difference, p, p_own = np.zeros(shape), np.ones(shape), np.ones(shape)
    for i in range(rows - 1):
        gap = tables[..., i : i + 1, :, :] - tables[..., i + 1 :, :, :]
        mean, squares = gap.mean(axis=(-2, -1)), mean_squares(gap)
        own = errors(squares)
        shared = own if variance is None else errors(squares, variance[..., None], np.asarray(freedom)[..., None], always=True)
        difference[..., i, i + 1 :], difference[..., i + 1 :, i] = mean, -mean
        for target, error in ((p, shared), (p_own, own)):
            t = np.divide(mean, error.size, out=np.where(mean == 0.0, 0.0, np.copysign(inf, mean)), where=error.size > 0)
            target[..., i, i + 1 :], target[..., i + 1 :, i] = one_sided(t, error.freedom), one_sided(-t, error.freedom)
    return Pairs(difference, p, p_own)


def best_p(compared: Pairs) -> Floats:
    """Return [..., rows] of the p-value of 'this row is the best': below 0.05 it is not among those that may be.

    The p-value of the runner-up is that of the first place: below 0.05 the best row is the best alone.
    """
    rows = compared.p.shape[-1]
    # [..., better, worse]; the pair's own variance is tested on both sides, since either row may be the restless one
    against = np.maximum(compared.p * max(rows - 1, 1), scaled(2.0 * compared.p_own))
    diagonal = np.arange(rows)
    against[..., diagonal, diagonal] = 1.0
    return np.asarray(np.minimum(against.min(axis=-2), 1.0))


def may_be_best(compared: Pairs, alpha: float = 0.05) -> NDArray[np.bool_]:
    """Return [..., rows], whether each row is in the set that holds the true best with probability 1 − `alpha`."""
    return np.asarray(best_p(compared) >= alpha)


def rank_sets(compared: Pairs, alpha: float = 0.05) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the first and the last rank that each row may have, [..., rows] each; 1 is best.

    All true ranks are inside at once with probability 1 − `alpha`. Where several rows are equal, a row's true rank is any
    of the places that they share.
    """
    rows = compared.p.shape[-1]
    above, below = np.triu_indices(rows, 1)
    two_sided = np.minimum(1.0, 2.0 * np.minimum(compared.p[..., above, below], compared.p[..., below, above]))
    own = np.minimum(1.0, 2.0 * np.minimum(compared.p_own[..., above, below], compared.p_own[..., below, above]))
    # A restless row is in k − 1 pairs at once, and passes the test with its own variance in any of them: a third of the level.
    sure = (both(two_sided, np.minimum(1.0, 3.0 * own)) < alpha) & (compared.difference[..., above, below] != 0.0)
    better = np.zeros(compared.p.shape, dtype=bool)
    upwards = compared.difference[..., above, below] > 0
    better[..., above, below], better[..., below, above] = sure & upwards, sure & ~upwards
    return 1 + better.sum(axis=-2), rows - better.sum(axis=-1)
