"""Inference: restless rows, proportions, fits, the best row, the noise floor, seeds added where they decide."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import special, stats

from harness.board.statistics import (
    Components,
    Error,
    Rule,
    State,
    Values,
    best_p,
    both,
    components,
    crossed_pseudo_values,
    decide,
    design_detectable,
    design_power,
    equivalence_p,
    holm,
    interval,
    logistic,
    may_be_best,
    noise_floor,
    paired,
    pairs,
    pseudo_values,
    rank_sets,
    repeatability,
)
from harness.board.statistics.correction import holm_steps
from harness.board.statistics.intervals import score_intervals, t_intervals, unskewed
from harness.board.statistics.sequential import levels, repeated
from harness.board.statistics.variance import Spread, errors, mean_squares, pooled, spreads, without_holes
from harness.models.judge.bradley_terry import fit as bradley_terry


def calibration() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "calibration.py"
    spec = importlib.util.spec_from_file_location("calibration", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def table(values: np.ndarray) -> Values:
    return Values(tuple(f"e{column:04d}" for column in range(values.shape[1])), np.asarray(values, dtype=float))


# One error model


def test_many_tables_have_the_errors_of_each() -> None:
    rng = np.random.default_rng(1)
    tables = rng.normal(size=(4, 3, 50)) + rng.normal(size=(4, 3, 1))
    together = errors(mean_squares(tables), 0.3, 16.0)
    for number, cells in enumerate(tables):
        error = components(cells, spread=Spread(0.3, 16.0))[1]
        assert (together.size[number], together.freedom[number]) == pytest.approx((error.size, error.freedom))
        assert together.skew[number] == pytest.approx(error.skew)


def test_the_pooled_variance_is_that_of_an_analysis_of_variance() -> None:
    means = np.array([[1.0, 2.0, 4.0], [2.0, 2.0, 2.0], [0.0, 3.0, 3.0]])
    residual = means - means.mean(axis=1, keepdims=True) - means.mean(axis=0) + means.mean()
    inside, _, apart, freedom = pooled(means)
    assert (float(apart), float(freedom)) == pytest.approx((2 * (residual**2).sum() / 4, 4.0))
    assert float(inside) == pytest.approx(means.var(axis=1, ddof=1).mean())
    assert spreads(means)[1] == Spread(float(apart), 4.0)


def test_a_table_with_holes_filled_has_the_mean_and_the_error_of_what_is_there() -> None:
    values = np.random.default_rng(15).normal(3.0, 1.0, (3, 40))
    values[0, :5] = np.nan
    filled = without_holes(values)
    assert filled.mean() == pytest.approx(np.nanmean(values))
    assert components(filled)[1].size == pytest.approx(components(values)[1].size)
    whole = values[1:]
    np.testing.assert_allclose(without_holes(whole), whole)


def test_a_restless_row_is_tested_with_its_own_variance_too() -> None:
    rng = np.random.default_rng(2)
    calm, wild = rng.normal(0.5, 0.001, (3, 1)), np.array([[0.0], [3.0], [6.0]])
    noise = rng.normal(0, 0.01, (3, 80))
    pool = Spread(0.0001, 20.0)
    for seeds, restless in ((calm, False), (wild, True)):
        shared = components(seeds + noise, spread=pool, always=True)[1]
        chosen = components(seeds + noise, spread=pool)[1]
        assert (chosen.size > 10 * shared.size) == restless
        assert (chosen.freedom < 3) == restless


def test_two_seeds_that_lie_close_together_by_chance_do_not_narrow_the_interval() -> None:
    """The half width is Howe's √(t₁²·v₁ + t₂²·v₂), whatever share of the variance the seeds seem to have."""
    rng = np.random.default_rng(3)
    for apart in (0.02, 0.2, 2.0):
        squares = mean_squares(np.array([[0.0], [apart]]) + rng.normal(0, 1, (1, 40)) + rng.normal(0, 0.1, (2, 40)))
        test, wide = errors(squares), errors(squares, interval=True)
        seed = max(squares.seed, squares.rest) / 80
        question = wide.size**2 - seed
        quantiles = stats.t.isf(0.025, [1, 39])
        assert wide.size == test.size and wide.freedom <= test.freedom
        limit = wide.size * stats.t.isf(0.025, wide.freedom)
        howe = np.sqrt(quantiles[0] ** 2 * seed + quantiles[1] ** 2 * question)
        assert limit == pytest.approx(max(howe, wide.size * stats.t.isf(0.025, test.freedom)), rel=1e-6)
    pooled_too = errors(squares, 0.001, 16.0, always=True, interval=True)
    assert pooled_too.freedom == errors(squares, 0.001, 16.0, always=True).freedom  # the pool's seeds are not few


