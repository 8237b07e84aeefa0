"""Bradley–Terry strengths from paired comparisons (Bradley & Terry 1952, Biometrika 39): P(i beats j) = σ(sᵢ − sⱼ).

Ties count as half a win for each side. Every pair that was compared gets `prior` wins more on each side, so that a row that
always wins has a finite strength (Anscombe 1956: with two rows, s = log((w + ½) / (n − w + ½))).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STEPS, CLOSE = 100, 1e-10


@dataclass(frozen=True)
class Strengths:
    """Strengths of k rows as log-odds against the anchor, whose strength is 0. NaN where a row is not connected with it."""

    mean: Floats
    low: Floats
    high: Floats


def fit(wins: Floats, anchor: int, *, prior: float = 0.5) -> Floats:
    """Return the maximum-likelihood strengths of each table by Newton's method.

    Args:
        wins: [..., k, k], how often the row's side beat the column's.
        anchor: the row whose strength is 0.

    Returns:
        [..., k], log-odds.
    """
    tables = wins.reshape(-1, *wins.shape[-2:])
    size = tables.shape[-1]
    games = tables + tables.transpose(0, 2, 1)
    met = (games.sum(axis=0) > 0) & ~np.eye(size, dtype=bool)
    inside = _connected(met, anchor)
    free = [index for index in range(size) if inside[index] and index != anchor]
    won = tables + prior * met
    games = games + 2 * prior * met
    strengths = np.zeros((len(tables), size))
    strengths[:, ~inside] = np.nan
    for _ in range(STEPS if free else 0):
        level = np.where(inside, strengths, 0.0)
        chance = 1.0 / (1.0 + np.exp(-(level[:, :, None] - level[:, None, :])))
        gradient = np.where(met, won - games * chance, 0.0).sum(axis=2)
        weight = np.where(met, games * chance * (1 - chance), 0.0)
        curvature = np.eye(size) * weight.sum(axis=2)[:, :, None] - weight
        step = np.linalg.solve(curvature[:, free][:, :, free], gradient[:, free][..., None])[..., 0]
        step = np.clip(step, -1.0, 1.0)  # far from the solution Newton's step overshoots
        strengths[:, free] += step
        if np.abs(step).max() < CLOSE:
            break
    return strengths.reshape(wins.shape[:-1])


def bradley_terry(
    wins: Floats, anchor: int, *, draws: int = 1000, seed: int = 0, level: float = 0.95, prior: float = 0.5
) -> Strengths:
    """Return strengths with percentile intervals from a bootstrap over seeds and prompts, as `board.statistics.interval` draws.

    Args:
        wins: [seeds, prompts, k, k]; 0 where a pair did not meet. What is no prompt of its own, such as a later turn of a
            dialogue, counts with its prompt.
    """
    rng = np.random.default_rng(seed)
    seeds, prompts = wins.shape[:2]
    drawn = np.empty((draws, *wins.shape[2:]))
    for index in range(draws):
        of_seeds = np.bincount(rng.integers(0, seeds, seeds), minlength=seeds).astype(np.float64)
        of_prompts = np.bincount(rng.integers(0, prompts, prompts), minlength=prompts).astype(np.float64)
        drawn[index] = np.einsum("s,p,spij->ij", of_seeds, of_prompts, wins, optimize=True)
    tail = (1 - level) / 2
    mean, resampled = fit(wins.sum(axis=(0, 1)), anchor, prior=prior), fit(drawn, anchor, prior=prior)
    return Strengths(mean, np.quantile(resampled, tail, axis=0), np.quantile(resampled, 1 - tail, axis=0))


def _connected(met: NDArray[np.bool_], anchor: int) -> NDArray[np.bool_]:
    """Rows that a chain of comparisons connects with the anchor."""
    inside = np.zeros(len(met), dtype=bool)
    inside[anchor] = True
    for _ in range(len(met)):
        inside |= met[inside].any(axis=0)
    return inside
