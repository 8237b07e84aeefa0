"""Text -> token ids, by the checkpoint's own chat template. The only place where a prompt meets a response."""

from __future__ import annotations

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
                "the model's tokenizer has no chat template: set `tokenizer.chat_template` in the checkpoint "
                "(tokenizer_config.json or chat_template.jinja); none is assumed"
            )
        self.tokenizer = tokenizer

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """The prompt up to and including the words that open the assistant's turn."""
        ids: list[int] = self.tokenizer.apply_chat_template(
            _messages(prompt.messages), add_generation_prompt=True, return_dict=False
        )
        if len(ids) > 1 and ids[0] == ids[1] == self.tokenizer.bos_token_id:
            raise DataError(f"prompt {prompt.id} begins with two BOS tokens: the chat template and the tokenizer both add one")
        return ids

    def response_ids(self, response: Response) -> list[int]:
        """The response's words, and the end-of-turn token if the turn was ended. A special token spelt out is words."""
        ids: list[int] = self.tokenizer(response.text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [*ids, self.end_id] if response.finished else ids

    @cached_property
    def end_id(self) -> int:
        """The token that ends an assistant's turn: the first one the template writes after the response's words."""
        dialogue = [Message("user", "hi"), Message("assistant", _SENTINEL)]
        rendered: str = self.tokenizer.apply_chat_template(_messages(dialogue), tokenize=False)
        tail = rendered.rpartition(_SENTINEL)[2].strip()
        ids: list[int] = self.tokenizer(tail, add_special_tokens=False)["input_ids"] if tail else []
        end = ids[0] if ids else self.tokenizer.eos_token_id
        if end is None:
            raise DataError("neither the chat template nor the tokenizer says how an assistant's turn ends")
        return int(end)


def _messages(messages: tuple[Message, ...] | list[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]