def test_the_own_test_has_more_of_its_level_at_each_look_at_prompts() -> None:
    rule = Rule.of_prompts(100, 805)
    p = [float(repeated(np.array(0.01), look, rule, own=True)) for look in range(4)]
    assert p == pytest.approx([0.01 / 0.3, 0.01 / 0.5, 0.01 / 0.7, 0.01 / 0.9])


def test_skewness_moves_an_interval_towards_the_long_tail_and_none_changes_nothing() -> None:
    straight = t_intervals(np.array(1.0), np.array(0.1), np.array(20.0))
    assert straight == pytest.approx((1 - 0.1 * stats.t.isf(0.025, 20), 1 + 0.1 * stats.t.isf(0.025, 20)))
    bent = t_intervals(np.array(1.0), np.array(0.1), np.array(20.0), 0.4)
    assert bent[0] > straight[0] and bent[1] > straight[1]
    # the bounds are where the transformed statistic reaches Student's quantile
    for bound, sign in zip(bent, (1, -1), strict=True):
        assert unskewed((1.0 - bound) / 0.1, 0.4) == pytest.approx(sign * stats.t.isf(0.025, 20))


def test_nothing_of_six_is_not_without_error() -> None:
    none = interval(table(np.zeros((1, 6))))
    assert (none.mean, none.low) == (0.0, 0.0) and 0.3 < none.high < 0.6
    whole = interval(table(np.ones((1, 6))))
    assert whole.high == 1.0 and whole.low == pytest.approx(1 - none.high)
    gap = paired(table(np.zeros((1, 6))), table(np.zeros((1, 6))))
    assert gap.mean == 0.0 and -1 <= gap.low < -0.2 and 0.2 < gap.high <= 1 and gap.p == 1.0


def test_the_score_interval_of_independent_verdicts_is_wilsons() -> None:
    p, n = 0.3, 400
    low, high = score_intervals(np.array(p), np.sqrt(np.array(p * (1 - p) / n)), np.array(np.inf), n)
    wilson = stats.binomtest(120, n).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((wilson.low, wilson.high))


def test_no_interval_leaves_the_bounds() -> None:
    rng = np.random.default_rng(3)
    shares = np.clip(rng.normal(0.97, 0.05, (3, 12)), 0, 1)
    inside = interval(table(shares), bounds=(0.0, 1.0))
    assert inside.low < inside.mean < inside.high <= 1.0
    wide = paired(table(np.ones((2, 4))), table(np.array([[0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0]])))
    assert -1.0 <= wide.low <= wide.mean <= wide.high <= 1.0


# Fits


def test_pseudo_values_of_a_mean_are_the_values() -> None:
    values = np.random.default_rng(4).normal(size=30)
    found = pseudo_values(lambda weights: weights @ values / weights.sum(axis=1), 30)
    np.testing.assert_allclose(found, values)
    moved = pseudo_values(lambda weights: weights @ values / weights.sum(axis=1), 30, value=7.0)
    assert moved.mean() == pytest.approx(7.0, abs=1e-12) and moved.std() == pytest.approx(values.std())
    with pytest.raises(ValueError, match="at least two"):
        pseudo_values(lambda weights: weights[:, 0], 1)


def test_the_error_of_a_ratio_is_that_of_the_delta_method() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.normal(5, 1, 400), rng.normal(10, 2, 400)
    found = pseudo_values(lambda weights: (weights @ y) / (weights @ x), 400)
    ratio = y.mean() / x.mean()
    delta = np.std(y - ratio * x, ddof=1) / np.sqrt(400) / x.mean()
    assert found.mean() == pytest.approx(ratio) and components(found[None])[1].size == pytest.approx(delta, rel=0.01)


