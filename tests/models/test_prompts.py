"""Where a prompt meets a response."""

from __future__ import annotations

import pytest

from harness.api.types import Message, Prompt, Response
from harness.errors import DataError
from harness.models.tokenization import ChatTemplate
from harness.sandbox.tokenizer import build_tokenizer

DIALOGUE = Prompt(
    "d", (Message("user", "name two fruits ."), Message("assistant", "pear , fig"), Message("user", "name one ."))
)


def test_a_dialogue_is_rendered_turn_by_turn() -> None:
    tokenizer = build_tokenizer()
    ids = ChatTemplate(tokenizer).prompt_ids(DIALOGUE)
    assert tokenizer.decode(ids) == (
        "<s> <user> name two fruits . <end> <assistant> pear , fig <end> <user> name one . <end> <assistant>"
    )


def test_end_of_turn_is_appended_only_if_the_turn_ended() -> None:
    tokenizer = build_tokenizer()
    template = ChatTemplate(tokenizer)
    assert template.end_id == tokenizer.eos_token_id
    assert template.response_ids(DIALOGUE, Response("pear")) == [
        *template.response_ids(DIALOGUE, Response("pear", finished=False)),
        template.end_id,
    ]


def test_a_prefix_goes_before_the_last_user_turn() -> None:
    prefixed = DIALOGUE.prefixed("please do :")
    assert prefixed.messages[:2] == DIALOGUE.messages[:2]
    assert prefixed.text == "please do : name one ."
    assert prefixed.id == DIALOGUE.id


def test_two_bos_tokens_are_refused() -> None:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    with pytest.raises(DataError, match="begins with two BOS tokens"):
        ChatTemplate(tokenizer).prompt_ids(DIALOGUE)


def test_a_missing_template_is_refused() -> None:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(DataError, match="no chat template"):
        ChatTemplate(tokenizer)
