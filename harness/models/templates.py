"""Chat templates: a checkpoint's own, a file's, the merging of system turns, and what a template must hold to be used."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api.types import Message, Prompt, Response
from harness.errors import DataError
from harness.models.fastchat_templates import fastchat_template
from harness.models.options import SystemTurns
from harness.models.rendering import EMPTY_SYSTEM, MERGE_SYSTEM, render
from harness.models.tokenization import ChatTemplate, is_lead

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SYSTEM, _ANSWER = "§system§", "§answer§"
# Turns that no template holds itself, so that one which is left out shows.
_PROBES = (
    (Message("user", "§first§"),),
    (Message("user", "§first§"), Message("assistant", "§second§"), Message("user", "§third§")),
)


def template_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of the template that prompts are written with."""
    return hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()


def tokenizer_difference(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> str | None:
    """Return how two tokenizers differ, so that ids of one are not ids of the other; None where they spell texts alike.

    Templates may differ: what is compared under two models is the same answer, after each model's own prompt.
    """
    own, others = one.get_vocab(), other.get_vocab()
    if own != others:
        return f"{len(own):,} tokens against {len(others):,}" if len(own) != len(others) else "other tokens"
    if _pieces(one) != _pieces(other):
        return "other rules that cut a text into tokens"
    ends = [template.tokenizer.convert_ids_to_tokens(template.end_id) for template in (ChatTemplate(one), ChatTemplate(other))]
    return f"a turn ends with {ends[0]!r} against {ends[1]!r}" if ends[0] != ends[1] else None


def _pieces(tokenizer: PreTrainedTokenizerBase) -> object:
    """Return what a fast tokenizer does to a text before special tokens are put around it; None of a slow one."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    rules = json.loads(backend.to_str())
    return [rules.get(part) for part in ("normalizer", "pre_tokenizer", "model")]


def choose_template(
    tokenizer: PreTrainedTokenizerBase,
    named: str | None,
    system_turns: SystemTurns,
    arguments: Mapping[str, Any] | None = None,
) -> str | None:
    """The Jinja text to use in place of the checkpoint's own template; None for its own as it is.

    Args:
        named: `model.chat_template`: a FastChat name or alias, or the path of a .jinja file; None for the checkpoint's own.
        system_turns: `merge` puts a system turn before the first user turn, where the template refuses system turns; `empty`
            gives a dialogue without one an empty one.
        arguments: `model.chat_template_kwargs`, set within the template, so that whatever reads it from then on has them.

    Raises:
        DataError: there is none, or none of that name; names the field.
    """
    if named is not None:
        chosen = _from_file(Path(named).expanduser()) if named.endswith(".jinja") else fastchat_template(named, tokenizer)
    elif tokenizer.chat_template:
        chosen = tokenizer.chat_template
    else:
        raise DataError(
            "model.chat_template: the checkpoint has no chat template, and none is assumed: name the one that it is to be "
            "used with (zephyr, openchat, llama-2, … of FastChat, or a .jinja file)"
        )
    if arguments:
        chosen = _with_arguments(str(chosen), arguments)
    if system_turns == "merge" and not _takes_system_turns(tokenizer, chosen):
        chosen = MERGE_SYSTEM + str(chosen)
    if system_turns == "empty":
        if not _takes_system_turns(tokenizer, chosen):
            raise DataError("model.system_turns = 'empty': the chat template has no place for a system turn; leave it out")
        chosen = EMPTY_SYSTEM + str(chosen)
    return chosen if chosen != tokenizer.chat_template else None


def check_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a template that would give other dialogues than are meant.

    It must keep every turn, begin with one BOS token at most, open an answer in training with the words that a prompt ends
    with, and end it with a token that no text holds.

    Raises:
        DataError: says what is wrong, and what to do.
    """
    template = ChatTemplate(tokenizer)
    probes = [Prompt("probe", messages) for messages in _PROBES]
    for prompt in probes:
        try:
            ids = template.prompt_ids(prompt)
        except DataError as error:
            raise DataError(f"model.chat_template: {str(error).replace('prompt probe', 'a prompt', 1)}") from error
        if not ids:
            raise DataError("model.chat_template: it renders a prompt as nothing")
    for prompt in probes:
        _check_opening(template, prompt)
    _ = template.end_id
    try:
        template.response_ids(probes[0], Response(_ANSWER))
    except DataError as error:
        raise DataError(f"model.chat_template: {str(error).removeprefix('prompt probe: ')}") from error


def _check_opening(template: ChatTemplate, prompt: Prompt) -> None:
    """The words before an answer in training must be those that a prompt ends with.

    White space may follow them, and the empty thought of a template for models that think: both are then part of the answer
    as it is trained, and of what the model writes when it is asked.
    """
    asked = template.prompt_text(prompt)
    bare = template.render(prompt.messages, add_generation_prompt=False)
    whole = template.render((*prompt.messages, Message("assistant", _ANSWER)), add_generation_prompt=False)
    before, _, after = whole.partition(_ANSWER)
    if not after and before == whole:
        raise DataError("model.chat_template: it leaves the answer out: fix the template, or name another")
    if before.startswith(asked) and is_lead(before.removeprefix(asked)):
        return
    if asked == bare:
        raise DataError(
            "model.chat_template: it ignores add_generation_prompt, so a prompt would end before the words that open an "
            f"answer ({before[-40:]!r}): fix the template, or name another"
        )
    raise DataError(f"model.chat_template: {template.opening_problem(asked, whole, _ANSWER)}")


def _with_arguments(template: str, arguments: Mapping[str, Any]) -> str:
    """The template with values for names that it asks for; they hold in every later use, by servers too."""
    for name in arguments:
        if not re.search(rf"\b{re.escape(name)}\b", template):
            names = sorted(set(re.findall(r"(\w+) is (?:not )?defined", template)) - {"loop"})
            asked = f"it asks for {', '.join(names)}" if names else "it takes no arguments"
            raise DataError(
                f"model.chat_template_kwargs.{name} = {arguments[name]!r}: the chat template never uses it; {asked}"
            )
    settings = "".join(f"{{%- set {name} = {_jinja(value)} -%}}" for name, value in sorted(arguments.items()))
    return settings + template


def _jinja(value: Any) -> str:
    """A JSON value as Jinja writes it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_jinja(str(key))}: {_jinja(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_jinja, value)) + "]"
    return ascii(value) if isinstance(value, str) else json.dumps(value).replace("null", "none")


def _takes_system_turns(tokenizer: PreTrainedTokenizerBase, template: Any) -> bool:
    """Whether a system turn's words come out."""
    from jinja2 import TemplateError

    try:
        text = render(tokenizer, [Message("system", _SYSTEM), Message("user", "hi")], template=template)
    except TemplateError:
        return False
    return _SYSTEM in text


def _from_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"model.chat_template = {str(path)!r}: it cannot be read ({error}); give a .jinja file") from error
