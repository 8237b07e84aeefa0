"""The real tokenizers and the first layers of the real model, as `harness fetch` leaves them; skipped where it did not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.api.types import Message, Prompt, Response
from harness.models.load import load, load_tokenizer
from harness.models.logps import TokenRow, score
from harness.models.templates import check_template
from harness.models.tokenization import ChatTemplate

NAMES = ("mistral-v1", "mistral-v3", "mistral-nemo", "llama-3", "smollm2")
# Runs of blanks, line ends of two kinds, accents, pieces beyond the vocabulary, words that look like a template's.
TEXTS = (
    "Paris is the capital.", "Hello  world\n\n   don't stop 12345", "über 日本語 🙂 \t x", "a\r\nb", "f(x) = [1, 2]; // note",
    "I am fine <|assistant|>\nParis", "[INST] x [/INST]", "Human: hi\n\nAssistant: no", "e\u0301 \u00a0 y",
)  # fmt: skip
OPENINGS = {
    "mistral-v1": "<|user|>\nhi</s>\n<|assistant|>\n",
    "mistral-v3": "<s>[INST] hi[/INST]",
    "mistral-nemo": "<s>[INST]hi[/INST]",
    "llama-3": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "smollm2": "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
}
SIZES = {"mistral-v1": 32_000, "mistral-v3": 32_768, "mistral-nemo": 131_072, "llama-3": 128_256, "smollm2": 49_152}
ENDS = {"mistral-v1": "</s>", "mistral-v3": "</s>", "mistral-nemo": "</s>", "llama-3": "<|eot_id|>", "smollm2": "<|im_end|>"}


@pytest.mark.parametrize("name", NAMES)
def test_a_template_opens_and_ends_an_answer_as_the_model_was_taught(real_tokenizers: Mapping[str, Path], name: str) -> None:
    tokenizer = load_tokenizer(real_tokenizers[name])
    template = ChatTemplate(tokenizer)
    check_template(tokenizer)
    assert len(tokenizer) == SIZES[name]
    assert template.render((Message("user", "hi"),)) == OPENINGS[name]
    assert tokenizer.convert_ids_to_tokens(template.end_id) == ENDS[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_begins_with_at_most_one_bos(real_tokenizers: Mapping[str, Path], name: str) -> None:
    tokenizer = load_tokenizer(real_tokenizers[name])
    ids = ChatTemplate(tokenizer).prompt_ids(Prompt("one", (Message("user", "hi"),)))
    expected = {"mistral-v1": 0, "smollm2": 3}.get(name, 1)  # SmolLM2's BOS opens each turn
    assert ids.count(tokenizer.bos_token_id) == expected
    # Mistral's first tokenizer puts a blank before the words after a special token, and Zephyr has a line end there.
    assert tokenizer.decode(ids).replace("</s> ", "</s>") == OPENINGS[name]


@pytest.mark.parametrize("name", ["mistral-v1", "mistral-v3"])
def test_mistrals_tokens_are_sentencepieces(real_tokenizers: Mapping[str, Path], name: str) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    model = sentencepiece.SentencePieceProcessor(model_file=str(real_tokenizers[name] / "tokenizer.model"))
    tokenizer = load_tokenizer(real_tokenizers[name])
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert ids == model.encode(text), text


@pytest.mark.parametrize("name", ["mistral-nemo", "llama-3"])
def test_byte_pairs_are_tiktokens(real_tokenizers: Mapping[str, Path], name: str) -> None:
    """By tiktoken itself, on the pieces and the pattern of the tokenizer's file."""
    import json

    tiktoken = pytest.importorskip("tiktoken")
    tokenizer = load_tokenizer(real_tokenizers[name])
    content = json.loads((real_tokenizers[name] / "tokenizer.json").read_text(encoding="utf-8"))
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    byte_of = {letter: byte for byte, letter in bytes_to_unicode().items()}
    special = {token["content"] for token in content["added_tokens"]}
    pieces = {piece: number for piece, number in content["model"]["vocab"].items() if piece not in special}
    first = min(pieces.values())
    ranks = {bytes(byte_of[letter] for letter in piece): number - first for piece, number in pieces.items()}
    pattern = content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert ids == [number + first for number in encoding.encode(text, disallowed_special=())], text


def test_the_first_layers_score_an_answer_as_a_pass_over_the_whole_text_does(smollm2: Path) -> None:
    import torch

    model, tokenizer = load(smollm2, use="scoring")
    assert model.config.num_hidden_layers == 3
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    template = ChatTemplate(tokenizer)
    asked = Prompt("one", (Message("user", "Name a fruit."),))
    prompt = template.prompt_ids(asked)
    answer = template.response_ids(asked, Response("A pear."))
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    by_hand = sum(float(logits[len(prompt) - 1 + place, token]) for place, token in enumerate(answer))
    assert score(model, [TokenRow(tuple(prompt), tuple(answer))])[0] == pytest.approx(by_hand, abs=1e-3)
    assert by_hand < -10  # nats: the first layers alone know little, and 0 would mean that nothing was scored


def test_the_real_embedder_puts_a_paraphrase_before_another_subject(minilm: Path) -> None:
    pytest.importorskip("sentence_transformers")
    from harness.models.sentence import SentenceEmbedder, sentence_similarity

    texts = ["A cat sleeps on the sofa.", "Shares fell sharply on Monday."]
    (cosines,) = sentence_similarity(SentenceEmbedder(model=str(minilm)), ["The kitten is napping on the couch."], [texts])
    assert cosines[0] > 0.5 > 0.2 > cosines[1]
