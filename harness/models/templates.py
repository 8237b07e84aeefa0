"""Chat templates: a checkpoint's own, a file's, the merging of system turns, and what a template must hold to be used."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import DataError
from harness.models.fastchat_templates import fastchat_template
from harness.models.options import SystemTurns
from harness.models.prompts import ChatTemplate
from harness.types import Message, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SYSTEM = "§system§"
_MERGE = (
    "{%- if messages and messages[0]['role'] == 'system' and messages|length > 1 -%}"
    "{%- set messages = [{'role': messages[1]['role'], 'content': messages[0]['content'] + '\\n\\n' + messages[1]['content']}]"
    " + messages[2:] -%}{%- endif -%}"
)
_PROBES = (
    (Message("user", "hi"),),
    (Message("user", "hi"), Message("assistant", "yes?"), Message("user", "why")),
)


def template_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of the template that prompts are written with."""
    return hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()


def choose_template(tokenizer: PreTrainedTokenizerBase, named: str | None, system_turns: SystemTurns) -> str | None:
    """The Jinja text to use in place of the checkpoint's own template; None for its own as it is.

    Args:
        named: `model.chat_template`: a FastChat name or alias, or the path of a .jinja file; None for the checkpoint's own.
        system_turns: `merge` puts a system turn before the first user turn, where the template refuses system turns.

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
    if system_turns == "merge" and not _takes_system_turns(tokenizer, chosen):
        chosen = _MERGE + str(chosen)
    return chosen if chosen != tokenizer.chat_template else None


def check_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a template that would give wrong prompts: two BOS tokens, no words that open the answer, an answer without end.

    Raises:
        DataError: says which, and what to do.
    """
    template = ChatTemplate(tokenizer)
    for messages in _PROBES:
        try:
            ids = template.prompt_ids(Prompt("probe", messages))
        except DataError as error:
            raise DataError(f"model.chat_template: {str(error).replace('prompt probe', 'a prompt', 1)}") from error
        if not ids:
            raise DataError("model.chat_template: it renders a prompt as nothing")
        _check_opening(template, messages)
    _ = template.end_id


def _check_opening(template: ChatTemplate, messages: tuple[Message, ...]) -> None:
    """The words before an answer in training must be those that a prompt ends with."""
    prompt = template.render(messages, add_generation_prompt=True)
    bare = template.render(messages, add_generation_prompt=False)
    whole = template.render((*messages, Message("assistant", _SYSTEM)), add_generation_prompt=False)
    before = whole.partition(_SYSTEM)[0]
    if prompt == bare and before.rstrip() != prompt.rstrip():
        raise DataError(
            "model.chat_template: it ignores add_generation_prompt, so a prompt would end before the words that open an "
            f"answer ({before[-40:]!r}): mend the template, or name another"
        )


def _takes_system_turns(tokenizer: PreTrainedTokenizerBase, template: Any) -> bool:
    """Whether a system turn's words come out."""
    from jinja2 import TemplateError

    turns = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": "hi"}]
    try:
        text = tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False, add_generation_prompt=True)
    except TemplateError:
        return False
    return _SYSTEM in text


def _from_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"model.chat_template = {str(path)!r}: it cannot be read ({error}); give a .jinja file") from error
