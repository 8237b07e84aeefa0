"""What judges' servers reply: chat completions, and refusals that concern one question alone."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from harness.types import JudgeAnswer

if TYPE_CHECKING:
    from openai import APIStatusError

DECLINED = (  # as codes or types
    "content_filter",
    "content_policy_violation",
    "context_length_exceeded",
    "exceed_context_size_error",
    "string_above_max_length",
)
TOO_LONG = ("context length", "context size")  # servers of one's own say it in words
UNLIKELY = -9999.0  # OpenAI's log-probability of a token that is hardly possible; others say -Infinity or null
MOST_TOKENS = 2**31  # a count beyond is none
_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")  # JSON can hold half a character, UTF-8 cannot


def read_completion(body: Any) -> JudgeAnswer:
    """A chat completion's body, as an answer that can be stored whatever the server put into it.

    Raises:
        ValueError: it is none.
    """
    try:
        choice, usage = body["choices"][0], body.get("usage") or {}
        text = choice["message"].get("content") or ""
        if not isinstance(text, str):
            raise TypeError("the content is no text")
        finish = "declined" if choice["message"].get("refusal") else _text(choice.get("finish_reason") or "stop")
        return JudgeAnswer(
            text=_text(text),
            model=_text(body.get("model") or ""),
            finish=finish,
            input_tokens=_tokens(usage.get("prompt_tokens")),
            output_tokens=_tokens(usage.get("completion_tokens")),
            top_logprobs=_top_logprobs(choice),
        )
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"the body is no chat completion ({type(error).__name__}: {error})") from error


def reports_tokens(answer: JudgeAnswer) -> bool:
    """Whether its server said what it took: no question has no tokens, and no words do."""
    return answer.input_tokens > 0 and (answer.output_tokens > 0 or not answer.text)


def declines(error: APIStatusError) -> bool:
    """Whether a refusal is about its question, which is filtered or too long, and not about all of them."""
    if error.status_code not in (400, 413):
        return False
    said = error.message.lower()
    return error.code in DECLINED or error.type in DECLINED or any(words in said for words in TOO_LONG)


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
