"""A judge's answer, from a server's reply to what rules may read.

`judge_answer` keeps what came, thoughts included, since it was paid for; `as_read` makes of it what rules may read.
"""

from __future__ import annotations

from dataclasses import replace

from harness.api.types import JudgeAnswer, divide
from harness.api.types.judgments import DECLINED, OPEN_THOUGHT, ended
from harness.api.types.thoughts import Delimiters
from harness.models.replies import ModelReply, ReplyChoice

# No version of the judge said it, but its server: no model is named.
SERVER_DECLINED = JudgeAnswer("", model="", finish=DECLINED)


def judge_answer(reply: ModelReply) -> JudgeAnswer:
    """Return a reply as an answer that can be stored.

    An answer without words is declined: no choices, no message, null content, a refusal, a filter's reason for the end. One
    that was interrupted while the judge thought has no words either, and is cut off instead.
    """
    choice = reply.choices[0] if reply.choices else ReplyChoice(None, refused=True)
    text, finish = choice.text or "", choice.finish or "stop"
    if choice.refused or (choice.text is None and not choice.thought and ended(finish)):
        text, finish = "", DECLINED
    return JudgeAnswer(
        text=text,
        model=reply.model,
        finish=finish,
        input_tokens=reply.input_tokens or 0,
        output_tokens=reply.output_tokens or 0,
        top_logprobs=choice.top_logprobs,
        thought=choice.thought,
    )


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
    """Return whether its server said what it took: every question has tokens, and so have words and thoughts."""
    return answer.input_tokens > 0 and (answer.output_tokens > 0 or not (answer.text or answer.thought))
