"""Self-Contrast's Theorem 1: how many negatives beside one positive replace how many pairs. Closed form and simulation.

A pair's gradient is p − n, of a positive's part p with standard deviation σ₁ and a negative's part n with σ₂, correlated by ρ
(Assumption 1). The error of l pairs is Var(p − n) / l; that of one positive and the mean of m negatives is, in the proof,

    σ₁² + σ₂² / m − 2ρσ₁σ₂        (Appendix A, before Eq. 11)

which takes the m negatives to be uncorrelated with each other although each is correlated with the positive. Such variables
exist only while m · ρ² ≤ 1. With τ, the correlation of two negatives of one prompt, the error is

    σ₁² + σ₂² · (τ + (1 − τ) / m) − 2ρσ₁σ₂

and if negatives are independent of each other given the positive, τ = ρ².
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from harness.analysis.bootstrap import Floats
from harness.statistics import Interval


@dataclass(frozen=True)
class Spread:
    """Assumption 1, and τ.

    Attributes:
        positive: σ₁, above 0.
        negative: σ₂, above 0.
        rho: correlation of a positive's and a negative's gradient.
        tau: correlation of the gradients of two negatives of one prompt; the proof's is 0.
    """

    positive: float
    negative: float
    rho: float
    tau: float = 0.0

    @property
    def pair(self) -> float:
        """Var(p − n), the error of one pair."""
        return self.positive**2 + self.negative**2 - 2 * self.positive * self.negative * self.rho

    @property
    def potential(self) -> float:
        """λ, the negative exploiting potential (Eq. 8)."""
        return self.negative**2 / self.pair

    def error(self, negatives: int) -> float:
        """The error of one positive and the mean of m negatives; below 0 where τ is smaller than ρ allows."""
        shared = self.tau + (1 - self.tau) / negatives
        return self.positive**2 + self.negative**2 * shared - 2 * self.positive * self.negative * self.rho


def negatives_needed(potential: float, pairs: float) -> float:
    """The least m whose error is at most that of l pairs, m ≥ λ / (λ + 1/l − 1) (Eq. 12); infinite for l ≥ 1 / (1 − λ).

    Raises:
        ValueError: λ is not above 0, or l is below 1.
    """
    if potential <= 0 or pairs < 1:
        raise ValueError(f"λ = {potential} should be above 0 and l = {pairs} at least 1")
    room = potential + 1 / pairs - 1
    return potential / room if room > 1e-12 else math.inf


def pairs_limit(potential: float) -> float:
    """1 / (1 − λ), how many pairs no number of negatives is worth more than (Remark 1); infinite for λ ≥ 1."""
    return 1 / (1 - potential) if potential < 1 else math.inf


def simulate(spread: Spread, negatives: int, draws: int, seed: int) -> Interval:
    """Var(p − mean of m negatives) of correlated Gaussians; its interval is that of a variance of normal draws.

    Where τ is ρ², negatives are drawn independently given the positive; where it is 0, the positive is made from them.

    Raises:
        ValueError: no Gaussians have these correlations (τ = 0 and m · ρ² > 1), or τ is neither 0 nor ρ².
    """
    rng = np.random.default_rng(seed)
    if spread.tau and not math.isclose(spread.tau, spread.rho**2):
        raise ValueError(f"τ = {spread.tau} should be 0 or ρ² = {spread.rho**2:g}")
    p, n = _given_positive(spread, negatives, draws, rng) if spread.tau else _independent(spread, negatives, draws, rng)
    value = float(np.var(p - n.mean(axis=1), ddof=1))
    room = 1.96 * value * math.sqrt(2 / (draws - 1))
    return Interval(value, value - room, value + room, draws)


def _given_positive(spread: Spread, negatives: int, draws: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    p = rng.standard_normal(draws)
    own = rng.standard_normal((draws, negatives))
    n = spread.rho * p[:, None] + math.sqrt(1 - spread.rho**2) * own
    return spread.positive * p, spread.negative * n


def _independent(spread: Spread, negatives: int, draws: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    left = 1 - negatives * spread.rho**2
    if left < 0:
        raise ValueError(
            f"{negatives} independent negatives cannot all be correlated by ρ = {spread.rho:g} with one positive: m · ρ² > 1"
        )
    n = rng.standard_normal((draws, negatives))
    p = spread.rho * n.sum(axis=1) + math.sqrt(left) * rng.standard_normal(draws)
    return spread.positive * p, spread.negative * n
