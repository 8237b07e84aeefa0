"""Chat templates: named ones equal FastChat's, and those that would give wrong prompts are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import CHATML, FORGETFUL, GEMMA, INSTRUCT, make_tokenizer
from fastchat.conversation import conv_templates

from harness.api.types import Message, Prompt, Response
from harness.errors import DataError
from harness.models.fastchat_templates import fastchat_text
from harness.models.templates import check_template, choose_template
from harness.models.tokenization import ChatTemplate

SYSTEM = Prompt("s", (Message("system", "be kind ."), Message("user", "is tea hot ?")))
NOT_WRITABLE = {"chatgpt", "pplxai", "bard", "gemini", "steerlm", "yuan2"}


def named(name: str, *, adds_bos: bool = True) -> ChatTemplate:
    tokenizer = make_tokenizer(None, adds_bos=adds_bos)
    tokenizer.chat_template = choose_template(tokenizer, name, "error")
    return ChatTemplate(tokenizer)


@pytest.mark.parametrize("name", ["zephyr", "openchat", "llama-2", "mistral", "vicuna_v1.1", "TinyLlama"])
def test_a_named_template_writes_what_fastchat_feeds_a_model(name: str) -> None:
    """FastChat gives the text to the tokenizer, which puts BOS before it; the ids must be the same."""
    template = named(name)
    conversation = conv_templates[{"openchat": "openchat_3.5"}.get(name, name)]
    for turns in (["hi"], ["hi", "yes ?", "is tea hot ?"]):
        messages = tuple(Message(("user", "assistant")[number % 2], turn) for number, turn in enumerate(turns))
        expected = template.tokenizer(fastchat_text(conversation, None, [*turns, None]))["input_ids"]
        assert template.prompt_ids(Prompt("p", messages)) == expected


def test_every_chat_format_of_fastchat_is_readable_or_refused_by_name() -> None:
    tokenizer = make_tokenizer(None)
    refused = set()
    for name in conv_templates:
        try:
            assert choose_template(tokenizer, name, "error")
        except DataError as error:
            assert f"model.chat_template = {name!r}: " in str(error)
            refused.add(name)
    assert refused == NOT_WRITABLE


def test_bos_is_written_only_for_a_tokenizer_that_writes_it() -> None:
    prompt = Prompt.of("p", "hi")
    with_bos, without = named("zephyr"), named("zephyr", adds_bos=False)
    assert with_bos.prompt_ids(prompt) == [with_bos.tokenizer.bos_token_id, *without.prompt_ids(prompt)]


def test_a_turn_ends_with_the_tokenizers_own_end() -> None:
    template = named("zephyr")
    check_template(template.tokenizer)
    assert template.end_id == template.tokenizer.eos_token_id
    assert template.response_ids(Prompt.of("p", "hi"), Response("yes"))[-1] == template.end_id


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("openchat", "'<|end_of_turn|>', which is no special token of this tokenizer"),
        ("zero_shot", "'###', which is no special token"),
    ],
)
def test_an_answer_that_would_end_at_an_ordinary_word_is_refused(name: str, words: str) -> None:
    with pytest.raises(DataError) as caught:
        check_template(named(name).tokenizer)
    assert words in str(caught.value)


def test_none_is_assumed_and_an_unknown_name_gets_a_hint() -> None:
    tokenizer = make_tokenizer(None)
    with pytest.raises(DataError, match="no chat template, and none is assumed: name the one"):
        choose_template(tokenizer, None, "error")
    with pytest.raises(DataError, match="FastChat has none; did you mean 'zephyr'"):
        choose_template(tokenizer, "zephir", "error")


def test_the_checkpoints_own_template_stays_as_it_is() -> None:
    for text in (CHATML, INSTRUCT, GEMMA):
        tokenizer = make_tokenizer(text)
        assert choose_template(tokenizer, None, "error") is None
        check_template(tokenizer)


def test_a_template_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "own.jinja"
    file.write_text(CHATML)
    assert choose_template(make_tokenizer(INSTRUCT), str(file), "error") == CHATML
    with pytest.raises(DataError, match=r"model.chat_template = .*no.jinja.*cannot be read"):
        choose_template(make_tokenizer(INSTRUCT), str(tmp_path / "no.jinja"), "error")


def test_two_bos_tokens_are_refused() -> None:
    with pytest.raises(DataError, match="begins with two BOS tokens"):
        check_template(make_tokenizer("{{ bos_token }}" + INSTRUCT))


def test_a_forgotten_generation_prompt_is_refused_and_instruct_formats_are_not() -> None:
    with pytest.raises(DataError, match=r"ignores add_generation_prompt.*assistant"):
        check_template(make_tokenizer(FORGETFUL))
    check_template(make_tokenizer(INSTRUCT))


@pytest.mark.parametrize("text", [INSTRUCT, GEMMA])
def test_a_refused_system_turn_is_an_error_or_merged_as_the_config_says(text: str) -> None:
    tokenizer = make_tokenizer(text)
    with pytest.raises(DataError, match=r"prompt s: the chat template refuses it: .*set model.system_turns to merge"):
        ChatTemplate(tokenizer).prompt_ids(SYSTEM)
    merged = make_tokenizer(choose_template(tokenizer, None, "merge"))
    check_template(merged)
    expected = Prompt.of("s", "be kind .\n\nis tea hot ?")
    assert ChatTemplate(merged).prompt_ids(SYSTEM) == ChatTemplate(tokenizer).prompt_ids(expected)
    plain = Prompt.of("p", "is tea hot ?")
    assert ChatTemplate(merged).prompt_ids(plain) == ChatTemplate(tokenizer).prompt_ids(plain)


def test_merging_leaves_a_template_alone_that_takes_system_turns() -> None:
    tokenizer = make_tokenizer(CHATML)
    assert choose_template(tokenizer, None, "merge") is None
    assert "system\nbe kind ." in tokenizer.decode(ChatTemplate(tokenizer).prompt_ids(SYSTEM))


def test_a_system_turn_left_out_in_silence_is_refused() -> None:
    silent = CHATML.replace("{% for message in messages %}", "{% for message in messages if message['role'] != 'system' %}")
    with pytest.raises(DataError, match="leaves its system turn out"):
        ChatTemplate(make_tokenizer(silent)).prompt_ids(SYSTEM)
    merged = make_tokenizer(choose_template(make_tokenizer(silent), None, "merge"))
    assert "be kind .\n\nis tea hot ?" in merged.decode(ChatTemplate(merged).prompt_ids(SYSTEM))
