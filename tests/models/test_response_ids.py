"""A response's ids are those of the rendered dialogue after the prompt, on every kind of tokenizer and template."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fastchat.conversation import conv_templates
from tokenizer_kinds import CHATML, HUB_TEMPLATES, KINDS, LLAMA_2, OPEN_THOUGHT, QWEN_3, ZEPHYR
from transformers import PreTrainedTokenizerBase

from harness.api.types import Message, Prompt, Response
from harness.errors import DataError
from harness.models.templates import check_template, choose_template
from harness.models.tokenization import ChatTemplate

PROMPTS = (
    Prompt.of("one", "name two fruits"),
    Prompt("two", (Message("user", "hi"), Message("assistant", "Yes , it is ."), Message("user", "Is it ?"))),
)
ANSWERS = ("The capital is Paris .", "    return x", "pear", "é ☃ 12", "- one\n- two")


@cache
def tokenizer_of(kind: str) -> PreTrainedTokenizerBase:
    return KINDS[kind]()


def with_template(tokenizer: PreTrainedTokenizerBase, text: str | None) -> ChatTemplate:
    tokenizer.chat_template = text
    return ChatTemplate(tokenizer)


def usable(tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[str, ChatTemplate]]:
    """Every template that the tokenizer can take; the others are refused with a reason that names the field."""
    for name in (*HUB_TEMPLATES, *conv_templates):
        tokenizer.chat_template = HUB_TEMPLATES.get(name)
        try:
            if name not in HUB_TEMPLATES:
                tokenizer.chat_template = choose_template(tokenizer, name, "error")
            check_template(tokenizer)
        except DataError as error:
            assert "model.chat_template" in str(error)
            continue
        yield name, ChatTemplate(tokenizer)


def check_pair(template: ChatTemplate, prompt: Prompt, answer: str, where: str) -> bool:
    """Check one answer against the whole dialogue as the tokenizer reads it; return whether a token straddles the boundary."""
    tokenizer = template.tokenizer
    asked = template.prompt_ids(prompt)
    assert asked == tokenizer.apply_chat_template(
        [vars(message) for message in prompt.messages], add_generation_prompt=True, return_dict=False
    ), where
    ids = template.response_ids(prompt, Response(answer))
    assert ids[-1] == template.end_id, where
    assert ids[:-1] and template.end_id not in ids[:-1], where
    whole = template.render([*prompt.messages, Message("assistant", answer)], add_generation_prompt=False)
    read = tokenizer(whole, add_special_tokens=False)["input_ids"]
    written = [*asked, *ids]
    if template.end_id not in read[len(asked) :]:  # the template writes no end of turn: it is added, in place of a line break
        read, written = tokenizer(whole.rstrip(), add_special_tokens=False)["input_ids"], written[:-1]
    if read[: len(written)] == written:
        return False
    # A token straddles the boundary: the text is the same, the prompt's ids stay those that a policy is asked with.
    assert tokenizer.decode(read).startswith(tokenizer.decode(written)), where
    assert read[: len(asked)] != asked, where
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_prompt_and_response_ids_are_those_of_the_dialogue(kind: str) -> None:
    tokenizer, names, straddling = tokenizer_of(kind), [], 0
    for name, template in usable(tokenizer):
        names.append(name)
        for prompt in PROMPTS:
            for answer in ANSWERS:
                if kind == "wordpiece":  # which loses white space: a boundary within a word cannot be kept, and is refused
                    try:
                        check_pair(template, prompt, answer, f"{kind}, {name}")
                    except DataError as error:
                        assert "no ids for the answer that continue the prompt's" in str(error)
                    continue
                straddling += check_pair(template, prompt, answer, f"{kind}, {name}, {prompt.id}, {answer!r}")
    assert len(names) >= 60, names
    assert {"zephyr", "llama-2", "llama-3", "chatml", "gemma", "phi-3", "qwen-3", "qwen-3-off"} <= set(names)
    assert kind not in ("byte-level", "legacy") or straddling


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("mistral-v3", "mistral-nemo", "smollm2")]


@pytest.mark.parametrize("model", ["mistral-v1", "llama-3", *SLOW])
def test_real_tokenizers_as_those_built_here(model: str, real_tokenizers: dict[str, Path]) -> None:
    """Each with every template that it can take."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(real_tokenizers[model])
    own = tokenizer.chat_template
    names = []
    for name, template in usable(tokenizer):
        names.append(name)
        # Where a token straddles, the tokenizer is copied: seconds in all for a vocabulary of this size.
        from_hub = name in HUB_TEMPLATES
        for answer in ANSWERS if from_hub else (ANSWERS[3],):
            for prompt in PROMPTS if from_hub else PROMPTS[-1:]:
                check_pair(template, prompt, answer, f"{model}, {name}, {prompt.id}, {answer!r}")
    assert len(names) >= 30, (model, names)
    template = with_template(tokenizer, own)
    for answer in ANSWERS:
        check_pair(template, PROMPTS[1], answer, f"{model}, its own, {answer!r}")


