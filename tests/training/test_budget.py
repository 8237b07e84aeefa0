"""Budgets in pairs, tokens and updates: never exceeded, spent to the last group, the same for the same seed."""

from __future__ import annotations

import pytest

from harness.errors import StageError
from harness.training.batch import PLAIN, TokenGroup
from harness.training.budget import Spending, spend


def group(number: int, negatives: int, length: int = 3) -> TokenGroup:
    """A group of one prompt token and responses of `length` tokens."""
    return TokenGroup({PLAIN: (number,)}, ((7,) * length,) * (1 + negatives))


def test_pairs_are_spent_whatever_the_number_of_negatives() -> None:
    one, four = [group(i, 1) for i in range(10)], [group(i, 4) for i in range(10)]
    for groups in (one, four):
        bought = spend(groups, Spending("pairs", 24), 4, seed=0)
        assert sum(item.pairs for item in bought) == 24


def test_no_more_is_spent_than_there_is() -> None:
    bought = spend([group(i, 4) for i in range(3)], Spending("pairs", 11), 4, seed=0)
    assert sum(item.pairs for item in bought) == 8


def test_a_lone_response_counts_as_one_pair() -> None:
    assert len(spend([group(0, 0), group(1, 0)], Spending("pairs", 5), 4, seed=0)) == 5


def test_tokens_count_each_response_with_its_own_prompt() -> None:
    bought = spend([group(i, 1) for i in range(3)], Spending("tokens", 50), 4, seed=0)  # 2 x (1 + 3) = 8 tokens a group
    assert len(bought) == 6


def test_updates_fill_whole_batches_over_as_many_passes_as_it_takes() -> None:
    groups = [group(i, 1) for i in range(5)]
    bought = spend(groups, Spending("updates", 4), 4, seed=0)
    assert len(bought) == 16
    passes = [bought[:5], bought[5:10], bought[10:15]]
    assert all({id(item) for item in one} == {id(item) for item in groups} for one in passes)
    assert passes[0] != passes[1] or passes[1] != passes[2]


def test_the_order_is_the_seeds() -> None:
    groups = [group(i, 1) for i in range(8)]
    first, again, other = (spend(groups, Spending("pairs", 20), 4, seed=seed) for seed in (1, 1, 2))
    assert first == again and first != other


def test_a_budget_too_small_for_one_group_says_which_field_to_raise() -> None:
    with pytest.raises(StageError, match=r"3 pairs, does not pay for one group of this method: raise budget\.pairs"):
        spend([group(0, 4)], Spending("pairs", 3), 4, seed=0)
