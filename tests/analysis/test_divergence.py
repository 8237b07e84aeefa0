"""The divergence of samples whose distributions are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness_plugins.self_contrast.divergence import Histograms, growth, kl


def by_prompt(values: np.ndarray) -> dict[str, list[float]]:
    return {str(index): [float(value)] for index, value in enumerate(values)}


def test_equal_histograms_do_not_diverge() -> None:
    assert kl(np.array([3.0, 5.0]), np.array([3.0, 5.0])) == 0


def test_two_coins_by_hand() -> None:
    found = kl(np.array([70.0, 30.0]), np.array([50.0, 50.0]), smoothing=0)
    assert found == pytest.approx(0.7 * math.log(1.4) + 0.3 * math.log(0.6))


def test_an_empty_bin_is_smoothed() -> None:
    # (9.5, 0.5) / 10 against (0.5, 9.5) / 10
    found = kl(np.array([9.0, 0.0]), np.array([0.0, 9.0]))
    assert found == pytest.approx(0.9 * math.log(19))


def test_two_normals() -> None:
    random = np.random.default_rng(0)
    edges = np.linspace(-6, 7, 61)
    first, second = (np.histogram(random.normal(mean, 1, 400_000), edges)[0].astype(float) for mean in (0.5, 0))
    assert kl(first, second) == pytest.approx(0.125, abs=0.004)  # half the squared distance of the means


def test_samples_of_one_distribution_stay_within_the_noise_and_others_do_not() -> None:
    random = np.random.default_rng(1)
    edges = np.linspace(-5, 7, 21)
    reference, same, other = (by_prompt(random.normal(mean, 1, 300)) for mean in (0, 0, 1))
    near, far = (Histograms.of(sample, reference, edges) for sample in (same, other))
    assert near.divergence().mean <= near.noise(draws=400)
    assert near.divergence().low == 0
    assert far.divergence().low > far.noise(draws=400)
    assert growth(near, far).low > 0
    assert growth(far, near).high < 0


def test_a_prompt_that_one_side_lacks_counts_nothing_there() -> None:
    found = Histograms.of({"a": [0.5]}, {"b": [1.5, 1.6]}, np.array([0.0, 1.0, 2.0]))
    assert found.counts.tolist() == [[1, 0], [0, 0]]
    assert found.others.tolist() == [[0, 0], [0, 2]]


def test_growth_needs_the_same_prompts() -> None:
    edges = np.array([0.0, 1.0])
    one, two = Histograms.of({"a": [0.5]}, {}, edges), Histograms.of({"a": [0.5], "b": [0.5]}, {}, edges)
    with pytest.raises(ValueError, match="not the same prompts"):
        growth(one, two)
