"""Rows as data sets publish them -> prompt, target, ranking. One reader per layout; each documents the columns it reads.

A reader raises `ValueError` for a row that is not in its layout, and `UnusableError` for a well-formed row that cannot be
used, which is dropped and counted under the reason.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness import Message
from harness_plugins.sources.hh_rlhf import kept_text, split_pair, turns

Turn = Literal["last", "first"]
_HH_RLHF = re.compile(r"\s*Human:.*\n\nAssistant:", re.DOTALL)
# Where an answer begins in a text that names its speakers at the beginnings of lines.
_ANSWERS = re.compile(
    r"^[ \t]*(?:#{1,6}[ \t]*)?(?:assistant|ai|bot|gpt|model|answer|a|response|output)[ \t]*:", re.IGNORECASE | re.MULTILINE
)
_ENDS = frozenset("?!。！？;:")  # a word may follow without a space
FormatName = Literal["standard", "hh_rlhf", "ultrafeedback", "ultrachat", "nectar"]


class UnusableError(Exception):
    """A row that cannot be used; its text is the reason that is counted."""


@dataclass(frozen=True)
class Record:
    """A row: the dialogue that asks, and what answers it."""

    messages: tuple[Message, ...]
    target: str | None
    ranked: tuple[str, ...]
    writer: str | None = None  # the model that wrote the target, where the layout says


def read_standard(row: Mapping[str, Any], turn: Turn) -> Record:
    """This harness's own columns, and TRL's.

    `prompt` (text, or a list of {role, content}) with any of: `target` or `completion`; `ranked`, a list from best to worst;
    `chosen` and `rejected`. Or without `prompt`: `chosen` and `rejected` that begin alike (TRL's implicit prompt), or
    `messages`, a dialogue whose last (or first) assistant turn is the target. Texts may be conversational: a list of one
    assistant message. `label` is for `desirable` to read before.
    """
    if "chosen" in row or "rejected" in row:
        return _pair(row)
    if "prompt" not in row:
        if "messages" in row:
            return _conversation(_messages(row["messages"], "messages"), turn)
        raise ValueError(
            f"neither `prompt`, `chosen` and `rejected`, nor `messages`; found: {', '.join(sorted(row)) or 'nothing'}"
        )
    ranked = row.get("ranked") or ()
    if isinstance(ranked, str) or not isinstance(ranked, Sequence):
        raise ValueError("`ranked` should be a list of responses, the best first")
    responses = tuple(_response(item, f"ranked.{number}") for number, item in enumerate(ranked))
    given = next((name for name in ("target", "completion") if row.get(name) is not None), None)
    target = _response(row[given], given) if given else responses[0] if responses else None
    return Record(_prompt(row["prompt"]), target, responses)


def _pair(row: Mapping[str, Any]) -> Record:
    chosen, rejected = (_required(row, name) for name in ("chosen", "rejected"))
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise ValueError("`chosen` and `rejected` should both be text, or both be lists of messages")
    if row.get("prompt") is not None:
        messages = _prompt(row["prompt"])
        pair = (_after(chosen, messages, "chosen"), _after(rejected, messages, "rejected"))
    elif isinstance(chosen, str):
        _not_hh_rlhf(chosen)
        start = implicit_prompt(chosen, rejected)
        answers = (chosen[start:].removeprefix(" "), rejected[start:].removeprefix(" "))  # the space is the separator
        messages, pair = _prompt(chosen[:start]), (_words(answers[0], "chosen"), _words(answers[1], "rejected"))
    else:
        first, second = _messages(chosen, "chosen"), _messages(rejected, "rejected")
        if first[:-1] != second[:-1]:
            raise UnusableError("prompts differ")
        messages = _asks(first[:-1])
        pair = (_response([_row(first[-1])], "chosen"), _response([_row(second[-1])], "rejected"))
    target = row.get("target")
    return Record(messages, pair[0] if target is None else _response(target, "target"), pair)


def implicit_prompt(chosen: str, rejected: str) -> int:
    """Return how many characters are the prompt of two texts that begin alike.

    TRL takes all that both share, less a space before the difference. That cuts words in two (`Assistant: bl`, `ue` and
    `ack`), and answers after the words that both begin with. So the prompt goes back to where the last speaker who answers is
    named (`Assistant:`, `A:`, `### Response:` at the beginning of a line), else to the end of a word. Where one text begins
    the other, all of it is shared, and the row has an empty response.
    """
    end = next((place for place, (one, other) in enumerate(zip(chosen, rejected, strict=False)) if one != other), None)
    if end is None:
        return min(len(chosen), len(rejected))
    speakers = [match.end() for match in _ANSWERS.finditer(chosen, 0, end)]
    if speakers:
        return speakers[-1]
    while end and not _between_words(chosen, rejected, end):
        end -= 1
    return end - 1 if end and chosen[end - 1] == " " else end


def _between_words(one: str, other: str, place: int) -> bool:
    """Return whether a common prefix of two texts ends at a word's boundary. Scripts without spaces have one anywhere."""
    before, after = one[place - 1], (one[place], other[place])
    if before.isspace() or all(character.isspace() for character in after):
        return True
    if any(unicodedata.combining(character) or character in "\u200d\ufe0f" for character in after):
        return False  # a part of the character before
    if all(unicodedata.east_asian_width(character) in "WF" for character in (before, *after)):
        return True
    return before in _ENDS and not any(character.isnumeric() or character in _ENDS for character in after)


def _not_hh_rlhf(text: str) -> None:
    """Refuse a dialogue in HH-RLHF's layout, which would be read as the words of one user turn."""
    if _HH_RLHF.match(text):
        raise ValueError("it is a dialogue with `\\n\\nHuman:` and `\\n\\nAssistant:`: read it with `source.format: hh_rlhf`")


def desirable(row: Mapping[str, Any], wanted: bool) -> Mapping[str, Any]:
    """Return a row without TRL's `label` of unpaired preferences, if it is one of the rows that are wanted.

    Raises:
        ValueError: it has a label and none is wanted, or the label is not true or false.
        UnusableError: it is wanted to be desirable and is not.
    """
    if "label" not in row or "chosen" in row or "rejected" in row:
        return row
    label = row["label"]
    if label not in (True, False):
        raise ValueError(
            f"`label` should be true or false, TRL's mark of unpaired preferences, and is {str(label)[:40]!r}: "
            "rename the column if it does not judge the completion"
        )
    if not wanted:
        raise ValueError(
            "`label` marks TRL's unpaired preferences: `source.unpaired: desirable` reads the rows labelled true as targets "
            "and drops those labelled false; without the label undesirable completions would be targets too"
        )
    if not label:
        raise UnusableError("undesirable completion")
    return {name: value for name, value in row.items() if name != "label"}


def read_hh_rlhf(row: Mapping[str, Any], turn: Turn) -> Record:
    """Anthropic/hh-rlhf: `chosen` and `rejected`, whole dialogues as text with `Human:` and `Assistant:`.

    Or as others publish it: a `prompt` that ends with `Assistant:`, and the rest of each dialogue as `chosen` and `rejected`,
    or one answer as `target` or `completion`.
    """
    if "prompt" not in row:
        pair = split_pair(_text(row, "chosen"), _text(row, "rejected"))
        if isinstance(pair, str):
            raise UnusableError(pair)
        return Record(pair.messages, pair.chosen, (pair.chosen, pair.rejected))
    messages = _opened(_text(row, "prompt"))
    if "chosen" in row or "rejected" in row:
        ranked = (_words(row.get("chosen"), "chosen"), _words(row.get("rejected"), "rejected"))
        return Record(messages, ranked[0], ranked)
    name = "target" if "target" in row else "completion"
    return Record(messages, _words(_required(row, name), name), ())


def _opened(prompt: str) -> tuple[Message, ...]:
    """The turns of a prompt in HH-RLHF's layout, which ends where the assistant is to answer."""
    spoken = turns(prompt.rstrip())
    if spoken is None or spoken[-1].content:
        raise UnusableError("malformed turn order")
    return _asks(spoken[:-1])


def read_ultrafeedback(row: Mapping[str, Any], turn: Turn) -> Record:
    """HuggingFaceH4/ultrafeedback_binarized: `prompt`, and `chosen` and `rejected` as whole dialogues of messages.

    The dialogues hold the prompt; scores are not read, so ties stay as the data set orders them.
    """
    return _pair({"chosen": _required(row, "chosen"), "rejected": _required(row, "rejected")})


def read_ultrachat(row: Mapping[str, Any], turn: Turn) -> Record:
    """HuggingFaceH4/ultrachat_200k: `messages`, user and assistant in turn."""
    return _conversation(_messages(_required(row, "messages"), "messages"), turn)


def read_nectar(row: Mapping[str, Any], turn: Turn) -> Record:
    """berkeley-nest/Nectar: `prompt` as HH-RLHF writes dialogues, `answers` with `answer`, `rank` (1 the best) and `model`."""
    messages = _opened(_text(row, "prompt"))
    answers = _required(row, "answers")
    try:
        ordered = sorted(answers, key=lambda item: float(item["rank"]))
        ranked = tuple(_words(item["answer"], "answers.answer") for item in ordered)
    except (TypeError, KeyError) as error:
        raise ValueError("`answers` should be a list of {answer, rank, …}") from error
    if not ranked:
        raise UnusableError("empty response")
    writer = ordered[0].get("model") if isinstance(ordered[0], Mapping) else None
    return Record(messages, ranked[0], ranked, writer if isinstance(writer, str) else None)


READERS: Mapping[FormatName, Callable[[Mapping[str, Any], Turn], Record]] = {
    "standard": read_standard,
    "hh_rlhf": read_hh_rlhf,
    "ultrafeedback": read_ultrafeedback,
    "ultrachat": read_ultrachat,
    "nectar": read_nectar,
}


def mapped(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The row under our names: `{"prompt": "instruction"}` reads `instruction` as `prompt`; dots lead into objects."""
    found = {name: value for name, value in row.items() if value is not None and name not in columns.values()}
    for name, path in columns.items():
        value: Any = row
        for part in path.split("."):
            if not isinstance(value, Mapping) or part not in value:
                raise ValueError(f"`{path}`, which `columns` reads as `{name}`, is missing; found: {', '.join(sorted(row))}")
            value = value[part]
        found[name] = value
    return found


def _conversation(messages: Sequence[Message], turn: Turn) -> Record:
    """A dialogue split before its last assistant turn, or before its first."""
    answers = [place for place, message in enumerate(messages) if message.role == "assistant"]
    if not answers:
        raise UnusableError("no assistant turn")
    place = answers[-1 if turn == "last" else 0]
    return Record(_asks(messages[:place]), messages[place].content, ())


def _prompt(value: Any) -> tuple[Message, ...]:
    if isinstance(value, str):
        _not_hh_rlhf(value)
        return _asks([Message("user", _words(value, "prompt"))])
    return _asks(_messages(value, "prompt"))


def _asks(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Messages that ask: a system turn perhaps, then user and assistant in turn, the user last."""
    spoken = [message.role for message in messages if message.role != "system"]
    late = any(message.role == "system" for message in messages[1:])
    if late or not spoken or spoken != (["user", "assistant"] * len(spoken))[: len(spoken)] or spoken[-1] != "user":
        raise UnusableError("malformed turn order")
    if not all(message.content for message in messages if message.role != "system"):
        raise UnusableError("empty turn")
    return tuple(message for message in messages if message.content)


def _after(value: Any, messages: Sequence[Message], name: str) -> str:
    """A response given alone, or as a dialogue that repeats the prompt."""
    if not isinstance(value, str) and len(value) > 1:
        dialogue = _messages(value, name)
        if tuple(dialogue[:-1]) != tuple(messages):
            raise UnusableError("prompts differ")
        value = [_row(dialogue[-1])]
    return _response(value, name)


def _response(value: Any, name: str) -> str:
    """The words of a response: text, or a list of one assistant message."""
    if isinstance(value, str):
        return _words(value, name)
    messages = _messages(value, name)
    if len(messages) != 1 or messages[0].role != "assistant":
        raise ValueError(f"`{name}` should be text, or a list of one assistant message")
    return messages[0].content


def _messages(value: Any, name: str) -> list[Message]:
    if isinstance(value, str | Mapping) or not isinstance(value, Sequence) or not value:
        raise ValueError(f"`{name}` should be text or a list of messages, and is {type(value).__name__}")
    found = []
    for number, item in enumerate(value):
        role = item.get("role") if isinstance(item, Mapping) else None
        if role not in ("system", "user", "assistant"):
            raise ValueError(f"`{name}.{number}.role` should be system, user or assistant, and is {role!r}")
        found.append(Message(role, _words(item.get("content"), f"{name}.{number}.content")))
    return found


def _row(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}


def _required(row: Mapping[str, Any], name: str) -> Any:
    if row.get(name) is None:
        raise ValueError(f"`{name}` is missing; found: {', '.join(sorted(row)) or 'nothing'}")
    return row[name]


def _text(row: Mapping[str, Any], name: str) -> str:
    """A column's text as it is."""
    return _checked(_required(row, name), name)


def _words(value: Any, name: str) -> str:
    """A turn's text; `kept_text` says what of it is kept."""
    return kept_text(_checked(value, name))


def _checked(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"`{name}` should be text, and is {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"`{name}` holds half a surrogate pair, which is no text") from error
    return value
