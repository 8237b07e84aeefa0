"""Self-Contrast's Theorem 1: how many negatives beside one positive replace how many pairs. Closed form, simulation, and the
same quantities measured on gradients.

A pair's gradient is p − n, of a positive's part p with standard deviation σ₁ and a negative's part n with σ₂, correlated by ρ
(Assumption 1). The error of l pairs is Var(p − n) / l; that of one positive and the mean of m negatives is, in the proof,

    σ₁² + σ₂² / m − 2ρσ₁σ₂        (Appendix A, before Eq. 11)

which takes the m negatives to be uncorrelated with each other although each is correlated with the positive. Such variables
exist only while m · ρ² ≤ 1. With τ, the correlation of two negatives of one prompt, the error is

    σ₁² + σ₂² · (τ + (1 − τ) / m) − 2ρσ₁σ₂

and if negatives are independent of each other given the positive, τ = ρ².

At the starting model h is 0, so σ(r̂(n) − r̂(p)) is ½ for every pair (Definition 1): p and n are −½β ∇ log π of the two
responses. The common factor −½β changes no ratio and is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness import Interval

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class GradientSpread:
    """The parameters of Assumption 1, and τ.

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
        """Return Var(p − n), the error of one pair."""
        return self.positive**2 + self.negative**2 - 2 * self.positive * self.negative * self.rho

    @property
    def potential(self) -> float:
        """Return λ, the negative exploiting potential (Eq. 8)."""
        return self.negative**2 / self.pair

    def error(self, negatives: int) -> float:
        """Return the error of one positive and the mean of m negatives; below 0 if τ is smaller than ρ allows."""
        shared = self.tau + (1 - self.tau) / negatives
        return self.positive**2 + self.negative**2 * shared - 2 * self.positive * self.negative * self.rho


def negatives_needed(potential: float, pairs: float) -> float:
    """Return the least m whose error is at most that of l pairs, m ≥ λ / (λ + 1/l − 1) (Eq. 12); ∞ for l ≥ 1 / (1 − λ).

    Raises:
        ValueError: λ is not above 0, or l is below 1.
    """
    if potential <= 0 or pairs < 1:
        raise ValueError(f"λ = {potential} should be above 0 and l = {pairs} at least 1")
    room = potential + 1 / pairs - 1
    return potential / room if room > 1e-12 else math.inf


def pairs_limit(potential: float) -> float:
    """Return 1 / (1 − λ), the pairs that no number of negatives is worth more than (Remark 1); ∞ for λ ≥ 1."""
    return 1 / (1 - potential) if potential < 1 else math.inf


def simulate(spread: GradientSpread, negatives: int, draws: int, seed: int) -> Interval:
    """Simulate Var(p − mean of m negatives) of correlated Gaussians; the interval is that of a variance of normal draws.

    If τ is ρ², negatives are drawn independently given the positive; if it is 0, the positive is made from them.

    Raises:
        ValueError: no Gaussians have these correlations (τ = 0 and m · ρ² > 1), or τ is neither 0 nor ρ².
    """
    rng = np.random.default_rng(seed)
    if spread.tau and not math.isclose(spread.tau, spread.rho**2):
        raise ValueError(f"τ = {spread.tau} should be 0 or ρ² = {spread.rho**2:g}")
    p, n = _given_positive(spread, negatives, draws, rng) if spread.tau else _independent(spread, negatives, draws, rng)
    value = float(np.var(p - n.mean(axis=1), ddof=1))
    margin = 1.96 * value * math.sqrt(2 / (draws - 1))  # the standard error of a normal sample's variance is σ² √(2/(n − 1))
    return Interval(value, value - margin, value + margin, draws)


def _given_positive(spread: GradientSpread, negatives: int, draws: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    p = rng.standard_normal(draws)
    independent = rng.standard_normal((draws, negatives))
    n = spread.rho * p[:, None] + math.sqrt(1 - spread.rho**2) * independent
    return spread.positive * p, spread.negative * n


def _independent(spread: GradientSpread, negatives: int, draws: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    remainder = 1 - negatives * spread.rho**2  # the part of the positive's variance that no negative explains
    if remainder < 0:
        raise ValueError(
            f"{negatives} independent negatives cannot all be correlated by ρ = {spread.rho:g} with one positive: m · ρ² > 1"
        )
    n = rng.standard_normal((draws, negatives))
    p = spread.rho * n.sum(axis=1) + math.sqrt(remainder) * rng.standard_normal(draws)
    return spread.positive * p, spread.negative * n


@dataclass(frozen=True)
class Moments:
    """Inner products of gradients between prompts, each [prompts, prompts], summed over the gradient's entries.

    Attributes:
        positive: of the positives with each other.
        negative: of negatives of the same place, the mean over places.
        mixed: of positives with negatives, the mean over places.
        between: of negatives of different places, the mean over pairs of places.
        errors: m -> of p − the mean of the first m negatives.
    """

    positive: Floats
    negative: Floats
    mixed: Floats
    between: Floats
    errors: dict[int, Floats]

    @classmethod
    def of(cls, positives: Floats, negatives: Floats, counts: Sequence[int]) -> Moments:
        """Compute them from gradients, [prompts, size] and [prompts, places, size]; `counts` are the m wanted.

        Raises:
            ValueError: there are fewer than two prompts or two places.
        """
        prompts, places = negatives.shape[:2]
        if prompts < 2 or places < 2:
            raise ValueError(f"{prompts} prompts with {places} negatives each are too few for a variance: 2 and 2 are needed")
        total = negatives.sum(axis=1)
        same = sum((negatives[:, place] @ negatives[:, place].T for place in range(places)), np.zeros((prompts, prompts)))
        errors = {}
        for count in counts:
            gap = positives - negatives[:, :count].mean(axis=1)
            errors[count] = gap @ gap.T
        return cls(
            positives @ positives.T,
            same / places,
            (positives @ total.T + total @ positives.T) / (2 * places),
            (total @ total.T - same) / (places * (places - 1)),
            errors,
        )

    @property
    def prompts(self) -> int:
        return len(self.positive)

    def spread(self, drawn: Indices | None = None) -> GradientSpread:
        """Return Assumption 1's parameters over these prompts: traces of covariances stand for the variances of one number."""
        chosen = np.arange(self.prompts) if drawn is None else drawn
        first, second = trace(self.positive, chosen) ** 0.5, trace(self.negative, chosen) ** 0.5
        return GradientSpread(
            first, second, trace(self.mixed, chosen) / (first * second), trace(self.between, chosen) / second**2
        )

    def error(self, count: int, drawn: Indices | None = None) -> float:
        """Return the measured error of one positive and m negatives: E‖p − n̄ₘ − target‖²."""
        return trace(self.errors[count], np.arange(self.prompts) if drawn is None else drawn)


def trace(products: Floats, drawn: Indices) -> float:
    """Return the unbiased trace of the covariance of the drawn vectors, from inner products; NaN if all are the same one.

    Args:
        products: [prompts, prompts].
        drawn: [n], indices, repetitions allowed.
    """
    count = len(drawn)
    weights = np.bincount(drawn, minlength=len(products)) / count
    if np.count_nonzero(weights) < 2:
        return float("nan")
    spread = weights @ np.diag(products) - weights @ products @ weights
    return float(spread * count / (count - 1))