def test_a_logistic_regression_is_scikit_learns() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(6)
    features = rng.normal(size=(200, 3))
    targets = (rng.random(200) < special.expit(features @ [1.0, -0.5, 0.0])).astype(float)
    weights = rng.integers(0, 3, (4, 200)).astype(float)
    found = logistic(features, targets, weights)
    for line, weight in zip(found, weights, strict=True):
        theirs = LogisticRegression(C=1e10, fit_intercept=False, tol=1e-10, max_iter=1000).fit(features, targets, weight)
        np.testing.assert_allclose(line, theirs.coef_[0], atol=1e-4)
    assert (logistic(features, targets, weights, penalty=np.array([0.0, 0.0, np.inf]))[:, 2] == 0).all()


def test_a_separated_logistic_regression_is_an_error_and_a_penalty_mends_it() -> None:
    features, targets = np.array([[-1.0], [-2.0], [1.0], [2.0]]), np.array([0.0, 0.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="separated"):
        logistic(features, targets, np.ones((1, 4)))
    assert np.isfinite(logistic(features, targets, np.ones((1, 4)), penalty=0.1)).all()


def test_strengths_have_pseudo_values_by_seed_and_prompt() -> None:
    rng = np.random.default_rng(7)
    wins = np.zeros((2, 30, 3, 3))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        won = rng.random((2, 30)) < 0.5 + 0.1 * (j - i)
        wins[:, :, i, j], wins[:, :, j, i] = won, ~won
    found = crossed_pseudo_values(lambda weights: bradley_terry(np.tensordot(weights, wins, axes=2), 0), 2, 30)
    assert found.shape == (2, 30, 3)
    np.testing.assert_allclose(found.mean(axis=(0, 1)), bradley_terry(wins.sum(axis=(0, 1)), 0), atol=1e-9)
    resampled = []
    for _ in range(400):
        weight = np.bincount(rng.integers(0, 60, 60), minlength=60).reshape(2, 30)
        resampled.append(bradley_terry(np.tensordot(weight, wins, axes=2), 0))
    errors_ = found.reshape(60, 3).std(axis=0, ddof=1) / np.sqrt(60)
    np.testing.assert_allclose(errors_[1:], np.std(resampled, axis=0)[1:], rtol=0.15)


# Corrections, the best, ranks


def test_two_tests_must_both_reject() -> None:
    p, own = np.array([0.001, 0.001, 0.2]), np.array([0.9, 0.001, 0.001])
    assert (both(p, own) < 0.05).tolist() == [False, True, False]
    assert both(p, np.zeros(3)) == pytest.approx(holm(list(p)))
    many = np.random.default_rng(8).uniform(size=(5, 7))
    np.testing.assert_allclose(holm_steps(many), [holm(list(line)) for line in many])


def test_the_best_is_alone_only_where_it_is_clear() -> None:
    rng = np.random.default_rng(9)
    prompts = rng.normal(size=(1, 1, 200))
    rows = prompts + rng.normal(0, 0.3, (4, 3, 200)) + np.array([1.0, 0.0, -0.01, 0.01])[:, None, None]
    clear = pairs(rows)
    assert may_be_best(clear).tolist() == [True, False, False, False]
    low, high = rank_sets(clear)
    assert (low[0], high[0]) == (1, 1) and set(low[1:]) == {2} and set(high[1:]) == {4}
    assert best_p(clear)[0] == 1.0 and sorted(best_p(clear))[2] < 0.05
    rows[1] += 1.0
    assert may_be_best(pairs(rows))[:2].all()
    np.testing.assert_allclose(clear.p + clear.p.T - np.eye(4), 1.0)


def test_equal_rows_may_all_be_the_best() -> None:
    same = pairs(np.ones((3, 2, 10)))
    assert may_be_best(same).all() and rank_sets(same)[0].tolist() == [1, 1, 1] and rank_sets(same)[1].tolist() == [3, 3, 3]


# Noise and equivalence


def test_the_noise_floor_pools_null_rows_and_the_seeds_of_all_rows() -> None:
    floor = noise_floor(Spread(0.04, 16.0), [0.1, -0.2], 2)
    assert floor is not None
    variance = (16 * 0.04 / 2 + 0.01 + 0.04) / 18
    assert floor.size == pytest.approx(stats.t.isf(0.025, 18) * np.sqrt(variance))
    assert floor.low < 1.96 * np.sqrt(variance) < floor.high
    alone = noise_floor(None, [0.1], 1)
    assert alone is not None and alone.size == pytest.approx(12.7062 * 0.1, rel=1e-3)
    assert noise_floor(None, [], 1) is None


def test_equivalence_is_that_the_90_percent_interval_is_inside() -> None:
    error = Error(0.1, 10.0)
    edge = 0.5 - stats.t.isf(0.05, 10) * 0.1
    assert equivalence_p(edge, error, 0.5) == pytest.approx(0.05)
    assert equivalence_p(-edge, error, 0.5) == pytest.approx(0.05)
    assert equivalence_p(0.6, error, 0.5) > 0.5
    assert equivalence_p(0.1, Error(0.0, 1.0), 0.5) == 0.0
    with pytest.raises(ValueError, match="margin = 0"):
        equivalence_p(0.0, error, 0.0)


def test_a_judge_that_agrees_with_itself() -> None:
    stable = repeatability([[1, 1, 1], [0, 0], [1, 1], [0, 0, float("nan")]])
    assert stable is not None and (stable.agreement, stable.correlation, stable.share, stable.questions) == (1.0, 1.0, 0.0, 4)
    coin = np.random.default_rng(10).integers(0, 2, (400, 2)).tolist()
    fickle = repeatability(coin)
    assert fickle is not None and fickle.agreement == pytest.approx(0.5, abs=0.08) and fickle.share > 0.8
    assert fickle.variance == pytest.approx(0.25, abs=0.04)
    assert repeatability([[1.0], [0.0]]) is None


# Power


def test_power_of_two_tests_is_below_that_of_one() -> None:
    parts = Components(seed=0.02, question=0.08, rest=0.98, seeds=3, questions=200, freedom_per_seed=8.0)
    difference = design_detectable(parts, alpha=0.05 / 8)
    assert design_power(difference, parts, alpha=0.05 / 8) == pytest.approx(0.8)
    assert design_power(0.0, parts, alpha=0.05 / 8) < 0.05 / 8
    assert design_detectable(parts, seeds=5, alpha=0.05 / 8) < difference < design_detectable(parts, seeds=2, alpha=0.05 / 8)


# Seeds added where they decide


def test_the_levels_of_all_looks_add_up() -> None:
    fractions = (0.25, 0.5, 0.75, 1.0)
    nominal = levels(0.05, fractions, fractions)
    rng = np.random.default_rng(11)
    steps = rng.normal(size=(200_000, 4)) * np.sqrt(0.25)
    z = steps.cumsum(axis=1) / np.sqrt(fractions)
    rejected = (2 * special.ndtr(-np.abs(z)) < nominal).any(axis=1)
    assert rejected.mean() == pytest.approx(0.05, abs=0.002)
    assert levels(0.05, (1.0,), (1.0,)) == pytest.approx((0.05,))
    assert levels(0.05, (0.5, 1.0), (0.0, 1.0))[0] == pytest.approx(0.0, abs=1e-12)


def test_a_repeated_p_value_rejects_where_its_look_does() -> None:
    rule = Rule.of_seeds(2, 8)
    for look in (2, 4, 6):
        nominal = levels(0.05, rule.fractions, rule.shares)[look]
        assert repeated(np.array(nominal), look, rule) == pytest.approx(0.05, rel=0.02)
        assert repeated(np.array(1.0), look, rule) == pytest.approx(1.0)
    p = np.geomspace(1e-9, 1, 50)
    assert (np.diff(repeated(p, 3, rule)) >= 0).all() and (repeated(p, 3, rule) >= p * 0.99).all()


def test_a_clear_row_is_decided_early_and_a_hopeless_one_is_given_up() -> None:
    rng = np.random.default_rng(12)
    x = np.array([0.0, 3.0, 0.0])[:, None, None] + rng.normal(0, 0.02, (3, 8, 1)) + rng.normal(size=(3, 8, 200))
    rule, state, seeds = Rule.of_seeds(2, 8), State.start(3), np.zeros(3, dtype=int)
    for look in rule.looks:
        if state.stop:
            break
        seeds[state.open] = look
        state = decide(np.where((np.arange(look) < seeds[:, None])[..., None], x[:, :look], np.nan), state, rule)
    assert state.stop and state.significant.tolist() == [False, True, False]
    assert state.may_be_best.tolist() == [False, True, False]
    assert seeds[1] <= 5 and (seeds <= 8).all()


def test_a_row_that_has_stopped_keeps_its_verdict() -> None:
    rng = np.random.default_rng(13)
    x = np.array([0.0, 3.0, 0.25])[:, None, None] + rng.normal(0, 0.02, (3, 8, 1)) + rng.normal(size=(3, 8, 100))
    rule = Rule.of_seeds(4, 8)
    first = decide(x[:, :4], State.start(3), rule)
    assert first.significant[1]
    shown = x[:, :5].copy()
    shown[1, 4] = np.nan
    second = decide(shown, first, rule)
    assert second.p[1] == first.p[1] and second.significant[1] and not second.open[1]


def test_prompts_are_doubled_up_to_the_most() -> None:
    rule = Rule.of_prompts(100, 805)
    assert rule.looks == (100, 200, 400, 805) and Rule.of_prompts(10, 12).looks == (10, 12)
    rng = np.random.default_rng(14)
    x = np.array([0.0, 0.5])[:, None, None] + rng.normal(size=(1, 1, 805)) + rng.normal(0, 0.5, (2, 1, 805))
    state = decide(x[:, :, : rule.looks[0]], State.start(2), rule)
    assert state.significant[1] and state.stop


def test_a_row_without_the_new_prompts_does_not_thin_the_variance_of_the_others() -> None:
    rng = np.random.default_rng(16)
    x = 10 * rng.normal(size=(1, 3, 1)) + rng.normal(0, 0.1, (4, 3, 1)) + rng.normal(size=(4, 3, 150))
    x += np.array([0.0, 1.0, 0.3, 0.0])[:, None, None]
    stopped = x.copy()
    stopped[3, :, 100:] = np.nan
    rule, first = Rule((100, 150), "questions"), replace(State.start(4), look=1)
    with_gap = decide(stopped, first, rule)
    without = decide(x[:3], replace(State.start(3), look=1), rule)
    assert with_gap.p[1:3] == pytest.approx(without.p[1:3]) and without.p[1] < 0.01
    assert with_gap.p[3] == 1.0 and not with_gap.open[3]


@pytest.mark.parametrize("looks", [(), (3, 2), (2, 2), (0, 1)])
def test_a_rule_says_what_is_wrong_with_its_looks(looks: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="rising whole numbers"):
        Rule(looks)


# The calibration suite in small: fixed seeds, so that a change of method shows


@pytest.mark.parametrize(("seeds", "kind"), [(1, "binary 3 %"), (2, "normal"), (3, "skewed"), (5, "binary 20 %")])
def test_intervals_and_tests_hold_in_small(seeds: int, kind: str) -> None:
    suite = calibration()
    for restless in (1.0, suite.RESTLESS) if seeds > 1 else (1.0,):
        hits = suite.grid_cell(0, 300, seeds, 40, kind, restless)
        rates = {name: float(np.mean(values)) for name, values in hits.items()}
        assert rates["mean"] >= 0.92 and rates["difference"] >= 0.93
        assert rates["stars"] <= 0.09 and rates["may be best"] <= 0.09  # 0.06 and twice the Monte Carlo error


def test_fits_hold_in_small() -> None:
    suite = calibration()
    for cell in (suite.strengths_cell(0, 60, 3, 40), suite.length_controlled_cell(0, 60, 1, 200)):
        coverage, stars = (float(np.mean(values)) for values in cell.values())
        assert coverage >= 0.91 and stars <= 0.12


def test_sequential_seeds_hold_in_small() -> None:
    suite = calibration()
    null = suite.sequential_cell(0, 150, "null")
    assert np.mean(null["until decided: false stars"]) <= 0.09 and np.mean(null["until decided: best missed"]) <= 0.09
    real = {name: np.mean(values) for name, values in suite.sequential_cell(0, 60, "few near-ties").items()}
    assert real["until decided: trainings per row"] <= 0.65 * suite.MOST
    assert real["until decided: differences found"] >= real["5 seeds: differences found"]
