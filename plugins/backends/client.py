"""Requests to an OpenAI-compatible server: sent until they are answered, or until it is clear that they won't be.

The only module here that speaks HTTP. The `openai` library does the speaking; when to try again is decided here, since a
broken body must be asked for again too. Sampling carries a seed, so a request asked twice has one answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from harness import StageError

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI

T = TypeVar("T")
AGAIN = frozenset({408, 409, 425, 429})  # and every 5xx
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 60.0
NO_CHOICES = 2  # as often a server answers without a choice before that is its answer
DECLINED = "declined"  # the `finish` of an answer that a server's filter withholds
FILTERED = frozenset({"content_filter", "content_policy_violation", "data_inspection_failed", "moderation_blocked"})  # as codes


@dataclass(frozen=True)
class Choice:
    """One answer; empty where it was declined. `finish` is the server's reason; `ids` its tokens, where they are told."""

    text: str
    finish: str
    ids: tuple[int, ...] | None


@dataclass(frozen=True)
class Reply:
    """A server's choices, and how many tokens it counted for all of them."""

    choices: tuple[Choice, ...]
    tokens: int | None


class RefusedError(StageError):
    """The server said that the request itself is wrong (4xx)."""


class _BrokenError(Exception):
    """An answer that is none: not JSON, or without choices."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for one answer, and how often to ask again."""

    timeout_seconds: float
    retries: int


class Client:
    """One server.

    Args:
        sleep: waits between attempts.
    """

    def __init__(
        self, base_url: str, api_key: str | None, patience: Patience, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        from openai import OpenAI

        self.base_url = base_url
        self._retries, self._sleep, self._key = patience.retries, sleep, api_key
        self._openai: OpenAI = OpenAI(
            base_url=base_url, api_key=api_key or "none", timeout=patience.timeout_seconds, max_retries=0
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._openai.close()

    def models(self) -> list[str]:
        """What the server says that it serves."""
        return self._patiently(lambda: [str(model.id) for model in self._openai.models.list().data])

    def chat(self, messages: Sequence[Mapping[str, str]], **fields: Any) -> Reply:
        """An answer to a dialogue, rendered by the server's own chat template."""
        create: Any = self._openai.chat.completions.create
        return self._answered(partial(create, messages=list(messages), **fields), _message_text, fields.get("n", 1))

    def complete(self, prompt: str | Sequence[int], **fields: Any) -> Reply:
        """A continuation of text or tokens."""
        create: Any = self._openai.completions.create
        return self._answered(partial(create, prompt=prompt, **fields), lambda choice: choice.text, fields.get("n", 1))

    def _answered(self, create: Callable[[], Any], text_of: Callable[[Any], str | None], n: int) -> Reply:
        """A reply; `n` empty answers where a filter declines the prompt, or no choice comes twice: that ends no run."""
        from openai import APIStatusError

        empty = 0

        def ask() -> Reply:
            nonlocal empty
            try:
                reply = _reply(create(), text_of)
            except APIStatusError as error:
                if error.status_code in (400, 403, 422) and FILTERED & {error.code, error.type}:
                    return _declined(n)
                raise
            if not reply.choices:
                empty += 1
                if empty < NO_CHOICES:
                    raise _BrokenError("an answer without choices")
                return _declined(n)
            return reply

        return self._patiently(ask)

    def _patiently(self, ask: Callable[[], T]) -> T:
        """What `ask` returns, asked again while there is hope.

        Raises:
            RefusedError: the server will not answer this request.
            StageError: it did not answer in any attempt.
        """
        from openai import APIConnectionError, APIResponseValidationError, APIStatusError

        wait, problem = FIRST_WAIT_SECONDS, ""
        for attempt in range(self._retries + 1):
            try:
                return ask()
            except APIStatusError as error:
                problem = self._said(error)
                if error.status_code not in AGAIN and error.status_code < 500:
                    raise RefusedError(f"the server at {self.base_url} refused: {problem}") from None
                pause = _retry_after(error)
            except (APIConnectionError, APIResponseValidationError, _BrokenError, ValueError) as error:
                problem, pause = self._hidden(f"{type(error).__name__}: {error}")[:300], None
            if attempt < self._retries:
                self._sleep(min(LONGEST_WAIT_SECONDS, wait if pause is None else pause))
                wait *= 2
        raise StageError(f"the server at {self.base_url} gave no answer in {self._retries + 1} attempts; last: {problem}")

    def _said(self, error: APIStatusError) -> str:
        """A server's own words, cut short, without the key if it repeats it."""
        return self._hidden(f"{error.status_code} {error.message}")[:500]

    def _hidden(self, words: str) -> str:
        return words.replace(self._key, "…") if self._key else words


def _declined(n: int) -> Reply:
    return Reply((Choice("", DECLINED, None),) * n, 0)


def _message_text(choice: Any) -> str | None:
    """A chat message's words; None for none, or a refusal. Where a server keeps thoughts apart, they are put before the words,
    as the model wrote them: `evaluation.response` says what becomes of them."""
    message = choice.message
    if message is None or getattr(message, "refusal", None):
        return None
    content, extra = message.content, getattr(message, "model_extra", None) or {}
    if isinstance(content, list):  # text parts
        parts = [part if isinstance(part, dict) else {"text": str(part)} for part in content]
        content = "".join(str(part["text"]) for part in parts if isinstance(part.get("text"), str))
    elif content is not None and not isinstance(content, str):
        raise _BrokenError(f"an answer whose content is no text: {str(content)!r}")
    thought = next((extra[name] for name in ("reasoning_content", "reasoning") if isinstance(extra.get(name), str)), "")
    if not thought:
        return content
    # A thought that used up the length limit never ended.
    return f"<think>{thought}" + (f"</think>{content or ''}" if content or choice.finish_reason == "stop" else "")


def _reply(answer: Any, text_of: Callable[[Any], str | None]) -> Reply:
    """A server's reply; without choices where it gives an empty list of them."""
    if isinstance(answer, str) or not hasattr(answer, "choices"):
        raise _BrokenError(f"an answer without choices: {str(answer)[:300]!r}")
    choices = answer.choices
    if (getattr(answer, "model_extra", None) or {}).get("error"):  # gateways fail with a status of 200
        raise _BrokenError(f"a server that failed: {str(answer)[:300]!r}")
    if choices is None and "choices" not in answer.model_fields_set:
        raise _BrokenError(f"an answer without choices: {str(answer)[:300]!r}")
    if not choices:
        return Reply((), None)
    usage = getattr(answer, "usage", None)
    read = tuple(_choice(choice, text_of(choice)) for choice in sorted(choices, key=lambda choice: choice.index or 0))
    return Reply(read, getattr(usage, "completion_tokens", None))


def _choice(choice: Any, text: str | None) -> Choice:
    """A choice without words is one that was declined, and not one that its model ended."""
    ended = str(choice.finish_reason or "")
    return Choice(text or "", DECLINED if text is None or ended in FILTERED else ended, _ids(choice))


def _ids(choice: Any) -> tuple[int, ...] | None:
    """The answer's tokens where the server adds them (vLLM's `return_token_ids`)."""
    ids = (getattr(choice, "model_extra", None) or {}).get("token_ids")
    whole = isinstance(ids, list) and all(type(token) is int for token in ids)
    return tuple(ids) if ids and whole else None


def _retry_after(error: APIStatusError) -> float | None:
    """Seconds that the server asks to wait; None where it does not say (or says a date)."""
    try:
        return max(0.0, float(error.response.headers.get("retry-after", "")))
    except ValueError:
        return None
