"""Replies of OpenAI-compatible servers: completions as their servers send them, and refusals that concern one question alone.

Servers differ in where they put a refusal, a thought or a failure. `read_reply` takes in what is known of them; judges and
backends decide what it means to them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openai import APIStatusError

FILTERED = (  # as codes or types
    "content_filter",
    "content_policy_violation",
    "data_inspection_failed",
    "moderation_blocked",
    "responsibleaipolicyviolation",
)
FILTER_ENDS = (*FILTERED, "refusal", "safety", "prohibited_content", "blocklist", "recitation", "sensitive")  # finish reasons
# Servers that tell a filter's refusal from others in words alone: DeepSeek, Anthropic, Azure, OpenAI (`invalid_prompt`), xAI.
FILTERED_WORDS = (
    "content exists risk",
    "content filtering policy",
    "content management policy",
    "limited access to this content for safety reasons",
    "violating our usage policy",
    "violates usage guidelines",
)
LONG = ("context_length_exceeded", "exceed_context_size_error", "string_above_max_length")
LONG_WORDS = ("context length", "context size")  # self-hosted servers say it in words
UNLIKELY = -9999.0  # OpenAI's log-probability of a token that is hardly possible; others say -Infinity or null
MOST_TOKENS = 2**31  # a larger count is an error of the server
LONGEST_REASON = 40  # characters of a finish reason, which warnings show
THOUGHTS = ("reasoning_content", "reasoning")  # fields of a message in which servers keep a thought apart
_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")  # JSON can hold half a character, UTF-8 cannot


@dataclass(frozen=True)
class ReplyChoice:
    """One choice of a completion, with strings that can be stored whatever the server put into them.

    Attributes:
        text: its words; None where it has none: null content, or no message at all.
        thought: what the server keeps apart as the model's reasoning.
        finish: the server's reason for the end, "" where it gives none.
        refused: whether it is no answer of the model: no message, a refusal, or a filter's reason for the end.
        token_ids: the sampled tokens, where the server adds them (vLLM's `return_token_ids`).
        top_logprobs: (token, log-probability in nats) of the likeliest first tokens; None where not asked for.
    """

    text: str | None
    thought: str = ""
    finish: str = ""
    refused: bool = False
    token_ids: tuple[int, ...] | None = None
    top_logprobs: tuple[tuple[str, float], ...] | None = None


@dataclass(frozen=True)
class ModelReply:
    """A completion: its choices by their index (none where the server gives none), the model's name, its count of tokens."""

    choices: tuple[ReplyChoice, ...]
    model: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None


def read_reply(body: object) -> ModelReply:
    """Return the body of a completion or chat completion.

    Raises:
        ValueError: it is neither, or says that the server failed, as gateways do with a status of 200.
    """
    if not isinstance(body, Mapping):
        raise ValueError(f"the body is no completion: {str(body)[:200]!r}")
    try:
        usage = body.get("usage") or {}
        choices = sorted(_choices(body), key=lambda choice: choice.get("index") or 0)
        return ModelReply(
            tuple(map(_read_choice, choices)),
            _text(body.get("model") or ""),
            _tokens(usage.get("prompt_tokens")),
            _tokens(usage.get("completion_tokens")),
        )
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"the body is no completion ({type(error).__name__}: {error})") from error


def filtered(error: APIStatusError) -> bool:
    """Return whether a status is a content filter's refusal of one question."""
    return error.status_code in (400, 403, 422) and _filtered((error.code, error.type), _words(error))


def too_long(error: APIStatusError) -> bool:
    """Return whether a status says that one question is longer than the model reads."""
    if error.status_code not in (400, 413):
        return False
    return error.code in LONG or error.type in LONG or any(part in _words(error) for part in LONG_WORDS)


def _words(error: APIStatusError) -> str:
    """Return all that a server says of an error, in lower case; one that is text alone, as xAI's, is in the body only."""
    return f"{error.message} {error.body}".lower()


