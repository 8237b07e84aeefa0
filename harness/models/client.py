"""The client of OpenAI-compatible servers, for judges and for backends that generate.

The `openai` package speaks the protocol. When to ask again is decided here: its own retries ignore a `Retry-After` of more
than a minute, cannot be counted, and know nothing of a broken body. A request moves through these states:

    queued ──▶ in flight ──▶ answered
      ▲            ├───────▶ declined   the server will not answer this question; others go on
      │            ├───────▶ refused    the server will answer none: all stop
      │            ▼
      └────── backing off               a fault that may pass: until `attempts` are used up

A server that has too much to do (HTTP 429, or any status with `Retry-After`) holds back every request of its client, not
only the one it turned away; one that fails on a request holds back that request alone.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from harness.errors import StageError
from harness.extras import require
from harness.models.replies import ModelReply, filtered, read_reply, too_long
from harness.models.retry import RetryPolicy

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

T = TypeVar("T")
RETRIED = (408, 409, 425, 429)  # and every status from 500
LARGEST_REPLY = 64 * 2**20  # bytes, after decompression
# What openai's client tells of this machine with each request: no server needs it, and it takes a tenth of the processor time.
OMITTED = ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")


class RefusedError(StageError):
    """The server will not answer this request, however often it is asked (a redirect, or most of 4xx)."""


class DeclinedError(RefusedError):
    """The server declines this one question: a filter withholds the answer, or the question is too long (`too_long`)."""

    too_long = False


class TransientError(Exception):
    """A fault that may pass: the request backs off and is sent again.

    Attributes:
        reason: for messages; without the key.
        wait_seconds: how long the server asks to wait, None where it does not say.
        busy: whether the server has too much to do, so that other requests would fare no better.
        billed: whether it may have answered and may bill that: the request was sent, and no status turned it away.
    """

    def __init__(self, reason: str, wait_seconds: float | None = None, *, busy: bool = False, billed: bool = False) -> None:
        self.reason, self.wait_seconds, self.busy, self.billed = reason, wait_seconds, busy, billed
        super().__init__(reason)


@dataclass(frozen=True)
class Clock:
    """Time, which tests replace.

    Attributes:
        now: seconds of a clock that never goes back.
        today: seconds since 1970, for a `Retry-After` that is a date.
    """

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    today: Callable[[], float] = time.time


@dataclass
class ModelClient:
    """One OpenAI-compatible server on one event loop; an asynchronous context manager.

    Args:
        base_url: up to and including `/v1`, as a rule.
        key: the API key, or None; it appears in no message.
        called: what messages call the server.
        fixes: status -> what to do about a refusal with it; `fix` for every other status.
        when_exhausted: what to do when all attempts have failed.
        largest_reply: bytes of a reply after decompression.
    """

    base_url: str
    key: str | None
    retry: RetryPolicy
    called: str = "the server"
    fixes: Mapping[int, str] = field(default_factory=dict)
    fix: str = "check the request's fields"
    when_exhausted: str = "run again, or allow more attempts"
    largest_reply: int = LARGEST_REPLY
    clock: Clock = field(default_factory=Clock)
    _all_queued_until: float = 0.0
    _stopped: Exception | None = None

    async def __aenter__(self) -> Self:
        require("openai", "aiohttp")
        from openai import AsyncOpenAI, Omit, Timeout

        from harness.models.transport import http_client

        # Connecting is given up before the request is, so that a request that was never sent is known for that.
        timeout = Timeout(self.retry.timeout_seconds, connect=self.retry.timeout_seconds / 2)
        self._openai: AsyncOpenAI = AsyncOpenAI(
            base_url=self.base_url,
            api_key=self.key or "none",  # a server without keys ignores it
            max_retries=0,
            timeout=timeout,
            # Only compression whose output can be limited.
            default_headers=cast(Any, {"Accept-Encoding": "gzip", **{f"X-Stainless-{name}": Omit() for name in OMITTED}}),
            http_client=http_client(timeout, self.largest_reply),
        )
        return self

    async def __aexit__(self, *reason: object) -> None:
        await self._openai.close()

    @contextmanager
    def running(self) -> Iterator[asyncio.Runner]:
        """Open the client for a caller without an event loop: the runner runs coroutines, until the block ends."""
        with asyncio.Runner() as runner:
            runner.run(self.__aenter__())
            try:
                yield runner
            finally:
                runner.run(self.__aexit__())

    def stop(self, reason: Exception) -> None:
        """Send nothing new, for the first reason given; what is in flight is finished: it is paid for."""
        self._stopped = self._stopped or reason

    def check_stopped(self) -> None:
        """Raise the reason for which the client was stopped, if it was."""
        if self._stopped is not None:
            raise self._stopped

    async def complete(self, path: str, body: Mapping[str, object]) -> ModelReply:
        """Return the reply to a completion request, as often as it has to be sent.

        Raises:
            DeclinedError, RefusedError, StageError: as of `persist`.
        """
        return await self.persist(lambda: self.attempt_completion(path, body))

    async def models(self) -> list[str]:
        """Return the names of the models that the server lists."""
        listed = await self.persist(lambda: self._attempt("GET", "/models", None))
        data = listed.get("data") if isinstance(listed, dict) else None
        return [str(model["id"]) for model in data or () if isinstance(model, dict) and "id" in model]

    async def attempt_completion(self, path: str, body: Mapping[str, object]) -> ModelReply:
        """Send a completion request once and read its reply.

        Raises:
            TransientError: it is worth another attempt.
            DeclinedError, RefusedError: it is not.
        """
        answer = await self._attempt("POST", path, body)
        try:
            return read_reply(answer)
        except ValueError as error:
            raise TransientError(self._clean(str(error)), billed=True) from error

    async def persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return the result of `attempt`, which is called again after each TransientError until attempts are used up.

        Raises:
            StageError: every attempt failed, the server asks for more patience than a run has, or the client was stopped
                (with its reason).
        """
        reason, queued_until = "", 0.0
        for number in range(self.retry.attempts):
            await self._back_off(queued_until)
            self.check_stopped()
            try:
                return await attempt()
            except TransientError as failure:
                reason, queued_until = failure.reason, self._next_attempt(failure, number)
        raise StageError(
            f"{self.called} at {self.base_url} failed {self.retry.attempts} times ({reason}); {self.when_exhausted}"
        )

    async def for_each(self, items: Iterable[T], work: Callable[[T], Awaitable[None]], concurrency: int) -> None:
        """Call `work` on every item, `concurrency` at a time. The first error stops the client, and is raised at the end."""
        self._stopped = None  # an earlier failure was raised to its caller, who asks anew
        queue = iter(items)  # shared: each worker takes the next item when it is done with one

        async def worker() -> None:
            for item in queue:
                try:
                    await work(item)
                except Exception as error:
                    self.stop(error)
                    raise

        outcomes = await asyncio.gather(*(worker() for _ in range(concurrency)), return_exceptions=True)
        self.check_stopped()
        for outcome in outcomes:  # what is no Exception, such as a cancellation, stops no client
            if outcome is not None:
                raise outcome

    async def _back_off(self, queued_until: float) -> None:
        """Wait for a request's own time, and for that of all requests, which may be put off meanwhile."""
        while (wait := max(self._all_queued_until, queued_until) - self.clock.now()) > 0:
            await self.clock.sleep(wait)

    def _next_attempt(self, failure: TransientError, number: int) -> float:
        """Return when a request may be sent again, by the clock; a busy server puts all requests off until then."""
        asked = failure.wait_seconds or 0.0
        if asked > self.retry.longest_asked_seconds:
            raise StageError(
                f"{self.called} at {self.base_url} asks to come back in {asked / 3600:.1f} hours ({failure.reason}); "
                "what it answered is kept: run again then"
            )
        queued_until = self.clock.now() + self.retry.wait(number, asked)
        if failure.busy:
            self._all_queued_until = max(self._all_queued_until, queued_until)
        return queued_until

    async def _attempt(self, method: str, path: str, body: Mapping[str, object] | None) -> object:
        """Send one request; return the JSON of its reply, whatever media type its header claims."""
        import aiohttp
        import openai

        from harness.models.transport import ForeignRedirectError, failure_in_words, never_sent

        url = f"{self.base_url.rstrip('/')}{path}"
        try:
            async with asyncio.timeout(self.retry.timeout_seconds):
                # Without the client's typed methods, which take processor time, and reject what lacks a field of theirs.
                if method == "GET":
                    content = await self._openai.get(url, cast_to=bytes)
                else:
                    content = await self._openai.post(url, body=body, cast_to=bytes)
            return json.loads(content)
        except openai.APIStatusError as error:
            raise self._failure(error) from None
        except ForeignRedirectError as error:
            fix = "if you trust it, give its address as `base_url`"
            raise RefusedError(f"{self.called} at {self.base_url} refused: {self._clean(str(error))}; {fix}") from None
        except (openai.OpenAIError, aiohttp.ClientError, TimeoutError, ValueError, RecursionError) as error:
            words = self._clean(failure_in_words(error, self.retry.timeout_seconds))
            raise TransientError(words, billed=not never_sent(error)) from error

    def _failure(self, error: APIStatusError) -> Exception:
        """Return what a status means: declined, worth another attempt, or refused."""
        status = error.status_code
        reason = self._clean(f"HTTP {status}: {_server_words(error)}")
        words = f"{self.called} at {self.base_url} refused ({reason})"
        if filtered(error) or too_long(error):
            declined = DeclinedError(words)
            declined.too_long = not filtered(error)
            return declined
        if (status in RETRIED or status >= 500) and error.code != "insufficient_quota":
            asked = asked_to_wait(error.response.headers, self.clock.today())
            return TransientError(reason, asked, busy=status == 429 or asked is not None)
        return RefusedError(f"{words}: {self.fixes.get(status, self.fix)}")

    def _clean(self, text: str) -> str:
        """Return a server's words in one short line, without the key, which some servers repeat."""
        hidden = text.replace(self.key, "(the key)") if self.key else text
        return " ".join(hidden.split())[:300]


def _server_words(error: APIStatusError) -> str:
    """Return the message of a server's error object, or all of its body."""
    message = error.body.get("message") if isinstance(error.body, Mapping) else None
    return str(message or error.message)


def asked_to_wait(headers: Mapping[str, str], today: float) -> float | None:
    """Return the seconds of `retry-after-ms`, or of `Retry-After` as a number or a date; None if absent or unreadable."""
    with suppress(KeyError, ValueError):
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    with suppress(KeyError, ValueError):
        return max(0.0, float(headers["retry-after"]))
    with suppress(KeyError, ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - today)
    return None
