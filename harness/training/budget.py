"""Training by a budget: which groups a method trains on, in what order, until its pairs, tokens or updates are spent.

Without such a limit a method sees each of its prompts `epochs` times. With one, it passes over its groups as often as the limit
allows, each pass in an order of its own, so that methods with many pairs a prompt and methods with few get the same amount.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from harness.api.interfaces import BudgetUnit
from harness.errors import StageError
from harness.training.batch import TokenGroup


@dataclass(frozen=True)
class Spending:
    """The limit of one training. `tokens` are `TokenGroup.tokens`; a group without negatives counts as one pair."""

    unit: BudgetUnit
    amount: int


def spend(groups: Sequence[TokenGroup], spending: Spending, prompts_per_batch: int, seed: int) -> list[TokenGroup]:
    """The groups in training order, repeated as often as the budget pays for; never more than it pays for.

    Raises:
        StageError: it does not pay for a single group.
    """
    if spending.unit == "updates":
        bought = _bought(groups, spending.amount * prompts_per_batch, lambda group: 1, seed)
    elif spending.unit == "pairs":
        bought = _bought(groups, spending.amount, lambda group: max(1, group.pairs), seed)
    elif spending.unit == "tokens":
        bought = _bought(groups, spending.amount, lambda group: group.tokens, seed)
    else:
        raise StageError(f"training on groups generates nothing, so budget.{spending.unit} cannot limit it")
    if not bought:
        raise StageError(
            f"a round's share of the budget, {spending.amount} {spending.unit}, does not pay for one group of this method: "
            f"raise budget.{spending.unit}"
        )
    return bought


def _bought(groups: Sequence[TokenGroup], amount: int, price: Callable[[TokenGroup], int], seed: int) -> list[TokenGroup]:
    # Ends at the first group that costs too much. To skip it and go on with cheaper ones would favour short groups at the end.
    bought: list[TokenGroup] = []
    for group in _passes(groups, seed):
        amount -= price(group)
        if amount < 0:
            return bought
        bought.append(group)
    return bought


def _passes(groups: Sequence[TokenGroup], seed: int) -> Iterator[TokenGroup]:
    """The groups again and again, without end, in a new order each time."""
    rng = random.Random(f"passes {seed}")
    while groups:
        yield from rng.sample(groups, len(groups))