def _filtered(codes: Iterable[object], words: str) -> bool:
    """Return whether an error is a filter's, by its codes or by its words in lower case."""
    return any(str(code).lower() in FILTERED for code in codes) or any(part in words for part in FILTERED_WORDS)


def _choices(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return a body's choices; none where a filter withholds them.

    Raises:
        ValueError: the server says in its body, or in a choice, that it failed.
    """
    choices = body["choices"] if body.get("error") is None else body.get("choices")
    error = body.get("error") or next((choice["error"] for choice in choices or () if choice.get("error")), None)
    if error is None:
        return list(choices or ())
    fields = error if isinstance(error, Mapping) else {"message": error}
    words = str(fields.get("message") or "")
    if _filtered((fields.get("code"), fields.get("type")), words.lower()):
        return []
    raise ValueError(f"the server failed: {words[:200] or fields}")


def _read_choice(choice: Mapping[str, Any]) -> ReplyChoice:
    """Return a choice of a chat, which has a message, or of a completion of text."""
    finish = _text(choice.get("finish_reason") or "")[:LONGEST_REASON]
    message = choice["message"] if "message" in choice or "text" not in choice else {"content": choice["text"]}
    content, thought, refused = (None, "", True) if message is None else _parts(message)
    return ReplyChoice(
        None if content is None else _text(content),
        _text(thought),
        finish,
        refused or finish.lower() in FILTER_ENDS,
        _token_ids(choice.get("token_ids")),
        _top_logprobs(choice),
    )


def _parts(message: Mapping[str, Any]) -> tuple[str | None, str, bool]:
    """Return a message's words (None where it has none), its thought where that is kept apart, and whether it is a refusal."""
    content, refused = message.get("content"), bool(message.get("refusal"))
    thought = next((value for name in THOUGHTS if isinstance(value := message.get(name), str) and value), "")
    if content is None or isinstance(content, str):
        return content, thought, refused
    if not isinstance(content, list):
        raise TypeError("the content is no text")
    words: list[str] = []
    for part in content:
        if isinstance(part, str):
            words.append(part)
        elif part.get("type") == "refusal" or part.get("refusal"):
            refused = True
        elif part.get("type") in ("thinking", "reasoning"):
            thought += _part_text(part.get("thinking") or part.get("text") or part.get("content"))
        elif "text" in part:
            words.append(_part_text(part["text"]))
    return "".join(words) if words else None, thought, refused


def _part_text(value: object) -> str:
    """Return the text of a part of a content: a string, `{value: …}`, or a list of parts."""
    if isinstance(value, Mapping):
        value = value.get("text") or value.get("value")
    if isinstance(value, list):
        return "".join(map(_part_text, value))
    return value if isinstance(value, str) else ""


def _text(value: object) -> str:
    return _LONE_SURROGATE.sub("\ufffd", str(value))


def _tokens(count: object) -> int | None:
    """Return a count of tokens; None where there is none, or an impossible one."""
    return int(count) if isinstance(count, int | float) and 0 <= count < MOST_TOKENS else None


def _token_ids(ids: object) -> tuple[int, ...] | None:
    """Return token ids, None for anything that is no list of whole numbers; True is none, though Python counts it as 1."""
    whole = isinstance(ids, list) and all(type(token) is int for token in ids)
    return tuple(ids) if whole and isinstance(ids, list) and ids else None


def _top_logprobs(choice: Mapping[str, Any]) -> tuple[tuple[str, float], ...] | None:
    logprobs = choice.get("logprobs") or {}
    content = logprobs.get("content")
    if not content:
        return None
    return tuple((_text(item["token"]), _logprob(item["logprob"])) for item in content[0].get("top_logprobs") or ())


def _logprob(value: Any) -> float:
    logprob = UNLIKELY if value is None else float(value)
    return logprob if math.isfinite(logprob) else UNLIKELY
