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

from collections.abc import Sequence
from dataclasses import dataclass
from math import copysign, inf

import numpy as np
from numpy.typing import NDArray

from harness.board.statistics.bootstrap import pooled_spreads
from harness.board.statistics.correction import both, scaled
from harness.board.statistics.differences import Gap
from harness.board.statistics.intervals import one_sided
from harness.board.statistics.values import Floats, Values
from harness.board.statistics.variance import Error, errors, mean_squares, pooled


@dataclass(frozen=True)
class Pairs:
    """Tests of all pairs of rows on one metric; arrays [..., rows, rows] of the row against the column.

    Attributes:
        p: one-sided p-value that the row is not above the column, with the seeds' variance pooled over rows.
        p_own: the same with the pair's own variance between seeds.
    """

    p: Floats
    p_own: Floats


def compare_all(rows: Sequence[Values]) -> Pairs:
    """Compare all rows with each other, paired by example and by the value of the seed where both have it.

    Args:
        rows: higher is better; they may lack seeds and examples. Two rows without a common example exclude neither.
    """
    first = rows[0]
    alike = all((row.examples, row.questions, row.seeds) == (first.examples, first.questions, first.seeds) for row in rows)
    if alike and first.questions == first.examples and all(np.isfinite(row.values).all() for row in rows):
        return pairs(np.stack([row.values for row in rows]))
    p, p_own = np.ones((len(rows), len(rows))), np.ones((len(rows), len(rows)))
    of_seeds = {row.seeds: pooled_spreads([other for other in rows if other.seeds == row.seeds])[1] for row in rows}
    for i, row in enumerate(rows):
        for j, other in enumerate(rows[:i]):
            try:
                gap = Gap.between(row, other)
            except ValueError:
                continue
            spread = of_seeds[row.seeds] if row.seeds == other.seeds else None
            mean, shared, own = gap.estimate(spread)
            for target, error in ((p, shared), (p_own, own)):
                t = _t(mean, error)
                target[i, j], target[j, i] = one_sided(t, error.freedom), one_sided(-t, error.freedom)
    return Pairs(p, p_own)


def difference_of_means(row: Values, other: Values) -> float:
    """Return row minus other on the examples and seeds that both have; of their own means where they share no example."""
    try:
        return Gap.between(row, other).estimate(None)[0]
    except ValueError:
        return float(np.nanmean(row.values) - np.nanmean(other.values))


def _t(mean: float, error: Error) -> Floats:
    """Return Student's t; infinite where there is a difference and no spread."""
    return np.asarray(mean / error.size if error.size > 0 else copysign(inf, mean) if mean else 0.0)


def pairs(tables: Floats) -> Pairs:
    """Compare all rows with each other.

    Args:
        tables: [..., rows, seeds, questions] without holes, higher is better.
    """
    rows, seeds, _ = tables.shape[-3:]
    variance, freedom = pooled(tables.mean(axis=-1))[2:] if seeds > 1 and rows > 1 else (None, inf)
    shape = (*tables.shape[:-3], rows, rows)
    p, p_own = np.ones(shape), np.ones(shape)
    for i in range(rows - 1):
        gap = tables[..., i : i + 1, :, :] - tables[..., i + 1 :, :, :]
        mean, squares = gap.mean(axis=(-2, -1)), mean_squares(gap)
        own = errors(squares)
        shared = own if variance is None else errors(squares, variance[..., None], np.asarray(freedom)[..., None], always=True)
        for target, error in ((p, shared), (p_own, own)):
            t = np.divide(mean, error.size, out=np.where(mean == 0.0, 0.0, np.copysign(inf, mean)), where=error.size > 0)
            target[..., i, i + 1 :], target[..., i + 1 :, i] = one_sided(t, error.freedom), one_sided(-t, error.freedom)
    return Pairs(p, p_own)


def best_p(compared: Pairs, competing: NDArray[np.bool_] | None = None) -> Floats:
    """Return [..., rows] of the p-value of 'this row is the best': below 0.05 it is not among those that may be.

    The p-value of the runner-up is that of the first place: below 0.05 the best row is the best alone.

    Args:
        competing: [rows], those that can be the best; the others exclude nobody, and their p-value is 0. All if None.
    """
    rows = compared.p.shape[-1]
    rivals = rows if competing is None else int(competing.sum())
    # [..., better, worse]; the pair's own variance is tested on both sides, since either row may be the restless one
    against = np.maximum(compared.p * max(rivals - 1, 1), scaled(2.0 * compared.p_own))
    diagonal = np.arange(rows)
    against[..., diagonal, diagonal] = 1.0
    if competing is not None:
        against[..., ~competing, :] = 1.0
    smallest = np.minimum(against.min(axis=-2), 1.0)
    return np.asarray(smallest if competing is None else np.where(competing, smallest, 0.0))


def may_be_best(compared: Pairs, alpha: float = 0.05, competing: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Return [..., rows], whether each row is in the set that holds the true best with probability 1 − `alpha`."""
    return np.asarray(best_p(compared, competing) >= alpha)


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
    sure = both(two_sided, np.minimum(1.0, 3.0 * own)) < alpha
    better = np.zeros(compared.p.shape, dtype=bool)
    upwards = compared.p[..., above, below] < compared.p[..., below, above]
    better[..., above, below], better[..., below, above] = sure & upwards, sure & ~upwards
    return 1 + better.sum(axis=-2), rows - better.sum(axis=-1)
