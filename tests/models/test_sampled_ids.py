"""Own samples keep the ids they were sampled as, and every end token of the checkpoint ends one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkpoints import CHATML, INSTRUCT, make_checkpoint, make_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from harness.api.types import Example, Prompt, Response, Sampling
from harness.errors import DataError
from harness.models.generate import generate
from harness.models.load import generation_eos, load, model_eos
from harness.models.logps import TokenRow, score
from harness.models.tokenization import ChatTemplate
from harness.run.stages.context import save_checkpoint
from harness.training.settings import SftSettings
from harness.training.sft import fine_tune

PROMPTS = [Prompt.of("a", "name two fruits ."), Prompt.of("b", "is tea hot ?")]
# As Qwen's (the template's end, and the one of pretraining) and Llama 3's (three, the template's among them).
ENDS = {"qwen": ["<|im_end|>", "</s>"], "llama3": ["</s>", "<end_of_turn>", "<|im_end|>"], "one": "<|im_end|>"}


def checkpoint(folder: Path, ends: Sequence[str] | str) -> Path:
    make_checkpoint(folder, "qwen2")
    ids = make_tokenizer(CHATML).convert_tokens_to_ids(ends if isinstance(ends, str) else list(ends))
    write_ends(folder, ids)
    return folder


def write_ends(folder: Path, ids: Any) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ids, "do_sample": True, "temperature": 0.6}))


@pytest.fixture
def llama3(tmp_path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return load(checkpoint(tmp_path / "llama3", ENDS["llama3"]))


@pytest.mark.parametrize("name", ENDS)
def test_each_end_token_of_the_checkpoint_ends_a_response(tmp_path: Path, name: str) -> None:
    model, tokenizer = load(checkpoint(tmp_path / name, ENDS[name]))
    named = [ENDS[name]] if isinstance(ENDS[name], str) else ENDS[name]
    ends = set(tokenizer.convert_tokens_to_ids(["<|im_end|>", "</s>", *named]))  # the template's and the tokenizer's, always
    assert set(ChatTemplate(tokenizer).stop_ids(model_eos(model))) == ends
    drawn = [r for row in generate(model, tokenizer, PROMPTS, Sampling(n=256, max_tokens=16)) for r in row]
    finished = [response for response in drawn if response.finished]
    assert {response.ids[-1] for response in finished} == ends
    assert not any(ends & set(response.ids[:-1]) for response in finished)
    assert not any(ends & set(response.ids) for response in drawn if not response.finished)
    assert all(response.tokens == len(response.ids) <= 16 for response in drawn)
    assert not any(token in response.text for response in drawn for token in ("<|im_end|>", "</s>"))


def test_a_response_is_trained_and_scored_on_the_ids_it_was_sampled_as(llama3) -> None:
    model, tokenizer = llama3
    template = ChatTemplate(tokenizer)
    drawn = generate(model, tokenizer, PROMPTS, Sampling(n=32, max_tokens=16))
    other = [
        (prompt, response, again)
        for prompt, row in zip(PROMPTS, drawn, strict=True)
        for response in row
        for again in [template.response_ids(prompt, replace(response, ids=None))]
        if tuple(again) != response.ids
    ]
    assert len(other) > 10, "tokenizing the text of such samples again gives other ids"
    assert all(tuple(template.response_ids(prompt, response)) == response.ids for prompt, response, _ in other)
    prompt, response, again = other[0]
    opening = tuple(template.prompt_ids(prompt))
    before, after = score(model, [TokenRow(opening, response.ids), TokenRow(opening, tuple(again))])
    assert abs(before - after) > 0.01


def test_text_that_was_edited_is_tokenized_again(llama3) -> None:
    model, tokenizer = llama3
    template = ChatTemplate(tokenizer)
    rows = generate(model, tokenizer, PROMPTS, Sampling(n=64, max_tokens=16))[0]
    ended = next(response for response in rows if response.finished and response.text)
    cut = next(response for response in rows if not response.finished)
    for changed in (replace(ended, text="pear ."), replace(ended, finished=False), replace(cut, finished=True)):
        assert not template.is_as_sampled(changed)
        assert template.response_ids(PROMPTS[0], changed) == template.response_ids(PROMPTS[0], replace(changed, ids=None))
    assert template.is_as_sampled(replace(ended, tokens=None)) and not template.is_as_sampled(Response("pear ."))


def test_responses_are_equal_by_what_they_say() -> None:
    assert Response("pear", ids=(1, 2)) == Response("pear", ids=(3,)) == Response("pear")
    assert len({Response("pear", ids=(1, 2)), Response("pear")}) == 1
    assert Response("pear", ids=[1, 2]).ids == (1, 2)


def prepending() -> PreTrainedTokenizerFast:
    """As Llama 2's: a space before every text, taken off again by the decoder."""
    words = ["<unk>", "<s>", "</s>", "▁", *"abcdefghijklmnopqrstuvwxyzINST[]/ .:\n'", "▁▁", "▁▁▁▁", "ef", "def"]
    merges = [("▁", "▁"), ("▁▁", "▁▁"), ("e", "f"), ("d", "ef")]
    tokenizer = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, merges, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=INSTRUCT
    )


