"""The paired permutation test: under the null the sign of every paired difference is a coin's throw."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from harness.board.statistics.values import Floats

CELLS_PER_CHUNK = 4_000_000
FEW_EXTREME = 100  # with fewer extreme flips than these, counting them is too rough a measure of a small p-value
LATTICE = 240  # denominators tried when looking for the step that all differences are multiples of


def sign_flip(differences: Floats, *, flips: int = 9999, seed: int = 0) -> float:
    """Two-sided p-value of a mean difference of zero. See `sign_flips`.

    Args:
        differences: [questions].
    """
    return float(sign_flips(np.asarray(differences, dtype=np.float64)[None, :], flips=flips, seed=seed)[0])


def sign_flips(differences: Floats, *, flips: int = 9999, seed: int = 0) -> Floats:
    """Two-sided p-values of a mean difference of zero, one per row; the rows share their random signs.

    - All 2^n flips where there are no more than `flips` of them.
    - Otherwise `flips` random ones and (b + 1)/(flips + 1), b the flips at least as extreme, so that p is never 0 (Phipson &
      Smyth 2010, 'Permutation p-values should never be zero', Statistical Applications in Genetics and Molecular Biology 9(1)).
    - Where b < 100, so that the count says little and p cannot fall below 1/(flips + 1), the tail of the permutation
      distribution itself by its saddlepoint approximation (Robinson 1982, 'Saddlepoint approximations for permutation tests
      and confidence intervals', JRSS B 44(1)), held within the 99.9 % Clopper–Pearson interval of the count and above 2^(1−n).

    Differences of exactly zero keep their value under any flip and are left out.

    Args:
        differences: [rows, questions].
    """
    p = np.ones(len(differences))
    moving = (differences != 0).sum(axis=1)
    few = (moving < 63) & (2.0 ** np.minimum(moving, 62) <= flips)
    for row in np.flatnonzero(few & (moving > 0)):
        p[row] = _exact(differences[row][differences[row] != 0])
    drawn = np.flatnonzero(~few)
    if not len(drawn):
        return p
    extreme = _count(differences[drawn], flips, seed)
    p[drawn] = (extreme + 1) / (flips + 1)
    for row, b in zip(drawn, extreme, strict=True):
        if b < FEW_EXTREME:
            low, high = (
                float(stats.beta.ppf(0.0005, b, flips - b + 1)) if b else 0.0,
                float(stats.beta.ppf(0.9995, b + 1, flips - b)),
            )
            approximated = tail(differences[row][differences[row] != 0])
            p[row] = min(max(approximated, low, 2.0 ** (1 - min(int(moving[row]), 1000))), high)
    return p


def tail(moving: Floats) -> float:
    """Two-sided p-value from the tail of Σ ε|d|, by the saddlepoint.

    Lugannani & Rice's formula (1980, Advances in Applied Probability 12(2)).

    Where all differences are multiples of one step (shares, wins), the sum moves by two steps, and the tail starts one step
    earlier: the continuity correction of the normal approximation to the binomial.

    Args:
        moving: [questions], none of them 0.
    """
    if (moving > 0).all() or (moving < 0).all():  # nothing lies further out than this and its mirror image
        return float(2.0 ** (1 - min(len(moving), 1000)))
    scale = float(np.abs(moving).max())
    size = np.abs(moving) / scale
    reached = abs(float(moving.sum())) / scale - _step(np.abs(moving)) / scale
    if reached <= 0:
        return 1.0
    room = float(size.sum()) - reached
    if room <= 1e-12 * size.sum():  # every sign the same: there is no saddlepoint beyond the largest sum
        return float(2.0 ** (1 - min(len(moving), 1000)))

    def slope(t: float) -> float:
        return float(size @ np.tanh(t * size)) - reached

    upper = 1.0
    while slope(upper) < 0 and upper < 1e8:
        upper *= 2.0
    at = float(optimize.brentq(slope, 0.0, upper, xtol=1e-14, rtol=1e-13))
    cumulant = float((np.logaddexp(at * size, -at * size) - np.log(2.0)).sum())
    curvature = float((size * size / np.cosh(np.minimum(at * size, 300.0)) ** 2).sum())
    w = np.sqrt(max(0.0, 2.0 * (at * reached - cumulant)))
    u = at * np.sqrt(curvature)
    if w < 1e-4 or u == 0.0:
        return 1.0
    # log of the normal tail, so that p-values far below 1e-16 keep their digits
    one_sided = np.exp(float(special.log_ndtr(-w))) + np.exp(-w * w / 2.0) / np.sqrt(2.0 * np.pi) * (1.0 / u - 1.0 / w)
    return float(min(1.0, max(2.0 * one_sided, 0.0)))


def _exact(moving: Floats) -> float:
    bits = (np.arange(2 ** len(moving))[:, None] >> np.arange(len(moving))) & 1
    return float(np.mean(np.abs((1.0 - 2.0 * bits) @ moving) >= _threshold(moving[None, :])))


def _threshold(differences: Floats) -> Floats:
    """Ties count, whatever the order of the additions."""
    return np.asarray(np.abs(differences.sum(axis=1)) - 1e-9 * np.abs(differences).sum(axis=1))


def _count(differences: Floats, flips: int, seed: int) -> NDArray[np.int64]:
    """How many random flips give a sum at least as far from 0. [rows]"""
    rng = np.random.default_rng([seed, 3])
    threshold, totals = _threshold(differences), differences.sum(axis=1)
    extreme = np.zeros(len(differences), dtype=np.int64)
    chunk = max(1, CELLS_PER_CHUNK // differences.shape[1])
    for start in range(0, flips, chunk):
        size = min(chunk, flips - start)
        bits = rng.integers(0, 256, size=(size, 4 * -(-differences.shape[1] // 32)), dtype=np.uint8)
        flipped = np.unpackbits(bits, axis=1, count=differences.shape[1]).astype(np.float64)
        extreme += (np.abs(totals - 2.0 * (flipped @ differences.T)) >= threshold).sum(axis=0)
    return extreme


def _step(sizes: Floats) -> float:
    """The largest number that all sizes are whole multiples of; 0 where they are on no such grid."""
    distinct = np.unique(sizes)
    if len(distinct) > LATTICE:
        return 0.0
    for denominator in range(1, LATTICE + 1):
        whole = distinct * denominator
        if np.all(np.abs(whole - whole.round()) < 1e-9 * denominator):
            return float(np.gcd.reduce(whole.round().astype(np.int64))) / denominator
    return 0.0
