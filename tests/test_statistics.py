"""Statistics: agreement with scipy, hand-computed numbers, coverage, and inputs that degenerate."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from harness.api.types import Score
from harness.board.statistics import (
    Bootstrap,
    Components,
    Error,
    Values,
    agree,
    benjamini_hochberg,
    components,
    design_power,
    detectable,
    holm,
    interval,
    paired,
    permutation,
    power,
    questions_needed,
    rank_stability,
    rater_agreement,
    seeds_needed,
    seeds_t_test,
    sign_flip,
    standardised,
    win_shares,
    wins,
)


def table(values: np.ndarray) -> Values:
    return Values(tuple(f"e{column:04d}" for column in range(values.shape[1])), np.asarray(values, dtype=float))


def test_from_scores_averages_samples_and_marks_what_is_missing() -> None:
    scores = {
        1: [Score("b", "m", 2.0), Score("a", "m", 1.0, 0), Score("a", "m", 3.0, 1), Score("a", "other", 9.0)],
        0: [Score("a", "m", float("nan")), Score("c", "m", float("inf"))],
    }
    values = Values.from_scores(scores, "m")
    assert values.examples == ("a", "b", "c")
    np.testing.assert_array_equal(values.values, [[np.nan, np.nan, np.nan], [2.0, 2.0, np.nan]])
    assert values.answered().examples == ("a", "b")
    assert values.answered().values.shape == (1, 2)


def test_from_scores_does_not_depend_on_the_order_of_the_scores() -> None:
    scores = [Score(f"e{i}", "m", float(i)) for i in range(20)]
    first, second = (Values.from_scores({0: order}, "m") for order in (scores, scores[::-1]))
    assert interval(first) == interval(second)


def test_interval_agrees_with_scipys_bootstrap_for_one_seed() -> None:
    sample = np.random.default_rng(1).normal(3.0, 2.0, size=200)
    ours = interval(table(sample[None]))
    theirs = stats.bootstrap(
        (sample,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert ours.mean == pytest.approx(sample.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)
    assert ours.n == 200


def test_sign_flip_is_scipys_exact_test_when_all_flips_can_be_counted() -> None:
    differences = np.array([0.3, -0.1, 0.25, 0.8, 0.05, -0.2, 0.4, 0.1, 0.6, 0.0])
    theirs = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(differences) == pytest.approx(theirs.pvalue)


def test_sign_flip_agrees_with_scipy_when_flips_are_drawn() -> None:
    differences = np.random.default_rng(3).normal(0.15, 1.0, size=120)
    theirs = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=9999, rng=np.random.default_rng(4)
    )
    assert sign_flip(differences) == pytest.approx(theirs.pvalue, abs=0.015)


def test_sign_flip_is_never_zero_and_chunks_do_not_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sign_flip(np.full(100, 1.0), flips=999) == 2.0**-99
    differences = np.random.default_rng(5).normal(0.2, 1.0, size=50)
    whole = sign_flip(differences)
    monkeypatch.setattr(permutation, "CELLS_PER_CHUNK", 500)
    assert sign_flip(differences) == whole


def test_sign_flip_rejects_as_often_as_it_says_when_nothing_differs() -> None:
    rng = np.random.default_rng(6)
    p = np.array([sign_flip(rng.normal(size=40), flips=199, seed=trial) for trial in range(400)])
    assert 0.02 < np.mean(p <= 0.05) < 0.09


def test_holm_by_hand() -> None:
    # sorted .005 .01 .03 .04 times 4 3 2 1 = .02 .03 .06 .04, made monotone .02 .03 .06 .06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6, 0.9]) == [1.0, 1.0, 1.0]
    assert holm([]) == []


def test_benjamini_hochberg_agrees_with_scipy() -> None:
    p = list(np.random.default_rng(7).uniform(size=30) ** 3)
    assert benjamini_hochberg(p) == pytest.approx(list(stats.false_discovery_control(p)))
    assert benjamini_hochberg([]) == []


def test_interval_covers_the_truth_when_seeds_and_prompts_both_vary() -> None:
    rng = np.random.default_rng(8)
    covered = []
    for _ in range(200):
        cells = rng.normal(0, 0.1, size=(5, 1)) + rng.normal(0, 1, size=(1, 60)) + rng.normal(0, 0.5, size=(5, 60))
        found = interval(table(cells))
        covered.append(found.low <= 0.0 <= found.high)
    assert 0.90 <= np.mean(covered) <= 0.99


def test_a_seed_effect_widens_the_interval() -> None:
    rng = np.random.default_rng(9)
    noise = rng.normal(size=(1, 100)).repeat(3, axis=0)
    same, shifted = interval(table(noise)), interval(table(noise + np.array([[-1.0], [0.0], [1.0]])))
    assert shifted.high - shifted.low > 2 * (same.high - same.low)


def test_pairing_removes_what_prompts_share() -> None:
    rng = np.random.default_rng(10)
    prompts = rng.normal(0, 5, size=(1, 100))
    base, row = prompts + rng.normal(0, 0.1, size=(2, 100)), prompts + 0.1 + rng.normal(0, 0.1, size=(2, 100))
    found = paired(table(row), table(base))
    assert found.mean == pytest.approx((row - base).mean())
    assert 0 < found.low < found.mean < found.high < 0.25  # unpaired, it would be 2 wide
    assert found.p_flips < 1e-10 and found.p == found.p_seeds_and_questions < 0.05
    assert found.n == 100


def test_seeds_are_paired_by_their_value_and_only_common_ones_count() -> None:
    rng = np.random.default_rng(11)
    prompts, effect = rng.normal(size=(1, 80)), {3: -2.0, 5: 0.0, 7: 2.0, 9: 50.0}
    names = tuple(f"e{i}" for i in range(80))
    row = Values(names, np.concatenate([prompts + effect[seed] + 0.5 for seed in (7, 3, 5, 9)]), (7, 3, 5, 9))
    base = Values(names, np.concatenate([prompts + effect[seed] for seed in (3, 5, 7)]), (3, 5, 7))
    found = paired(row, base)
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    assert (found.seeds, found.n) == (3, 80)


def test_rows_without_a_common_seed_are_compared_without_pairing_them() -> None:
    rng = np.random.default_rng(11)
    prompts, names = rng.normal(size=(1, 80)), tuple(f"e{i}" for i in range(80))
    row = Values(names, prompts + np.array([[0.5], [0.7], [0.6]]), (0, 1, 2))
    base = Values(names, prompts + np.array([[0.1], [-0.1], [0.0]]), (10, 11, 12))
    found = paired(row, base)
    welch = stats.ttest_ind([0.5, 0.7, 0.6], [0.1, -0.1, 0.0])  # nothing but seeds differs here
    assert (found.mean, found.seeds, found.components) == (pytest.approx(0.6), 0, None)
    assert found.p_seeds_and_questions == pytest.approx(welch.pvalue)
    assert found.low < 0.45 and found.high > 0.75


def test_only_common_examples_are_compared() -> None:
    row = Values(("a", "b", "c"), np.array([[1.0, 2.0, 100.0]]))
    base = Values(("d", "b", "a"), np.array([[9.0, 1.0, 0.5]]))
    found = paired(row, base)
    assert (found.mean, found.n) == (0.75, 2)


def test_missing_cells_are_left_out_not_counted_as_zero() -> None:
    found = interval(table(np.array([[1.0, np.nan, 3.0], [1.0, 2.0, np.nan]])), bounds=(1.0, 3.0))
    assert found.mean == pytest.approx(7 / 4)
    assert found.n == 3
    assert 1.0 <= found.low <= found.high <= 3.0


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (3, 1), (3, 5)])
def test_constants_have_no_width_and_no_evidence(shape: tuple[int, int]) -> None:
    cells = table(np.full(shape, 0.5))
    found = interval(cells)
    assert (found.mean, found.low, found.high, found.n) == pytest.approx((0.5, 0.5, 0.5, shape[1]))
    gap = paired(cells, cells)
    assert (gap.mean, gap.low, gap.high, gap.p) == (0.0, 0.0, 0.0, 1.0)


def test_one_example_gives_no_evidence() -> None:
    assert paired(table(np.array([[3.0]])), table(np.array([[1.0]]))).p == 1.0


def test_nothing_to_average_is_an_error() -> None:
    empty = table(np.full((2, 3), np.nan))
    with pytest.raises(ValueError, match="no finite values"):
        interval(empty)
    with pytest.raises(ValueError, match="both sides"):
        paired(empty, table(np.ones((2, 3))))
    crossed = Values(("a",), np.array([[1.0], [np.nan]])), Values(("a",), np.array([[np.nan], [1.0]]))
    assert paired(*crossed).mean == 0.0


def test_the_same_seed_gives_the_same_numbers() -> None:
    cells = table(np.random.default_rng(12).normal(size=(2, 30)))
    assert interval(cells) == interval(cells)
    one, other = (Bootstrap(seed=seed).means([cells]) for seed in (3, 4))
    assert (one != other).any()


# Tails


@pytest.mark.parametrize("heavy", [False, True])
def test_small_p_values_are_those_of_all_flips(heavy: bool) -> None:
    rng = np.random.default_rng(20)
    bits = (np.arange(2**18)[:, None] >> np.arange(18)) & 1
    compared = 0
    for _ in range(12):
        differences = rng.standard_t(2, 18) + 1.5 if heavy else rng.normal(1.2, 1.0, 18)
        exact = np.mean(np.abs((1.0 - 2.0 * bits) @ differences) >= abs(differences.sum()) * (1 - 1e-9))
        if exact < 0.005:
            compared += 1
            assert 0.4 < sign_flip(differences) / exact < 2.5
    assert compared >= 4


def test_on_wins_and_losses_it_is_the_binomial_sign_test_far_into_the_tail() -> None:
    for won, lost in ((140, 60), (700, 300), (95, 5)):
        exact = 2 * stats.binom.sf(won - 1, won + lost, 0.5)
        assert sign_flip(np.repeat([1.0, -1.0], [won, lost])) == pytest.approx(exact, rel=0.1)


# Errors of crossed seeds and questions


def test_with_one_seed_the_test_is_scipys_paired_t_test() -> None:
    rng = np.random.default_rng(21)
    row, base = rng.normal(0.2, 1, (1, 60)), rng.normal(0, 1, (1, 60))
    assert paired(table(row), table(base)).p_seeds_and_questions == pytest.approx(stats.ttest_rel(row[0], base[0]).pvalue)


def test_where_only_seeds_vary_it_is_the_t_test_over_seeds() -> None:
    row = np.array([0.5, 0.9, 0.6])[:, None] + np.zeros((3, 40))
    found = paired(table(row), table(np.zeros((3, 40))))
    assert found.p_seeds_and_questions == pytest.approx(stats.ttest_1samp([0.5, 0.9, 0.6], 0.0).pvalue)


def test_components_are_found_again() -> None:
    rng = np.random.default_rng(22)
    cells = rng.normal(0, 0.5, (60, 1)) + rng.normal(0, 1.0, (1, 400)) + rng.normal(0, 0.8, (60, 400))
    found, error = components(cells)
    assert (found.seed, found.question, found.rest) == pytest.approx((0.25, 1.0, 0.64), rel=0.5)
    assert error.size == pytest.approx(np.sqrt(0.25 / 60 + 1 / 400 + 0.64 / 24000), rel=0.3)


def test_turns_of_one_question_are_one_observation() -> None:
    rng = np.random.default_rng(23)
    once = rng.normal(size=(1, 40))
    names = tuple(f"e{i}" for i in range(40))
    twice = Values(
        tuple(f"{name}/{turn}" for name in names for turn in (1, 2)),
        np.repeat(once, 2, axis=1),
        questions=tuple(name for name in names for _ in (1, 2)),
    )
    single, double, apart = interval(Values(names, once)), interval(twice), interval(Values(twice.examples, twice.values))
    assert (double.low, double.high) == pytest.approx((single.low, single.high))
    assert apart.high - apart.low < 0.8 * (single.high - single.low)
    zero = Values(twice.examples, np.zeros((1, 80)), questions=twice.questions)
    assert paired(twice, zero).p_flips == pytest.approx(paired(Values(names, once), Values(names, np.zeros((1, 40)))).p_flips)


# Effects, power, ranks, agreement


def test_the_t_test_over_seeds_gives_the_stars_of_the_papers_table() -> None:
    # Sr-DPO (arXiv:2405.21040), Table 3: mean ± deviation over two seeds, and whether it has a star
    printed = [
        ((64.40, 0.08), (63.19, 0.15), True),
        ((64.55, 0.72), (62.54, 0.51), False),
        ((85.39, 0.13), (84.54, 0.35), False),
        ((80.74, 0.08), (79.28, 0.75), False),
        ((62.50, 0.04), (61.95, 0.09), True),
        ((83.24, 0.09), (82.76, 0.05), True),
        ((61.90, 0.10), (61.20, 0.35), False),
        ((48.38, 0.51), (46.07, 0.04), True),
        ((39.58, 0.22), (36.63, 0.72), True),
        ((62.51, 0.11), (61.35, 0.11), True),
    ]
    for row, base, star in printed:
        seeds = [[mean - sd / np.sqrt(2), mean + sd / np.sqrt(2)] for mean, sd in (row, base)]
        p = seeds_t_test(*seeds)
        assert p == pytest.approx(stats.ttest_ind(*seeds).pvalue)
        assert p is not None and (p < 0.05) == star
    assert seeds_t_test([1.0], [2.0, 3.0]) is None and seeds_t_test([1.0, 1.0], [2.0, 2.0]) is None


def test_effects_by_hand() -> None:
    found = wins(np.array([1.0, 2.0, 0.0, -1.0]))
    assert (found.won, found.tied, found.lost, found.share) == (0.5, 0.25, 0.25, 0.625)
    assert standardised(np.array([1.0, 3.0])) == pytest.approx(2 / np.sqrt(2))
    assert standardised(np.array([2.0, 2.0])) is None


def test_a_mean_of_equal_values_has_no_error_and_no_end_of_freedom() -> None:
    parts, _ = components(np.full((2, 3), 0.5))
    assert parts.error() == Error(0.0, np.inf) and parts.error(3, 4) == Error(0.0, np.inf)


def test_one_source_of_variance_alone_has_its_own_degrees_of_freedom() -> None:
    seeds = Components(seed=1.0, question=0.0, rest=0.0, seeds=3, questions=5).error()
    assert (seeds.size**2, seeds.freedom) == (pytest.approx(1 / 3), pytest.approx(3 - 1))
    questions = Components(seed=0.0, question=1.0, rest=0.0, seeds=3, questions=5).error()
    assert (questions.size**2, questions.freedom) == (pytest.approx(1 / 5), pytest.approx(5 - 1))


@pytest.mark.parametrize("freedom", [2.0, 20.0, 1000.0])
def test_power_is_the_noncentral_t(freedom: float) -> None:
    limit = stats.t.isf(0.025, freedom)
    expected = stats.nct.sf(limit, freedom, 2.5) + stats.nct.cdf(-limit, freedom, 2.5)
    assert power(5.0, Error(2.0, freedom)) == pytest.approx(expected, abs=1e-5)
    assert power(detectable(Error(2.0, freedom)), Error(2.0, freedom)) == pytest.approx(0.8)


def test_what_is_needed_is_just_enough() -> None:
    parts = Components(seed=0.005, question=0.1, rest=1.0, seeds=3, questions=100, freedom_per_seed=8.0)
    questions = questions_needed(0.4, parts)
    assert questions is not None
    assert design_power(0.4, parts, 3, questions) >= 0.8 > design_power(0.4, parts, 3, questions - 1)
    seeds = seeds_needed(0.1, parts)
    assert seeds is not None and design_power(0.1, parts, seeds) >= 0.8 > design_power(0.1, parts, seeds - 1)
    assert questions_needed(1e-3, parts) is None  # more questions cannot make up for three seeds that differ


def test_power_holds_in_a_simulation() -> None:
    rng, found = np.random.default_rng(25), 0
    parts = components(rng.normal(0, 1, (1, 5000)))[0]
    difference = detectable(parts.error(1, 100))
    for trial in range(150):
        found += paired(table(rng.normal(difference, 1, (1, 100))), table(np.zeros((1, 100))), flips=999, seed=trial).p < 0.05
    assert 0.7 < found / 150 < 0.9


def test_ranks_over_draws() -> None:
    means = np.array([[3.0, 2.0, 1.0], [3.0, 3.0, 1.0], [1.0, 2.0, 3.0], [np.nan, 1.0, 2.0]])
    first, second, third = rank_stability(means)
    assert (first.first, second.first, third.first) == pytest.approx((1.5 / 3, 0.5 / 3, 1 / 3))
    assert (third.low, third.high, first.mean) == (1.0, 3.0, pytest.approx((1 + 1.5 + 3) / 3))


def test_win_shares_count_ties_half_and_common_examples_alone() -> None:
    shares = win_shares(np.array([[1.0, 2.0, 3.0, np.nan], [1.0, 1.0, 4.0, 9.0]]))
    assert shares[0, 1] == pytest.approx(0.5) and shares[1, 0] == pytest.approx(0.5)


def test_agreement_is_scipys() -> None:
    left, right = np.array([1.0, 2.0, 2.0, 4.0]), np.array([1.0, 3.0, 2.0, 2.0])
    assert agree(left, right) == pytest.approx(
        (stats.kendalltau(left, right).statistic, stats.spearmanr(left, right).statistic)
    )
    assert agree(left[:2], right[:2]) is None and agree(left, np.ones(4)) is None


# Simulated boards: how often intervals hold the truth, and tests reject a true null


def boards(trials: int, *, rows: int = 8, seeds: int = 3, own: float = 0.1) -> tuple[float, float, float]:
    """Coverage of means and of differences, and family-wise error after Holm, on 200 prompts."""
    rng = np.random.default_rng(26)
    means, differences, errors = [], [], []
    for trial in range(trials):
        common, prompts = rng.normal(0, 0.1, (seeds, 1)), rng.normal(0, 1, (1, 200))
        drawn = [
            table(
                common
                + rng.normal(0, own, (seeds, 1))
                + prompts
                + rng.normal(0, 0.2, (1, 200))
                + rng.normal(0, 0.7, (seeds, 200))
            )
            for _ in range(rows + 1)
        ]
        bootstrap = Bootstrap(400, 199, seed=trial)
        means += [found.low <= 0 <= found.high for found in bootstrap.intervals(drawn)]
        gaps = [gap for gap in bootstrap.differences(drawn[1:], drawn[0]) if not isinstance(gap, ValueError)]
        differences += [gap.low <= 0 <= gap.high for gap in gaps]
        errors.append(min(holm([gap.p for gap in gaps])) < 0.05)
    return float(np.mean(means)), float(np.mean(differences)), float(np.mean(errors))


def test_simulated_boards_in_short() -> None:
    means, differences, errors = boards(40)
    assert 0.91 <= means <= 0.99 and 0.91 <= differences <= 0.99 and errors <= 0.11


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "own"), [(2, 0.1), (3, 0.03), (3, 0.1), (3, 0.3), (5, 0.1)])
def test_simulated_boards(seeds: int, own: float) -> None:
    means, differences, errors = boards(1000, seeds=seeds, own=own)
    widest = 0.99 if seeds == 2 else 0.98  # two seeds say little of a restless row, whose interval is wide
    assert 0.93 <= means <= 0.97 and 0.93 <= differences <= widest and errors <= 0.06


def test_raters_agree_as_krippendorff_and_scipy_say() -> None:
    rng = np.random.default_rng(4)
    left = rng.integers(0, 5, 60) / 4
    right = np.clip(left + rng.integers(-1, 2, 60) / 4, 0, 1)
    left[0] = np.nan
    questions = np.repeat(np.arange(20), 3)
    measured = rater_agreement(left, right, questions, one_scale=True)
    assert measured is not None and (measured.answers, measured.questions) == (59, 20)
    a, b = left[1:], right[1:]
    pooled = np.concatenate([a, b])
    observed = np.mean([(x - y) ** 2 for x, y in zip(a, b, strict=True)])
    expected = np.mean([(x - y) ** 2 for i, x in enumerate(pooled) for j, y in enumerate(pooled) if i != j])
    assert measured.alpha is not None and measured.alpha.mean == pytest.approx(1 - observed / expected)
    assert measured.spearman is not None and measured.spearman.mean == pytest.approx(stats.spearmanr(a, b).statistic)
    assert measured.same == pytest.approx((a == b).mean())
    for estimate in (measured.alpha, measured.spearman):
        assert estimate.low < estimate.mean < estimate.high < 1


def test_raters_on_other_scales_agree_by_rank_alone() -> None:
    left, asked = np.arange(9.0), np.arange(9)
    measured = rater_agreement(left, left**3, asked, one_scale=False)
    assert measured is not None and measured.alpha is None and measured.same is None
    assert measured.spearman is not None and measured.spearman.mean == pytest.approx(1.0)
    constant = rater_agreement(left, np.ones(9), asked, one_scale=False)
    assert constant is not None and constant.spearman is None
    assert rater_agreement(left[:2], left[:2], asked[:2], one_scale=True) is None


def test_an_interval_of_agreement_is_over_questions() -> None:
    """Answers to one question are copies of each other: as many answers as one likes make the interval no shorter."""
    rng = np.random.default_rng(0)
    left, right = rng.random(30), rng.random(30)
    once = rater_agreement(left, right, np.arange(30), one_scale=True)
    often = rater_agreement(np.tile(left, 10), np.tile(right, 10), np.tile(np.arange(30), 10), one_scale=True)
    assert once is not None and often is not None and once.alpha is not None and often.alpha is not None
    assert often.alpha.high - often.alpha.low == pytest.approx(once.alpha.high - once.alpha.low, rel=0.1)
