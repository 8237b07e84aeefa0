"""Theorem 1: the closed form on numbers by hand, and against simulation."""

from __future__ import annotations

import math

import pytest

from harness_plugins.self_contrast.theorem import GradientSpread, negatives_needed, pairs_limit, simulate


def test_the_potential_on_numbers_by_hand() -> None:
    spread = GradientSpread(positive=1, negative=2, rho=0.25)
    assert spread.pair == 1 + 4 - 2 * 1 * 2 * 0.25  # 4
    assert spread.potential == 1.0
    assert GradientSpread(1, 2, 0).potential == pytest.approx(0.8)


def test_negatives_needed_on_numbers_by_hand() -> None:
    # λ = 0.8, l = 2: 0.8 / (0.8 + 0.5 − 1) = 8/3; l = 2.5: 0.8 / 0.2 = 4.
    assert negatives_needed(0.8, 2) == pytest.approx(8 / 3)
    assert negatives_needed(0.8, 2.5) == pytest.approx(4)
    assert negatives_needed(0.8, 1) == pytest.approx(1)


@pytest.mark.parametrize("pairs", [5, 6])
def test_no_number_of_negatives_is_worth_the_limit_or_more(pairs: float) -> None:
    assert pairs_limit(0.8) == pytest.approx(5)
    assert negatives_needed(0.8, pairs) == math.inf
    assert math.isfinite(negatives_needed(0.8, 4.99))


def test_a_potential_of_one_or_more_has_no_limit() -> None:
    assert pairs_limit(1.0) == pairs_limit(1.25) == math.inf
    assert math.isfinite(negatives_needed(1.25, 1000))


def test_the_negatives_needed_have_the_error_of_the_pairs() -> None:
    spread = GradientSpread(1, 2, 0)
    assert spread.error(4) == pytest.approx(spread.pair / 2.5)
    assert spread.error(3) > spread.pair / 2.5


@pytest.mark.parametrize(("potential", "pairs"), [(0.0, 2), (-1, 2), (0.5, 0.5)])
def test_bad_input(potential: float, pairs: float) -> None:
    with pytest.raises(ValueError, match="should be above 0 and l"):
        negatives_needed(potential, pairs)


@pytest.mark.parametrize(
    "spread", [GradientSpread(1, 2, 0), GradientSpread(1, 2, 0.2), GradientSpread(2, 1, -0.2), GradientSpread(1, 1, 0.6, 0.36)]
)
@pytest.mark.parametrize("negatives", [1, 4, 16])
def test_the_closed_form_is_what_simulation_gives(spread: GradientSpread, negatives: int) -> None:
    found = simulate(spread, negatives, 60_000, seed=3)
    error = (found.high - found.mean) / 1.96
    assert abs(found.mean - spread.error(negatives)) < 4 * error
    assert error / found.mean < 0.01


def test_negatives_independent_given_the_positive_do_worse_than_the_proof_says() -> None:
    assert GradientSpread(1, 1, 0.6, 0.36).error(16) > 0 > GradientSpread(1, 1, 0.6).error(16)


def test_correlations_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"4 independent negatives cannot all be correlated by ρ = 0\.6"):
        simulate(GradientSpread(1, 1, 0.6), 4, 10, seed=0)
    with pytest.raises(ValueError, match=r"should be 0 or ρ² = 0\.36"):
        simulate(GradientSpread(1, 1, 0.6, 0.5), 4, 10, seed=0)
