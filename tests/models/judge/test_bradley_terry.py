"""Strengths on closed forms and on a simulated tournament."""

from __future__ import annotations

import numpy as np
import pytest

from harness.models.judge.bradley_terry import fit


def log_odds(won: float, lost: float) -> float:
    return float(np.log(won / lost))


def test_two_rows_have_the_log_odds_of_their_games() -> None:
    wins = np.array([[0.0, 3.0], [9.0, 0.0]])
    assert fit(wins, 0, prior=0.0) == pytest.approx([0.0, log_odds(9, 3)])
    assert fit(wins, 0) == pytest.approx([0.0, log_odds(9.5, 3.5)])
    assert fit(wins, 1) == pytest.approx([log_odds(3.5, 9.5), 0.0])


def test_a_star_is_as_many_pairs() -> None:
    wins = np.zeros((4, 4))
    wins[1, 0], wins[0, 1] = 6, 2
    wins[2, 0], wins[0, 2] = 1, 7
    wins[3, 0], wins[0, 3] = 8, 0  # always wins, and is finite all the same
    assert fit(wins, 0) == pytest.approx([0, log_odds(6.5, 2.5), log_odds(1.5, 7.5), log_odds(8.5, 0.5)])


def test_a_circle_of_equal_wins_is_a_tie() -> None:
    wins = np.array([[0.0, 2, 1], [1, 0, 2], [2, 1, 0]])
    assert fit(wins, 0) == pytest.approx([0, 0, 0], abs=1e-9)


def test_the_score_equations_hold() -> None:
    rng = np.random.default_rng(0)
    wins = rng.integers(1, 30, (6, 6)).astype(float)
    np.fill_diagonal(wins, 0)
    level = fit(wins, 2, prior=0.0)
    chance = 1 / (1 + np.exp(-(level[:, None] - level[None, :])))
    expected = ((wins + wins.T) * chance).sum(axis=1) - np.diag((wins + wins.T) * chance)
    assert expected == pytest.approx(wins.sum(axis=1))  # each row wins as often as its strength says


def test_a_row_that_met_nobody_has_none() -> None:
    wins = np.zeros((3, 3))
    wins[0, 1] = wins[1, 0] = 2
    assert np.isnan(fit(wins, 0)).tolist() == [False, False, True]


def test_without_another_prior_each_pair_that_met_has_half_a_win_more_on_either_side() -> None:
    wins = np.array([[0.0, 1.0], [5.0, 0.0]])
    assert fit(wins, 0) == pytest.approx([0.0, log_odds(5.5, 1.5)])
    assert fit(wins, 0, prior=1.0) == pytest.approx([0.0, log_odds(6, 2)])


def test_many_tables_are_fitted_at_once() -> None:
    tables = np.random.default_rng(2).integers(0, 9, (3, 2, 4, 4)).astype(float)
    together = fit(tables, 1)
    assert together.shape == (3, 2, 4)
    assert together[2, 1] == pytest.approx(fit(tables[2, 1], 1)) and together[2, 1] != pytest.approx(together[0, 0])
