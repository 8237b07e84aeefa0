"""Text -> token ids, by the checkpoint's own chat template. The only place where a prompt meets a response."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from harness.errors import DataError
from harness.types import Message, Prompt, Response

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SENTINEL = "sentinel"


class ChatTemplate:
    """Renders prompts and responses as ids.

    Raises:
        DataError: the tokenizer has no chat template, or a prompt would begin with two BOS tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.chat_template:
            raise DataError(
                "the model's tokenizer has no chat template: name one as `model.chat_template` (zephyr, openchat, llama-2, … "
                "or a .jinja file), or set it in the checkpoint (chat_template.jinja); none is assumed"
            )
        self.tokenizer = tokenizer

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """The prompt up to and including the words that open the assistant's turn.

        Raises:
            DataError: the template refuses the dialogue or leaves its system turn out, or it would begin with two BOS tokens.
        """
        from jinja2 import TemplateError

        try:
            ids: list[int] = self.tokenizer.apply_chat_template(
                _messages(prompt.messages), add_generation_prompt=True, return_dict=False
            )
        except TemplateError as error:
            raise DataError(f"prompt {prompt.id}: the chat template refuses it: {error}{_system_fix(prompt)}") from error
        if prompt.messages[0].role == "system" and prompt.messages[0].content.strip() not in self.render(prompt.messages):
            raise DataError(f"prompt {prompt.id}: the chat template leaves its system turn out{_system_fix(prompt)}")
        if len(ids) > 1 and ids[0] == ids[1] == self.tokenizer.bos_token_id:
            both = "one of the chat template's and one of the tokenizer's: mend the template"
            raise DataError(f"prompt {prompt.id} begins with two BOS tokens, {both}")
        return ids

    def response_ids(self, response: Response) -> list[int]:
        """The response's words, and the end-of-turn token if the turn was ended. A special token spelt out is words."""
        ids: list[int] = self.tokenizer(response.text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [*ids, self.end_id] if response.finished else ids

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """The dialogue as text."""
        text: str = self.tokenizer.apply_chat_template(
            _messages(messages), tokenize=False, add_generation_prompt=add_generation_prompt
        )
        return text

    @cached_property
    def end_id(self) -> int:
        """The token that ends an assistant's turn: the first one the template writes after the response's words.

        Raises:
            DataError: it writes none, and the tokenizer has none; or it writes a word of the text's own vocabulary, at which
                answers would be cut.
        """
        dialogue = [Message("user", "hi"), Message("assistant", _SENTINEL)]
        rendered: str = self.tokenizer.apply_chat_template(_messages(dialogue), tokenize=False)
        tail = rendered.rpartition(_SENTINEL)[2].strip()
        ids: list[int] = self.tokenizer(tail, add_special_tokens=False)["input_ids"] if tail else []
        end = ids[0] if ids else self.tokenizer.eos_token_id
        if end is None:
            raise DataError("neither the chat template nor the tokenizer says how an assistant's turn ends")
        if end not in self.tokenizer.all_special_ids and end not in self.tokenizer.added_tokens_decoder:
            raise DataError(
                f"the chat template ends an assistant's turn with {tail[:20]!r}, which is no special token of this tokenizer, "
                "so an answer would end at an ordinary word: name another model.chat_template"
            )
        return int(end)


def _system_fix(prompt: Prompt) -> str:
    system = prompt.messages[0].role == "system"
    return "; set model.system_turns to merge to put the system turn before the first user turn" if system else ""


def _messages(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]
