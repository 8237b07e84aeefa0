"""The Kullback–Leibler divergence of two samples, by histograms with smoothing; its interval and its noise over prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from harness import Interval, resampled

Floats = NDArray[np.float64]

SMOOTHING = 0.5  # added to every bin: Jeffreys' prior, of Krichevsky and Trofimov (1981)
DRAWS = 2000


def kl(counts: Floats, others: Floats, smoothing: float = SMOOTHING) -> float:
    """Return KL(p ‖ q) in nats of two histograms over the same bins, `smoothing` added to every bin of both.

    Finite samples of one distribution have a divergence above 0, about (bins − 1) / 2 · (1/n + 1/m); `Histograms.noise`
    measures it.

    Args:
        counts: [bins], the sample of p.
        others: [bins], the sample of q.
    """
    p = (counts + smoothing) / (counts + smoothing).sum()
    q = (others + smoothing) / (others + smoothing).sum()
    return float((p * np.log(p / q)).sum())


@dataclass(frozen=True)
class Histograms:
    """Histograms of two samples, by prompt.

    Attributes:
        counts: [prompts, bins], the sample whose divergence is wanted.
        others: [prompts, bins], the sample it is held against, of the same prompts.
    """

    counts: Floats
    others: Floats

    @classmethod
    def of(cls, values: Mapping[str, Sequence[float]], others: Mapping[str, Sequence[float]], edges: Floats) -> Histograms:
        """Count both samples between `edges`; a prompt that only one has counts 0 in the other."""
        prompts = sorted({*values, *others})
        left, right = (
            np.stack([np.histogram(sample.get(prompt, ()), edges)[0] for prompt in prompts]).astype(np.float64)
            for sample in (values, others)
        )
        return cls(left, right)

    def divergence(self) -> Interval:
        """Return KL(counts ‖ others), its interval by resampling prompts; not below 0."""
        estimate = resampled(
            len(self.counts), lambda drawn: kl(self.counts[drawn].sum(0), self.others[drawn].sum(0)), reverse=True
        )
        return replace(estimate, low=max(0.0, estimate.low), high=max(estimate.mean, estimate.high))

    def noise(self, *, draws: int = DRAWS, seed: int = 0) -> float:
        """Return the 95 % quantile of the divergence of two samples of one distribution: each prompt's two, swapped or not."""
        rng = np.random.default_rng(seed)
        total = (self.counts + self.others).sum(0)
        divergences = []
        for _ in range(draws):
            swap = rng.integers(0, 2, size=len(self.counts)).astype(bool)[:, None]
            drawn = np.where(swap, self.others, self.counts).sum(0)
            divergences.append(kl(drawn, total - drawn))
        return float(np.quantile(divergences, 0.95))


def growth(first: Histograms, second: Histograms) -> Interval:
    """Return the divergence of `second` less that of `first`, against the same sample of the same prompts.

    Raises:
        ValueError: the two have not the same prompts.
    """
    if len(first.counts) != len(second.counts):
        raise ValueError("the two have not the same prompts")

    def gap(drawn: np.ndarray) -> float:
        return kl(second.counts[drawn].sum(0), second.others[drawn].sum(0)) - kl(
            first.counts[drawn].sum(0), first.others[drawn].sum(0)
        )

    return resampled(len(first.counts), gap, reverse=True)
