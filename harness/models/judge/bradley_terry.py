"""Bradley–Terry strengths from paired comparisons (Bradley & Terry 1952, Biometrika 39): P(i beats j) = σ(sᵢ − sⱼ).

Ties count as half a win for each side. Every pair that was compared gets `prior` wins more on each side, so that a row that
always wins has a finite strength (Anscombe 1956: with two rows, s = log((w + ½) / (n − w + ½))).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STEPS, CLOSE = 100, 1e-10


def fit(wins: Floats, anchor: int, *, prior: float = 0.5) -> Floats:
    """Return the maximum-likelihood strengths of each table by Newton's method.

    Args:
        wins: [..., k, k], how often the row's side beat the column's.
        anchor: the row whose strength is 0.

    Returns:
        [..., k], log-odds; NaN where a row is not connected with the anchor.
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


def _connected(met: NDArray[np.bool_], anchor: int) -> NDArray[np.bool_]:
    """Rows that a chain of comparisons connects with the anchor."""
    inside = np.zeros(len(met), dtype=bool)
    inside[anchor] = True
    for _ in range(len(met)):
        inside |= met[inside].any(axis=0)
    return inside
