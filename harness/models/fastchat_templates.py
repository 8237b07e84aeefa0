"""FastChat's chat templates as Jinja.

FastChat (`fastchat.conversation`) keeps the formats that open models were trained with as Python; a checkpoint keeps its own
as Jinja. A named template is made by letting FastChat write dialogues with marked turns and reading off the words between
them; what was read off is rendered again and must equal what FastChat writes, or the template is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ALIASES = {"openchat": "openchat_3.5", "llama2": "llama-2", "vicuna": "vicuna_v1.1", "tinyllama": "TinyLlama"}
_SYSTEM, _TURNS = "§system§", ("§u0§", "§a0§", "§u1§", "§a1§", "§u2§")
_BEGIN, _END = "<s>", "</s>"  # how FastChat writes a Llama tokenizer's BOS and EOS


def fastchat_template(name: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """A FastChat template as Jinja, with the tokenizer's own BOS and EOS.

    Raises:
        DataError: FastChat is not installed, has no such template, or writes it in a way that cannot be put as Jinja.
    """
    try:
        from fastchat.conversation import conv_templates
    except ImportError as error:
        fix = "FastChat is not installed: pip install 'alignment-harness[templates]', or give a .jinja file"
        raise DataError(f"model.chat_template = {name!r}: {fix}") from error
    known = ALIASES.get(name, name)
    if known not in conv_templates:
        raise DataError(f"model.chat_template = {name!r}: FastChat has none; {did_you_mean(name, [*conv_templates, *ALIASES])}")
    if tokenizer.eos_token is None:
        raise DataError(
            f"model.chat_template = {name!r}: the tokenizer has no EOS token to end a turn with; give a .jinja file"
        )
    conversation = conv_templates[known]
    try:
        text = _Words.of(conversation).jinja()
        _check_equal(conversation, text)
    except ValueError as error:
        raise DataError(f"model.chat_template = {name!r}: {error}; name another, or give a .jinja file") from error
    return "{{ bos_token }}" + text if _adds_bos(tokenizer) and not text.startswith("{{ bos_token }}") else text


def _adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer begins a text with its BOS token: FastChat leaves that to it, a template must write it."""
    ids: list[int] = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]


@dataclass(frozen=True)
class _Words:
    """The strings that FastChat writes around the turns.

    Attributes:
        head: before the first user turn, no system turn given.
        system: before and after a given system turn; None where the format has no place for one.
        answer: between a user turn and its answer.
        close: after an answer.
        user: before a later user turn, `close` not counted.
        opening: after the last user turn of a prompt.
        question: after a last user turn that no answer is asked of.
    """

    head: str
    system: tuple[str, str] | None
    answer: str
    close: str
    user: str
    opening: str
    question: str

    @classmethod
    def of(cls, conversation: Any) -> _Words:
        head, answer, between, again, close = _cut(fastchat_text(conversation, None, _TURNS[:4]), _TURNS[:4])
        first, second, later, opening = _cut(fastchat_text(conversation, None, (*_TURNS[:3], None)), _TURNS[:3])
        *_, question = _cut(fastchat_text(conversation, None, _TURNS[:1]), _TURNS[:1])
        if (first, second, later) != (head, answer, between) or again != answer or not between.startswith(close):
            raise ValueError("FastChat writes its turns differently from place to place, which this harness does not follow")
        system = None
        given = fastchat_text(conversation, _SYSTEM, _TURNS[:1]).partition(_TURNS[0])[0]
        if given.count(_SYSTEM) == 1:
            before, _, after = given.partition(_SYSTEM)
            system = (before, after)
        return cls(head, system, answer, close, between.removeprefix(close), opening, question)

    def jinja(self) -> str:
        given = "{{ raise_exception('this chat template has no place for a system turn') }}"
        if self.system is not None:
            given = f"{_literal(self.system[0])}{{{{ messages[0]['content'] }}}}{_literal(self.system[1])}"
        turns = (
            "{%- for message in rest -%}"
            "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}"
            "{{ raise_exception('user and assistant must take turns, the user first') }}{%- endif -%}"
            "{%- if message['role'] == 'user' -%}"
            f"{{%- if not loop.first -%}}{_literal(self.user)}{{%- endif -%}}{{{{ message['content'] }}}}"
            f"{{%- if loop.last and add_generation_prompt -%}}{_literal(self.opening)}"
            f"{{%- elif loop.last -%}}{_literal(self.question)}{{%- endif -%}}"
            f"{{%- else -%}}{_literal(self.answer)}{{{{ message['content'] }}}}{_literal(self.close)}{{%- endif -%}}"
            "{%- endfor -%}"
        )
        system = (
            "{%- if messages[0]['role'] == 'system' -%}{%- set rest = messages[1:] -%}"
            f"{given}{{%- else -%}}{{%- set rest = messages -%}}{_literal(self.head)}{{%- endif -%}}"
        )
        return system + turns


def fastchat_text(conversation: Any, system: str | None, turns: Sequence[str | None]) -> str:
    """Return FastChat's text of a dialogue; a last turn of None asks for an answer."""
    copy = conversation.copy()
    copy.messages = []
    if system is not None:
        copy.set_system_message(system)
    for number, turn in enumerate(turns):
        copy.append_message(copy.roles[number % 2], turn)
    text: str = copy.get_prompt()
    return text


def _cut(text: str, marks: Sequence[str | None]) -> list[str]:
    """The words before, between and after marked turns."""
    parts = []
    for mark in marks:
        before, found, text = text.partition(str(mark))
        if not found:
            raise ValueError("FastChat does not write a turn as it is given")
        parts.append(before)
    return [*parts, text]


def _literal(words: str) -> str:
    """Words as Jinja, BOS and EOS as the tokenizer's own."""
    pieces = []
    for number, part in enumerate(words.split(_END)):
        if number:
            pieces.append("{{ eos_token }}")
        for index, piece in enumerate(part.split(_BEGIN)):
            if index:
                pieces.append("{{ bos_token }}")
            if piece:
                pieces.append(f"{{{{ {piece!a} }}}}")
    return "".join(pieces)


def _check_equal(conversation: Any, text: str) -> None:
    """The Jinja text against FastChat's own, with Llama's BOS and EOS."""
    for system in (None, "Be kind."):
        for turns in (["Hi"], ["Hi", None], ["Hi", "Yes?", "Why", None], ["Hi", "Yes?", "Why", "So."]):
            messages = [
                {"role": ("user", "assistant")[number % 2], "content": turn} for number, turn in enumerate(turns) if turn
            ]
            if system is not None:
                if "no place for a system turn" in text:
                    continue
                messages.insert(0, {"role": "system", "content": system})
            rendered = _render(text, messages, turns[-1] is None)
            if rendered != fastchat_text(conversation, system, turns):
                raise ValueError("what was read off FastChat's template does not write the same as it")


def _render(text: str, messages: list[dict[str, str]], asked: bool) -> str:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(text)
    return template.render(messages=messages, add_generation_prompt=asked, bos_token=_BEGIN, eos_token=_END)
