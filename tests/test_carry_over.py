"""Statistics across starting models: bounds on orders, reversed pairs, and the interaction of rows and models."""

from __future__ import annotations

import numpy as np
import pytest

from harness.board.statistics import Floats, components, pairs
from harness.board.statistics.carry_over import interaction, order_bounds, pair_tests, signs, true_discoveries
from harness.board.statistics.intervals import two_sided


def tables(truth: Floats, seeds: int = 3, questions: int = 60, draw: int = 0, restless: float = 1.0) -> Floats:
    """Return [models, rows, seeds, questions] around true means [models, rows]: models share questions, and no seed."""
    rng = np.random.default_rng(draw)
    models, rows = truth.shape
    lift = rng.normal(0, 0.1, (models, rows, seeds, 1)) * np.array([restless, *[1.0] * (rows - 1)])[:, None, None]
    hard = rng.normal(0, 1, (1, 1, 1, questions)) + rng.normal(0, 0.5, (models, rows, 1, questions))
    return np.asarray(truth[:, :, None, None] + lift + hard + rng.normal(0, 0.5, (models, rows, seeds, questions)))


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        ([0.5, 0.9, 0.7], 0),
        ([0.001, 0.9, 0.9], 1),
        ([0.001, 0.001, 0.001], 3),
        # Holm's correction finds none, since none is below 0.05 / 4: together they say more.
        ([0.02, 0.021, 0.022, 0.9], 3),
        ([0.02, 0.03, 0.6, 0.9], 0),
        ([], 0),
    ],
)
def test_true_discoveries_of_known_p_values(p: list[float], expected: int) -> None:
    assert true_discoveries(np.array(p), 0.05) == expected


def test_true_discoveries_are_seldom_too_many() -> None:
    rng = np.random.default_rng(1)
    nulls = [true_discoveries(rng.uniform(size=15), 0.05) for _ in range(400)]
    assert 0 < sum(count > 0 for count in nulls) <= 32  # 20 expected; more than 32 has probability 0.004


def test_the_same_order_far_apart_is_known_and_noise_alone_is_not() -> None:
    clear = tables(np.tile(np.arange(5.0), (2, 1)))
    bounds = order_bounds(pair_tests(pairs(clear[0]), pairs(clear[1])))
    assert (bounds.pairs, bounds.same, bounds.reversed) == (10, 10, 0)
    assert (bounds.low, bounds.high) == (1.0, 1.0)
    noise = tables(np.zeros((2, 5)))
    bounds = order_bounds(pair_tests(pairs(noise[0]), pairs(noise[1])))
    assert (bounds.low, bounds.high) == (-1.0, 1.0)


def test_a_turned_order_is_known_to_be_turned() -> None:
    turned = tables(np.stack([np.arange(4.0), -np.arange(4.0)]))
    tests = pair_tests(pairs(turned[0]), pairs(turned[1]))
    bounds = order_bounds(tests)
    assert (bounds.same, bounds.reversed, bounds.high) == (0, 6, -1.0)
    assert (tests.reversed < 0.001).all() and (tests.same > 0.5).all()


def test_a_pair_is_reversed_only_if_both_models_say_so() -> None:
    one_sided_only = tables(np.array([[0.0, 3.0, 9.0], [0.0, 0.0, 9.0]]), draw=2)
    tests = pair_tests(pairs(one_sided_only[0]), pairs(one_sided_only[1]))
    assert tests.reversed[0] > 0.05 and tests.same[0] > 0.001  # rows 0 and 1: clear under one model, equal under the other
    assert tests.same[1:].max() < 0.001


def test_bounds_hold_the_true_order_of_close_rows() -> None:
    truth = np.stack([np.linspace(0, 1, 5), np.linspace(0, 1, 5)[[1, 0, 2, 4, 3]]])
    correct = int((signs(truth[0]) == signs(truth[1])).sum()) - int((signs(truth[0]) != signs(truth[1])).sum())
    held = 0
    for draw in range(60):
        drawn = tables(truth, draw=draw, restless=3.0)
        bounds = order_bounds(pair_tests(pairs(drawn[0]), pairs(drawn[1])))
        held += bounds.low <= correct / bounds.pairs <= bounds.high
    assert held >= 57  # 95 % of 60


def test_two_rows_and_two_models_give_students_test_of_the_difference_of_differences() -> None:
    drawn = tables(np.array([[0.0, 0.4], [0.0, 0.1]]))
    tested = interaction(drawn)
    gap = (drawn[0, 1] - drawn[0, 0]) - (drawn[1, 1] - drawn[1, 0])
    error = components(gap)[1]
    t = gap.mean() / error.size
    assert tested is not None
    assert tested.f == pytest.approx(t**2)
    assert tested.error_freedom == pytest.approx(error.freedom)
    assert tested.p == pytest.approx(float(two_sided(t, error.freedom)))


def test_the_interaction_is_found_and_a_common_shift_is_none() -> None:
    shifted = interaction(tables(np.stack([np.arange(4.0), np.arange(4.0) + 5])))
    turned = interaction(tables(np.stack([np.arange(4.0), -np.arange(4.0)])))
    assert shifted is not None and turned is not None
    assert shifted.p > 0.05 > 1e-6 > turned.p
    assert shifted.rows_freedom == 3


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_interaction_holds_its_level(seeds: int) -> None:
    truth = np.tile(np.arange(4.0) / 4, (2, 1))
    tested = [interaction(tables(truth, seeds, draw=draw, restless=0.0 if seeds == 1 else 1.0)) for draw in range(300)]
    rejected = sum(item is not None and item.p < 0.05 for item in tested)
    if seeds == 1:  # seeds are not sampled: the test is over questions, and their chance counts as the models' own
        assert rejected > 15
    else:
        assert 3 <= rejected <= 27  # 15 expected


@pytest.mark.parametrize("shape", [(1, 3, 2, 10), (2, 1, 2, 10), (2, 3, 2, 1)])
def test_too_little_to_test(shape: tuple[int, ...]) -> None:
    assert interaction(np.random.default_rng(0).normal(size=shape)) is None


def test_rows_that_are_equal_everywhere_are_not_tested() -> None:
    assert interaction(np.tile(np.arange(10.0), (2, 3, 2, 1))) is None