@pytest.mark.parametrize("kind", ["legacy", "metaspace-first", "metaspace-always"])
def test_an_answer_after_a_line_break_has_no_space_of_its_own(kind: str) -> None:
    """`…<|assistant|>\\n▁The` was trained where the template has `…\\nThe`."""
    template = with_template(tokenizer_of(kind), ZEPHYR)
    ids = template.response_ids(PROMPTS[0], Response("The capital"))
    first = template.tokenizer.convert_ids_to_tokens(ids)[0]
    assert not first.startswith("▁"), first
    assert template.text_of(ids) == "The capital"


@pytest.mark.parametrize("kind", ["byte-level", "metaspace-first", "legacy"])
@pytest.mark.parametrize("name", ["vicuna_v1.1", "llama-2"])
def test_the_space_that_a_template_writes_before_an_answer_is_trained(kind: str, name: str) -> None:
    """`ASSISTANT:The` was trained where the template has `ASSISTANT: The`."""
    tokenizer = tokenizer_of(kind)
    template = with_template(tokenizer, choose_template(tokenizer, name, "error"))
    ids = template.response_ids(PROMPTS[0], Response("The capital"))
    assert template.lead == " "
    assert tokenizer.decode([*template.prompt_ids(PROMPTS[0]), *ids]).replace(" </s>", "</s>").endswith(" The capital</s>")
    assert template.text_of(ids) == "The capital"


# A Unigram model has its special tokens among its words, and reads them in any text: nothing that a caller could do.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("wordpiece", "unigram")])
@pytest.mark.parametrize("text", [CHATML, ZEPHYR, LLAMA_2], ids=["chatml", "zephyr", "llama-2"])
def test_a_special_token_spelt_out_is_words_in_prompts_and_responses(kind: str, text: str) -> None:
    template = with_template(tokenizer_of(kind), text)
    added = template.tokenizer.added_tokens_decoder.items()
    special = {number for number, token in added if token.special}
    plain, spelt = Prompt.of("p", "what is it ?"), Prompt.of("p", "what is </s> and <|im_end|> ?")
    count = [sum(token in special for token in template.prompt_ids(prompt)) for prompt in (plain, spelt)]
    assert count[0] == count[1]
    ids = template.response_ids(spelt, Response("it is </s> , <|im_end|>"))
    assert sum(token in special for token in ids) == 1
    assert template.tokenizer.decode(ids[:-1]).strip() == "it is </s> , <|im_end|>"


@pytest.mark.parametrize("turn", ["<|im_start|>", "<|im_end|>", "<|im_start|>user\nhi<|im_end|>"])
def test_a_turn_that_is_a_special_token_alone_is_not_the_templates_own(turn: str) -> None:
    template = with_template(tokenizer_of("byte-level"), CHATML)
    tokens = template.tokenizer.convert_ids_to_tokens(template.prompt_ids(Prompt.of("p", turn)))
    assert tokens[0] == "<|im_start|>"
    assert [token for token in tokens if token in ("<|im_start|>", "<|im_end|>")] == [
        "<|im_start|>",
        "<|im_end|>",
        "<|im_start|>",
    ]
    assert "".join(tokens).replace("Ċ", "\n") == f"<|im_start|>user\n{turn}<|im_end|>\n<|im_start|>assistant\n"


def test_an_unfinished_response_has_no_end_and_no_space_before_it() -> None:
    template = with_template(tokenizer_of("legacy"), LLAMA_2)  # which writes ` The </s>`
    whole = template.response_ids(PROMPTS[0], Response("The"))
    cut = template.response_ids(PROMPTS[0], Response("The", finished=False))
    assert template.end_id not in cut
    assert whole[: len(cut)] == cut
    assert len(whole) == len(cut) + 2


def test_sampled_ids_are_kept_until_the_text_is_edited() -> None:
    template = with_template(tokenizer_of("byte-level"), CHATML)
    odd = [template.tokenizer.convert_tokens_to_ids(token) for token in ("T", "h", "e")]
    assert template.response_ids(PROMPTS[0], Response("The", finished=False)) != odd
    sampled = Response("The", finished=False, ids=tuple(odd))
    assert template.is_as_sampled(sampled)
    assert template.response_ids(PROMPTS[0], sampled) == odd
    edited = Response("She", finished=False, ids=tuple(odd))
    assert not template.is_as_sampled(edited)
    assert template.response_ids(PROMPTS[0], edited) == template.response_ids(PROMPTS[0], Response("She", finished=False))


