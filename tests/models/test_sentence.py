"""Sentence embedders: a tiny BERT made here, pooled as asked, against its states by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from harness.errors import DataError
from harness.models.embed import known_embedder
from harness.models.sentence import SentenceEmbedder, sentence_similarity

pytest.importorskip("sentence_transformers")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "pear", "plum", "lemon", "and", "a", "sour", "sweet"]
TARGETS = ["pear and plum", "a sour lemon"]
RESPONSES = [["pear and plum", "sweet", "plum"], ["a sweet lemon"]]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("bert")
    BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)}).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=32, initializer_range=0.3,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


def by_hand(folder: Path, text: str, pooling: str) -> np.ndarray:
    from transformers import AutoTokenizer, BertModel

    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.inference_mode():
        states = BertModel.from_pretrained(folder).eval()(**tokens).last_hidden_state[0]
    vector = (states[0] if pooling == "cls" else states.mean(0)).numpy()
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_cosines_are_those_of_the_pooled_states(bert: Path, pooling) -> None:
    cosines = sentence_similarity(SentenceEmbedder(model=str(bert), pooling=pooling), TARGETS, RESPONSES)
    for target, row, given in zip(TARGETS, RESPONSES, cosines, strict=True):
        expected = [float(by_hand(bert, text, pooling) @ by_hand(bert, target, pooling)) for text in row]
        assert given.tolist() == pytest.approx(expected, abs=1e-5)
    assert cosines[0][0] == pytest.approx(1.0)


def test_a_saved_sentence_transformer_brings_its_own_pooling(bert: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    words = Transformer(str(bert))
    SentenceTransformer(modules=[words, Pooling(words.get_embedding_dimension(), pooling_mode="cls")]).save(str(tmp_path))
    own = sentence_similarity(SentenceEmbedder(model=str(tmp_path)), TARGETS, RESPONSES)
    said = sentence_similarity(SentenceEmbedder(model=str(bert), pooling="cls"), TARGETS, RESPONSES)
    assert [row.tolist() for row in own] == [pytest.approx(row.tolist(), abs=1e-6) for row in said]


def test_its_key_holds_weights_pooling_and_library_but_no_place(bert: Path) -> None:
    key = SentenceEmbedder(model=str(bert), pooling="cls").key()
    assert set(key) == {"name", "pooling", "max_tokens", "weights", "sentence-transformers"}
    assert str(bert) not in str(key)
    assert key != SentenceEmbedder(model=str(bert), pooling="mean").key()


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(DataError, match="known are tfidf, hidden, or a section"):
        known_embedder("word2vec")