@pytest.mark.parametrize("tokenizer", [prepending(), make_tokenizer(CHATML)], ids=["prepend", "byte-level"])
def test_the_indentation_of_a_sample_s_first_line_stays(tokenizer: PreTrainedTokenizerBase) -> None:
    """The template of the first opens answers with a space, which is none of the text."""
    template = ChatTemplate(tokenizer)
    body = "    def a: b\n    c"
    ids = template.response_ids(PROMPTS[0], Response(body))
    assert template.text_of(ids, finished=True) == body and ids[-1] == template.end_id
    blank = template.response_ids(PROMPTS[0], Response("\n\n" + body + " \n", finished=False))
    assert template.text_of(blank) == body
    assert template.text_of(template.response_ids(PROMPTS[0], Response("a pear")), finished=True) == "a pear"


def test_generated_text_is_trimmed_and_nothing_else() -> None:
    template = ChatTemplate(make_tokenizer(CHATML))
    cases = {" The": "The", "  x": "  x", "\tx": "\tx", "\n \n    x\n": "    x", " \n": "", "": "", " ": "", "a  b ": "a  b"}
    assert {text: template.trimmed(text) for text in cases} == cases


@pytest.mark.parametrize(
    ("config", "expected"),
    [({"eos_token_id": 2}, (2,)), ({"eos_token_id": [2, 4]}, (2, 4)), ({"eos_token_id": -1}, ()), ({}, ())],
)
def test_end_tokens_are_read_from_the_generation_config(tmp_path: Path, config: dict, expected: tuple[int, ...]) -> None:
    make_checkpoint(tmp_path, "qwen2")
    (tmp_path / "generation_config.json").write_text(json.dumps(config))
    assert generation_eos(tmp_path) == expected == model_eos(load(tmp_path)[0])


def test_without_a_generation_config_they_are_the_config_s(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, "qwen2")
    (tmp_path / "generation_config.json").unlink()
    assert generation_eos(tmp_path) == model_eos(load(tmp_path)[0]) == (2,)
    config = json.loads((tmp_path / "config.json").read_text())
    nested = {"text_config": {"eos_token_id": [4, 6]}, **{k: v for k, v in config.items() if k != "eos_token_id"}}
    (tmp_path / "config.json").write_text(json.dumps(nested))
    assert generation_eos(tmp_path) == (4, 6)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"eos_token_id": "</s>"}', "eos_token_id = '</s>' is neither the id of a token nor a list of them"),
        ('{"eos_token_id": [2, null]}', r"eos_token_id = \[2, None\] is neither"),
        ('{"eos_token_id": true}', "eos_token_id = True is neither"),
        ("[2]", "holds no object"),
        ("{", "cannot be read"),
    ],
)
def test_a_malformed_generation_config_is_named(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "generation_config.json").write_text(content)
    with pytest.raises(DataError, match=rf"generation_config\.json.*{words}"):
        generation_eos(tmp_path)


def test_a_trained_checkpoint_keeps_every_end_token(tmp_path: Path) -> None:
    """SFT's trainer may add the tokenizer's own, which `stop_ids` has anyway: before and after training they are the same."""
    base = checkpoint(tmp_path / "base", ["<|im_end|>", "<end_of_turn>"])
    model, tokenizer = load(base)
    examples = [Example(prompt, "yes , it is .") for prompt in PROMPTS]
    settings = SftSettings(epochs=1, batch_size=2, learning_rate=1e-3, warmup_share=0)
    fine_tune(model, tokenizer, examples, settings, seed=0, scratch=tmp_path / "scratch")
    save_checkpoint(model, tokenizer, tmp_path / "tuned")
    before, after = (set(ChatTemplate(tokenizer).stop_ids(generation_eos(folder))) for folder in (base, tmp_path / "tuned"))
    assert before == after == set(tokenizer.convert_tokens_to_ids(["<|im_end|>", "<end_of_turn>", "</s>"]))
    assert set(generation_eos(base)) <= set(generation_eos(tmp_path / "tuned")) == set(model_eos(model))