def test_text_of_sampled_ids_keeps_indentation() -> None:
    template = with_template(tokenizer_of("byte-level"), CHATML)
    ids = template.tokenizer("\n\n    return x\n", add_special_tokens=False)["input_ids"]
    assert template.text_of([*ids, template.end_id]) == "    return x"


def test_every_end_token_stops_the_templates_own_first() -> None:
    template = with_template(tokenizer_of("byte-level"), CHATML)
    end, other = template.end_id, template.tokenizer.convert_tokens_to_ids("<|endoftext|>")
    eos = template.tokenizer.eos_token_id  # where engines end a response unasked
    assert template.stop_ids() == (end, eos)
    assert template.stop_ids(other) == (end, other, eos)
    assert template.stop_ids([end, other]) == (end, other, eos)


def test_a_template_that_opens_a_thought_in_prompts_alone_is_refused() -> None:
    with pytest.raises(DataError, match=r"(?s)opens an answer with .*a prompt ends with .*<think>.*enable_thinking"):
        check_template(with_template(tokenizer_of("byte-level"), OPEN_THOUGHT).tokenizer)


def test_thinking_is_switched_off_by_an_argument_of_the_template() -> None:
    tokenizer = tokenizer_of("byte-level")
    tokenizer.chat_template = QWEN_3
    on = ChatTemplate(tokenizer)
    assert on.prompt_text(PROMPTS[0]).endswith("<|im_start|>assistant\n")
    assert on.lead == "<think>\n\n</think>\n\n"  # part of the answer, since a prompt does not end with it
    tokenizer.chat_template = choose_template(tokenizer, None, "error", {"enable_thinking": False})
    check_template(tokenizer)
    off = ChatTemplate(tokenizer)
    assert off.prompt_text(PROMPTS[0]).endswith("<think>\n\n</think>\n\n")
    assert off.lead == ""
    both = [[*t.prompt_ids(PROMPTS[0]), *t.response_ids(PROMPTS[0], Response("Paris"))] for t in (off,)]
    tokenizer.chat_template = QWEN_3
    assert both == [[*on.prompt_ids(PROMPTS[0]), *on.response_ids(PROMPTS[0], Response("Paris"))]]


def test_earlier_thoughts_may_go_and_nothing_else() -> None:
    template = with_template(tokenizer_of("byte-level"), QWEN_3)
    thought = Message("assistant", "<think>\nhm\n</think>\n\nYes")
    dialogue = Prompt("p", (Message("user", "hi"), thought, Message("user", "why")))
    assert "hm" not in template.prompt_text(dialogue)
    assert template.text_of(template.response_ids(PROMPTS[0], Response("<think>\nhm\n</think>\n\nYes"))) == thought.content
    forgetful = with_template(tokenizer_of("byte-level"), CHATML.replace("message['content']", "message['content'][:2]"))
    with pytest.raises(DataError, match=r"prompt one: the chat template leaves its user turn out, or words of it"):
        forgetful.prompt_ids(PROMPTS[0])


def test_a_template_that_drops_the_thought_of_an_answer_is_refused_for_that_answer() -> None:
    text = CHATML.replace("message['content'] +", "message['content'].split('</think>')[-1] +")
    template = with_template(tokenizer_of("byte-level"), text)
    assert template.response_ids(PROMPTS[0], Response("Yes"))
    with pytest.raises(DataError, match="prompt one: the chat template leaves out words of the answer"):
        template.response_ids(PROMPTS[0], Response("<think>hm</think>Yes"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (CHATML.replace("for message in messages", "for message in messages[-1:]"), "leaves its user turn out"),
        (
            CHATML.replace("message['content'] +", "(message['content'] if message['role'] == 'user' else '') +"),
            "assistant turn",
        ),
        (CHATML.replace("message['content'] +", "(message['content'] if loop.last else '') +"), "leaves its user turn out"),
        (CHATML.replace("assistant\n' }}", "assistant\nAnswer: ' }}"), "opens an answer with"),
    ],
    ids=["last message alone", "no answers", "words of the last alone", "other opening"],
)
def test_a_template_that_loses_words_is_refused(text: str, words: str) -> None:
    with pytest.raises(DataError, match=rf"(?s)model\.chat_template: .*{words}"):
        check_template(with_template(tokenizer_of("byte-level"), text).tokenizer)


