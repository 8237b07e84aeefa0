"""Statistics: agreement with scipy, hand-computed numbers, coverage, and inputs that degenerate."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from harness import statistics
from harness.statistics import Values, benjamini_hochberg, holm, interval, paired, sign_flip
from harness.types import Score


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
    ours = interval(table(sample[None]), draws=10_000)
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
    assert sign_flip(np.full(100, 1.0), flips=999) == 1 / 1000
    differences = np.random.default_rng(5).normal(0.2, 1.0, size=50)
    whole = sign_flip(differences)
    monkeypatch.setattr(statistics, "CELLS_PER_CHUNK", 500)
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
    for trial in range(200):
        cells = rng.normal(0, 0.1, size=(5, 1)) + rng.normal(0, 1, size=(1, 60)) + rng.normal(0, 0.5, size=(5, 60))
        found = interval(table(cells), draws=400, seed=trial)
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
    assert 0 < found.low < found.mean < found.high < 0.2
    assert found.p < 0.001
    assert found.n == 100


def test_unequal_numbers_of_seeds_are_compared_without_pairing_them() -> None:
    rng = np.random.default_rng(11)
    prompts = rng.normal(size=(1, 80))
    row, base = prompts + np.array([[0.5], [0.7], [0.6]]), prompts + np.array([[0.1], [-0.1]])
    found = paired(table(row), table(base))
    assert found.mean == pytest.approx(0.6)
    assert 0.4 <= found.low < 0.5 and 0.7 < found.high <= 0.8 + 1e-9


def test_only_common_examples_are_compared() -> None:
    row = Values(("a", "b", "c"), np.array([[1.0, 2.0, 100.0]]))
    base = Values(("d", "b", "a"), np.array([[9.0, 1.0, 0.5]]))
    found = paired(row, base)
    assert (found.mean, found.n) == (0.75, 2)


def test_missing_cells_are_left_out_not_counted_as_zero() -> None:
    found = interval(table(np.array([[1.0, np.nan, 3.0], [1.0, 2.0, np.nan]])))
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
    assert interval(cells, seed=3) == interval(cells, seed=3)
    assert interval(cells, seed=3) != interval(cells, seed=4)
