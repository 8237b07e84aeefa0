"""Per-example gradients, their sketch, and λ of a policy whose gradients are known."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from harness.analysis.gradients import response_gradients
from harness.models.logps import TokenRow
from harness_plugins.self_contrast.theorem import Moments, trace

WORDS = 4


class Unigram(torch.nn.Module):
    """Says the next word from one table, whatever came before: ∇ log π(word) is its indicator less the probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.zeros(WORDS))
        self.device = torch.device("cpu")

    def forward(self, input_ids: torch.Tensor, logits_to_keep: int, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=self.table.expand(len(input_ids), logits_to_keep, WORDS))


def test_gradients_of_a_unigram_policy_are_known() -> None:
    rows = [TokenRow((0,), (word,)) for word in range(WORDS)] + [TokenRow((0,), (1, 1))]
    found = response_gradients(Unigram(), rows)  # type: ignore[arg-type]
    expected = [*(np.eye(WORDS) - 1 / WORDS), 2 * (np.eye(WORDS)[1] - 1 / WORDS)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_potential_of_a_policy_with_known_gradients() -> None:
    """Positives are one of 2 words, negatives one of 4, all combinations: σ₁² = 1/2, σ₂² = 3/4, so λ = 0.75 / 1.25."""
    groups = list(itertools.product(range(2), range(4), range(4)))
    rows = [TokenRow((0,), (word,)) for group in groups for word in group]
    found = response_gradients(Unigram(), rows).reshape(len(groups), 3, WORDS)  # type: ignore[arg-type]
    moments = Moments.of(found[:, 0], found[:, 1:], (1, 2))
    spread = moments.spread()
    assert spread.potential == pytest.approx(0.6)
    assert spread.negative / spread.positive == pytest.approx(1.5**0.5)
    assert (spread.rho, spread.tau) == (pytest.approx(0, abs=1e-7), pytest.approx(0, abs=1e-7))
    # One negative: 1/2 + 3/4; the mean of two: 1/2 + 3/8.
    assert moments.error(2) / moments.error(1) == pytest.approx(0.875 / 1.25)
    assert spread.error(2) / spread.pair == pytest.approx(0.7)


def test_shared_gradients_are_seen() -> None:
    """Negatives that are equal and equal to the positive: ρ = τ = 1, and no error."""
    vectors = np.random.default_rng(0).normal(size=(12, 5))
    moments = Moments.of(vectors, np.stack([vectors, vectors], axis=1), (1, 2))
    spread = moments.spread()
    assert (spread.rho, spread.tau) == (pytest.approx(1), pytest.approx(1))
    assert moments.error(2) == pytest.approx(0)


def test_the_trace_is_that_of_the_covariance() -> None:
    vectors = np.random.default_rng(1).normal(size=(9, 4))
    drawn = np.array([0, 3, 3, 5, 8, 1, 1, 1])
    expected = np.trace(np.cov(vectors[drawn], rowvar=False))
    assert trace(vectors @ vectors.T, drawn) == pytest.approx(expected)


def test_one_prompt_drawn_again_and_again_has_no_variance() -> None:
    assert np.isnan(trace(np.eye(3), np.array([1, 1, 1])))


def test_the_sketch_keeps_inner_products(tiny: Any) -> None:
    model, _ = tiny
    random = np.random.default_rng(2)
    rows = [TokenRow((1, 2), tuple(int(word) for word in random.integers(3, 40, size=5))) for _ in range(6)]
    exact = response_gradients(model, rows, size=10**9)
    sketched = response_gradients(model, rows, size=4096)
    assert exact.shape[1] > sketched.shape[1] == 4096
    norms = np.sqrt(np.outer((exact**2).sum(1), (exact**2).sum(1)))
    assert np.abs(exact @ exact.T - sketched @ sketched.T).max() / norms.max() < 0.1


def test_too_few_for_a_variance() -> None:
    with pytest.raises(ValueError, match="1 prompts with 2 negatives each are too few"):
        Moments.of(np.zeros((1, 3)), np.zeros((1, 2, 3)), (1,))