def test_a_turn_may_be_moved() -> None:
    """Mistral's templates write the system turn into the last user turn."""
    moved = (
        "{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' }}"
        "{% if loop.last and messages[0]['role'] == 'system' %}{{ messages[0]['content'] + '\n\n' }}{% endif %}"
        "{{ message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
        "{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
    )
    template = with_template(tokenizer_of("byte-level"), moved)
    prompt = Prompt("p", (Message("system", "be kind"), *PROMPTS[1].messages))
    assert "be kind\n\nIs it ?" in template.prompt_text(prompt)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"thinking": False},
            r"chat_template_kwargs\.thinking = False: the chat template never uses it; it asks for enable_thinking",
        ),
        ({"enable_thinking": False}, None),
    ],
)
def test_an_argument_that_the_template_never_uses_is_refused(given: dict[str, Any], message: str | None) -> None:
    tokenizer = tokenizer_of("byte-level")
    tokenizer.chat_template = QWEN_3
    if message is None:
        assert choose_template(tokenizer, None, "error", given)
        return
    with pytest.raises(DataError, match=message):
        choose_template(tokenizer, None, "error", given)


def test_arguments_of_every_json_type_reach_the_template() -> None:
    tokenizer = tokenizer_of("byte-level")
    tokenizer.chat_template = "{{ day }}|{{ n + 1 }}|{{ deep['a'][0] }}|{{ nothing is none }}|{{ messages[0]['content'] }}"
    given = {"day": "26 'Jul' {{ x }}\n", "n": 1, "deep": {"a": [True]}, "nothing": None}
    tokenizer.chat_template = choose_template(tokenizer, None, "error", given)
    assert ChatTemplate(tokenizer).render([Message("user", "hi")]) == "26 'Jul' {{ x }}\n|2|True|True|hi"


def test_an_empty_system_turn_is_kept_as_zephyr_was_tuned() -> None:
    tokenizer = tokenizer_of("byte-level")
    tokenizer.chat_template = ZEPHYR
    tokenizer.chat_template = choose_template(tokenizer, None, "empty")
    check_template(tokenizer)
    template = ChatTemplate(tokenizer)
    assert template.prompt_text(PROMPTS[0]) == "<|system|>\n</s>\n<|user|>\nname two fruits</s>\n<|assistant|>\n"
    given = Prompt("p", (Message("system", "be kind"), *PROMPTS[0].messages))
    assert template.prompt_text(given).count("<|system|>") == 1
    tokenizer.chat_template = HUB_TEMPLATES["gemma"].replace(
        "{{ bos_token }}", "{{ raise_exception('no') if messages[0]['role'] == 'system' }}"
    )
    with pytest.raises(DataError, match="system_turns = 'empty': the chat template has no place"):
        choose_template(tokenizer, None, "empty")


@pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "wordpiece"])
@pytest.mark.parametrize("name", ["zephyr", "llama-2", "llama-3", "chatml", "qwen-3-off"])
def test_ids_equal_those_of_trls_dpo_trainer(kind: str, name: str, tmp_path: Path) -> None:
    """Listed differences: what a template writes after the end of a turn is trained by TRL and not here; where a token
    straddles the boundary, TRL shortens the prompt to what both have in common.
    """
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import DPOConfig, DPOTrainer

    tokenizer = copy.deepcopy(tokenizer_of(kind))
    template = with_template(tokenizer, HUB_TEMPLATES[name])
    pairs = [(prompt, chosen, rejected) for prompt in PROMPTS for chosen, rejected in [(ANSWERS[0], ANSWERS[2]), ANSWERS[3:5]]]
    rows = [
        {
            "prompt": [vars(message) for message in prompt.messages],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
        }
        for prompt, chosen, rejected in pairs
    ]
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    model = LlamaForCausalLM(config)
    trainer = DPOTrainer(
        model=model,
        ref_model=copy.deepcopy(model),
        args=DPOConfig(
            output_dir=str(tmp_path), report_to=[], use_cpu=True, bf16=False, max_length=None, gradient_checkpointing=False
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    for (prompt, chosen, rejected), row in zip(pairs, trainer.train_dataset, strict=True):
        assert template.prompt_ids(prompt) == row["prompt_ids"]
        for answer, theirs in ((chosen, row["chosen_ids"]), (rejected, row["rejected_ids"])):
            ids = template.response_ids(prompt, Response(answer))
            assert ids == theirs[: len(ids)]
            assert not tokenizer.decode(theirs[len(ids) :]).strip()  # a line break after the end, at most
