"""Chat completions as judges' servers send them: the answer or its absence, and refusals that concern one question alone.

`read_completion` keeps what came, thoughts included, since it was paid for; `as_read` makes of it what rules may read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.api.types import JudgeAnswer, divide
from harness.api.types.judgments import DECLINED, OPEN_THOUGHT, ended
from harness.api.types.thoughts import Delimiters

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
LONG_WORDS = ("context length", "context size")  # servers of one's own say it in words
UNLIKELY = -9999.0  # OpenAI's log-probability of a token that is hardly possible; others say -Infinity or null
MOST_TOKENS = 2**31  # a count beyond is none
LONGEST_REASON = 40  # characters of a finish reason, which warnings show
THOUGHTS = ("reasoning_content", "reasoning")  # fields of a message in which servers keep a thought apart
_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")  # JSON can hold half a character, UTF-8 cannot


def read_completion(body: Any) -> JudgeAnswer:
    """Return a chat completion's body as an answer that can be stored whatever the server put into it.

    A completion without words is declined: no choices, no message, null content, a refusal, a filter's `finish_reason`. What
    was interrupted while the judge thought has no words either, and is cut off.

    Raises:
        ValueError: it is none, or says that the server failed.
    """
    try:
        usage, choice = body.get("usage") or {}, _choice(body)
        message = choice["message"] if choice else None
        content, thought, refused = _parts(message) if message is not None else (None, "", False)
        finish = _text((choice or {}).get("finish_reason") or "stop")[:LONGEST_REASON]
        # Null content is a refusal, unless the judge was cut off, or all it gave is a thought.
        wordless = content is None and not thought and ended(finish)
        if refused or message is None or wordless or finish.lower() in FILTER_ENDS:
            content, finish = "", DECLINED
        return JudgeAnswer(
            text=_text(content or ""),
            model=_text(body.get("model") or ""),
            finish=finish,
            input_tokens=_tokens(usage.get("prompt_tokens")),
            output_tokens=_tokens(usage.get("completion_tokens")),
            top_logprobs=_top_logprobs(choice or {}),
            thought=_text(thought),
        )
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"the body is no chat completion ({type(error).__name__}: {error})") from error


def as_read(answer: JudgeAnswer, delimiters: Delimiters, max_tokens: int) -> JudgeAnswer:
    """Return an answer as rules may read it: without thoughts, and with a `finish` that says whether it came to its end.

    Args:
        max_tokens: how long it might be. One token is a whole answer where no more was asked for.
    """
    parts = divide(answer.text, delimiters)
    finish = answer.finish
    if finish != DECLINED and not parts.closed:
        finish = OPEN_THOUGHT
    elif finish != DECLINED and max_tokens == 1:
        finish = "stop"
    thought = answer.thought + parts.thought
    # The first tokens are the thought's where there is one, and their probabilities no verdict's.
    return replace(
        answer,
        text=parts.answer,
        finish=finish,
        thought=thought,
        top_logprobs=None if thought else answer.top_logprobs,
    )


def reports_tokens(answer: JudgeAnswer) -> bool:
    """Whether its server said what it took: no question has no tokens, and no words do."""
    return answer.input_tokens > 0 and (answer.output_tokens > 0 or not (answer.text or answer.thought))


def declines(error: APIStatusError) -> bool:
    """Return whether a refusal is about its question, which is filtered or too long, and not about all of them."""
    words = f"{error.message} {error.body}".lower()  # an error that is text alone, as xAI's, is in the body only
    if error.status_code in (400, 403, 422) and _filtered((error.code, error.type), words):
        return True
    if error.status_code not in (400, 413):
        return False
    return error.code in LONG or error.type in LONG or any(part in words for part in LONG_WORDS)


def _filtered(codes: Iterable[Any], words: str) -> bool:
    """Return whether an error is a filter's, by its codes or by its words in lower case."""
    return any(str(code).lower() in FILTERED for code in codes) or any(part in words for part in FILTERED_WORDS)


def _choice(body: Any) -> dict[str, Any] | None:
    """The first choice with a message or without one; None where a server gives no choice.

    Raises:
        ValueError: the server says in its body that it failed, as gateways do with a status of 200.
    """
    choices = body["choices"] if body.get("error") is None else body.get("choices")
    choice = choices[0] if choices else None
    error = body.get("error") or (choice or {}).get("error")
    if error is None:
        return choice
    fields = error if isinstance(error, Mapping) else {"message": error}
    words = str(fields.get("message") or "")
    if _filtered((fields.get("code"), fields.get("type")), words.lower()):
        return None
    raise ValueError(f"the server failed: {words[:200] or fields}")


def _parts(message: Mapping[str, Any]) -> tuple[str | None, str, bool]:
    """A message's words (None where it has none), its thought where that is kept apart, and whether it is a refusal."""
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


def _part_text(value: Any) -> str:
    """The text of a part of a content: a string, `{value: …}`, or a list of parts."""
    if isinstance(value, Mapping):
        value = value.get("text") or value.get("value")
    if isinstance(value, list):
        return "".join(map(_part_text, value))
    return value if isinstance(value, str) else ""


def _text(value: Any) -> str:
    return _LONE_SURROGATE.sub("\ufffd", str(value))


def _tokens(count: Any) -> int:
    """A count of tokens; 0 where there is none, or none that can be."""
    return int(count) if isinstance(count, int | float) and 0 <= count < MOST_TOKENS else 0


def _top_logprobs(choice: dict[str, Any]) -> tuple[tuple[str, float], ...] | None:
    content = (choice.get("logprobs") or {}).get("content")
    if not content:
        return None
    return tuple((_text(item["token"]), _logprob(item["logprob"])) for item in content[0].get("top_logprobs") or ())


def _logprob(value: Any) -> float:
    logprob = UNLIKELY if value is None else float(value)
    return logprob if math.isfinite(logprob) else UNLIKELY
