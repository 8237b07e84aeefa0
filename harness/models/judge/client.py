"""Asking a judge: openai's asynchronous client against any base URL, one connection pool, a hard budget.

Retries are ours and not openai's, whose own ignore a `Retry-After` of more than a minute and cannot be counted. A server that
has too much to do holds every question back, not only the one it refused; one that fails on a question holds that one back.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, cast

from harness.api.types import JudgeAnswer, Message
from harness.api.types.judgments import DECLINED
from harness.errors import StageError
from harness.models.judge.answers import Spending
from harness.models.judge.budget import Budget
from harness.models.judge.replies import declines, read_completion, reports_tokens
from harness.models.judge.settings import JudgeSettings

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 60.0
PATIENCE_SECONDS = 3600.0  # a server that says to come back later than that has a quota for the day: a person decides
PASSING = (408, 409, 425, 429)  # and all from 500
# What openai's client says of this machine with each request: no server needs it, and it takes a tenth of the processor time.
UNSAID = ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")


@dataclass(frozen=True)
class Clock:
    """Time, so that tests need none.

    Attributes:
        now: seconds of a clock that never goes back.
        today: seconds since 1970, for a `Retry-After` that is a date.
    """

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    today: Callable[[], float] = time.time


class Passing(Exception):  # noqa: N818
    """The server failed in a way that another try may mend.

    Attributes:
        wait_seconds: what it asked for, None where nothing.
        busy: whether it has too much to do, so that other questions would fare no better.
        billed: whether it may have answered, and bill that: the question was sent, and no status refused it.
    """

    def __init__(self, reason: str, wait_seconds: float | None = None, *, busy: bool = False, billed: bool = False) -> None:
        self.reason, self.wait_seconds, self.busy, self.billed = reason, wait_seconds, busy, billed
        super().__init__(reason)


@dataclass
class JudgeClient:
    """One judge on one event loop.

    Args:
        key: the API key, or None; it appears in no message.
        lose: told what a question cost that was sent and never answered.
        extra: parameters beyond the settings', such as `top_logprobs`.
    """

    settings: JudgeSettings
    key: str | None
    budget: Budget
    lose: Callable[[Spending], None]
    extra: dict[str, Any] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    _not_before: float = 0.0
    _stopped: Exception | None = None

    async def __aenter__(self) -> JudgeClient:
        from openai import AsyncOpenAI, DefaultAioHttpClient, Omit, Timeout

        # Connections are given up before a question is, so that a question that was not sent is known for that.
        timeout = Timeout(self.settings.timeout_seconds, connect=self.settings.timeout_seconds / 2)
        self._openai: AsyncOpenAI = AsyncOpenAI(
            base_url=self.settings.base_url,
            api_key=self.key or "none",  # a server without keys ignores it
            max_retries=0,
            timeout=timeout,
            default_headers=cast(Any, {f"X-Stainless-{what}": Omit() for what in UNSAID}),
            # One connection pool, of up to 1,000 connections. httpx's own looks at every idle connection before each
            # request and takes twice the processor time of aiohttp's.
            http_client=DefaultAioHttpClient(timeout=timeout),
        )
        return self

    async def __aexit__(self, *reason: object) -> None:
        await self._openai.close()

    def stop(self, reason: Exception) -> None:
        """Send nothing new, for the first reason given; what is under way is finished: it is paid for."""
        self._stopped = self._stopped or reason

    async def ask(self, messages: Sequence[Message]) -> tuple[JudgeAnswer, Spending]:
        """The judge's answer and its cost. An error stops all questions.

        How many questions are under way at a time is the caller's to say.

        Raises:
            BudgetSpent: it would not fit into the budget.
            StageError: the server refuses for good, failed `attempts` times, or asks for more patience than a run has.
        """
        try:
            return await self._ask(messages)
        except Exception as error:
            self.stop(error)
            raise

    async def _ask(self, messages: Sequence[Message]) -> tuple[JudgeAnswer, Spending]:
        reason, not_before = "", 0.0
        for attempt in range(self.settings.attempts):
            await self._hold(not_before)
            self._go_on()
            reserved, paid = await self.budget.reserve(messages), Spending()
            try:
                self._go_on()  # others may have failed while this one waited for its part of the budget
                answer, paid = await self._try(messages, reserved)
                return answer, paid
            except Passing as failure:
                if failure.billed:
                    paid = reserved
                    self.lose(paid)
                reason, not_before = failure.reason, self._defer(failure, attempt)
            finally:
                await self.budget.settle(reserved, paid)
        raise StageError(
            f"the judge {self.settings.model!r} at {self.settings.base_url} failed {self.settings.attempts} times "
            f"({self._clean(reason)}); what it answered is kept: run again, or raise judge.attempts"
        )

    def _go_on(self) -> None:
        if self._stopped is not None:
            raise self._stopped

    def _paid(self, answer: JudgeAnswer, reserved: Spending) -> Spending:
        """What an answer cost: all that was set aside where its server does not say."""
        if not reports_tokens(answer):
            return reserved
        price = self.settings.usd
        usd = price.of(answer.input_tokens, answer.output_tokens) if price else 0.0
        return Spending(1, answer.input_tokens + answer.output_tokens, usd)

    async def _hold(self, not_before: float) -> None:
        """Wait for a question's own time, and for that of all questions, which may be put off meanwhile."""
        while (wait := max(self._not_before, not_before) - self.clock.now()) > 0:
            await self.clock.sleep(wait)

    def _defer(self, failure: Passing, attempt: int) -> float:
        """When to ask again: after a time that doubles, less a random part, or what the server asked where that is longer."""
        asked = failure.wait_seconds or 0.0
        if asked > PATIENCE_SECONDS:
            raise StageError(
                f"the judge {self.settings.model!r} at {self.settings.base_url} asks to come back in {asked / 3600:.1f} hours "
                f"({self._clean(failure.reason)}); what it answered is kept: run again then"
            )
        own: float = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**attempt) * random.uniform(0.5, 1.0)
        not_before = self.clock.now() + max(asked, own)
        if failure.busy:
            self._not_before = max(self._not_before, not_before)
        return not_before

    async def _try(self, messages: Sequence[Message], reserved: Spending) -> tuple[JudgeAnswer, Spending]:
        """One request. Raises `Passing` where another may go better."""
        import aiohttp
        import openai

        said = [{"role": message.role, "content": message.content} for message in messages]
        sent = {"model": self.settings.model, "messages": said, **self.settings.parameters, **self.extra}
        try:
            async with asyncio.timeout(self.settings.timeout_seconds):
                # Without the client's typed method and its merging of URLs, which take processor time and are not needed here.
                body = await self._openai.post(f"{self.settings.base_url}/chat/completions", body=sent, cast_to=object)
            answer = read_completion(body)
            return answer, self._paid(answer, reserved)
        except openai.APIStatusError as error:
            return self._refused(error), Spending(calls=1)
        except (openai.OpenAIError, aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise Passing(f"{type(error).__name__}: {error}", billed=not _unsent(error)) from error

    def _refused(self, error: APIStatusError) -> JudgeAnswer:
        """An answer that says no, `Passing` where the server may change its mind, `StageError` where it will not."""
        if declines(error):
            return JudgeAnswer("", model="", finish=DECLINED)  # no version of the judge said it, but its server
        status = error.status_code
        if (status in PASSING or status >= 500) and error.code != "insufficient_quota":
            asked = self._asked_to_wait(error.response.headers)
            raise Passing(f"HTTP {status}", asked, busy=status == 429 or asked is not None) from error
        fixes = {
            401: "check the key in the variable that judge.api_key_env names",
            403: "the key may not use this model",
            404: "check judge.model and judge.base_url, which ends in /v1 as a rule",
            429: "the account has no quota left",
        }
        fix = fixes.get(status, "check the fields of the judge section")
        raise StageError(
            f"the judge {self.settings.model!r} at {self.settings.base_url} refused (HTTP {status}: "
            f"{self._clean(error.message)}): {fix}"
        ) from None

    def _asked_to_wait(self, headers: Any) -> float | None:
        """`retry-after-ms`, or `Retry-After` in seconds or as a date; None where absent or unreadable."""
        with suppress(KeyError, ValueError):
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        with suppress(KeyError, ValueError):
            return max(0.0, float(headers["retry-after"]))
        with suppress(KeyError, ValueError, TypeError):
            return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - self.clock.today())
        return None

    def _clean(self, text: str) -> str:
        """A server's words without the key, in one short line."""
        hidden = text.replace(self.key, "(the key)") if self.key else text
        return " ".join(hidden.split())[:300]


def _unsent(error: BaseException) -> bool:
    """Whether no connection came about. The classes that httpx has for it also stand for connections that broke later."""
    import aiohttp

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        cause = cause.__cause__
    return cause is not None
