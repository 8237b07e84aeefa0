"""Questions to a judge, each within a hard budget: `harness.models.client` sends them, and sends them again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from harness.api.types import JudgeAnswer, Message
from harness.models.client import Clock, DeclinedError, ModelClient, TransientError
from harness.models.judge.answers import JudgeCost
from harness.models.judge.budget import JudgeBudget
from harness.models.judge.reading import SERVER_DECLINED, judge_answer, reports_tokens
from harness.models.judge.settings import JudgeSettings
from harness.models.retry import RetryPolicy

LARGEST_REPLY = 8 * 2**20  # bytes: a judge writes a page at most
FIXES = {
    401: "check the key in the variable that judge.api_key_env names",
    403: "the key may not use this model",
    404: "check judge.model and judge.base_url, which ends in /v1 as a rule",
    429: "the account has no quota left",
}


@dataclass
class JudgeClient:
    """One judge on one event loop.

    Args:
        record_loss: called with the cost of a question that was sent and never answered.
        extra: parameters beyond the settings', such as `top_logprobs`.
    """

    settings: JudgeSettings
    server: ModelClient
    budget: JudgeBudget
    record_loss: Callable[[JudgeCost], None]
    extra: Mapping[str, object]

    async def ask(self, messages: Sequence[Message]) -> tuple[JudgeAnswer, JudgeCost]:
        """Return the judge's answer and its cost.

        Raises:
            BudgetSpent: it would not fit into the budget.
            StageError: the server refuses for good, failed `attempts` times, or asks for more patience than a run has.
        """
        turns = [{"role": message.role, "content": message.content} for message in messages]
        body = {"model": self.settings.model, "messages": turns, **self.settings.parameters, **self.extra}

        async def attempt() -> tuple[JudgeAnswer, JudgeCost]:
            # The most that the answer can cost is set aside before it is sent, and replaced by what it did cost in the end:
            # nothing where a status turned it away, all of it where nobody knows whether the server answered.
            reserved, paid = await self.budget.reserve(messages), JudgeCost()
            try:
                self.server.check_stopped()  # others may have failed while this one waited for its part of the budget
                answer = judge_answer(await self.server.attempt_completion("/chat/completions", body))
                paid = self._cost(answer, reserved)
                return answer, paid
            except DeclinedError:
                paid = JudgeCost(calls=1)
                return SERVER_DECLINED, paid
            except TransientError as failure:
                if failure.billed:
                    paid = reserved
                    self.record_loss(paid)
                raise
            finally:
                await self.budget.settle(reserved, paid)

        return await self.server.persist(attempt)

    def _cost(self, answer: JudgeAnswer, reserved: JudgeCost) -> JudgeCost:
        """Return the cost of an answer: all that was set aside where its server does not count its tokens."""
        if not reports_tokens(answer):
            return reserved
        price = self.settings.usd
        usd = price.of(answer.input_tokens, answer.output_tokens) if price else 0.0
        return JudgeCost(1, answer.input_tokens + answer.output_tokens, usd)


@asynccontextmanager
async def judge_client(
    settings: JudgeSettings,
    key: str | None,
    budget: JudgeBudget,
    record_loss: Callable[[JudgeCost], None],
    extra: Mapping[str, object],
    clock: Clock,
) -> AsyncIterator[JudgeClient]:
    """Open a client of the judge that `settings` name; `key` is its API key, or None."""
    server = ModelClient(
        settings.base_url,
        key,
        RetryPolicy(settings.attempts, settings.timeout_seconds),
        called=f"the judge {settings.model!r}",
        fixes=FIXES,
        fix="check the fields of the judge section",
        when_exhausted="what it answered is kept: run again, or raise judge.attempts",
        largest_reply=LARGEST_REPLY,
        clock=clock,
    )
    async with server:
        yield JudgeClient(settings, server, budget, record_loss, extra)
