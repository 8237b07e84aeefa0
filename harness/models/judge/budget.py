"""A hard budget in calls, tokens and dollars: no question is sent whose dearest answer could exceed it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from harness.api.types import Message
from harness.models.judge.answers import JudgeCost
from harness.models.judge.settings import JudgeSettings, Price

TOKENS_PER_MESSAGE = 16  # what templates add around a message, generously


class BudgetSpent(Exception):  # noqa: N818
    """The next question does not fit into what is left; says which limit and how much of it was used."""


def most_tokens(messages: Iterable[Message]) -> int:
    """An upper bound of a question's tokens: a token of a byte-level vocabulary holds at least a byte."""
    return sum(len(message.content.encode()) + TOKENS_PER_MESSAGE for message in messages)


@dataclass
class JudgeBudget:
    """The cost of answered questions, and the most that those in flight can cost.

    A question that does not fit waits until others have been answered for less than was set aside for them. When none is in
    flight and it still does not fit, the budget is spent.
    """

    settings: JudgeSettings
    spent: JudgeCost
    _promised: JudgeCost = field(default_factory=JudgeCost)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def reserve(self, messages: Iterable[Message]) -> JudgeCost:
        """Set aside the most that a question can cost.

        Raises:
            BudgetSpent: it does not fit, and nothing that is under way could change that.
        """
        tokens_in = most_tokens(messages)
        price = self.settings.usd or Price(0, 0)
        most = JudgeCost(1, tokens_in + self.settings.max_tokens, price.of(tokens_in, self.settings.max_tokens))
        async with self._changed:
            while limit := self._exceeded(self.spent + self._promised + most):
                if self._promised.calls == 0 or self._exceeded(self.spent + most):
                    raise BudgetSpent(limit)
                await self._changed.wait()
            self._promised += most
        return most

    async def settle(self, reserved: JudgeCost, paid: JudgeCost) -> None:
        """Replace what was set aside by what was paid; nothing where the server refused the question."""
        async with self._changed:
            self._promised -= reserved
            self.spent += paid
            self._changed.notify_all()

    def _exceeded(self, total: JudgeCost) -> str:
        """Return the limit that a total exceeds, in words; empty if it exceeds none."""
        limits = {
            "max_usd": (self.settings.max_usd, total.usd, self.spent.usd),
            "max_calls": (self.settings.max_calls, total.calls, self.spent.calls),
            "max_total_tokens": (self.settings.max_total_tokens, total.tokens, self.spent.tokens),
        }
        for name, (limit, value, used) in limits.items():
            if limit is not None and value > limit * (1 + 1e-9):
                return f"judge.{name} = {limit:g}, of which {used:g} is used"
        return ""
