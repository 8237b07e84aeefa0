"""How alike two texts are: cosine similarity of responses to their target.

`tfidf` and `hidden` need no download; a `SentenceEmbedder` is any sentence-transformers model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.api.types import Prompt, Response
from harness.errors import DataError
from harness.models.batched import computed
from harness.models.logps import TokenRow, cut, exact_products
from harness.models.sentence import SentenceEmbedder
from harness.models.tokenization import ChatTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

EMBEDDERS = ("tfidf", "hidden")
TOKENS_PER_BATCH = 8192


def known_embedder(embedder: str | SentenceEmbedder) -> None:
    """Raises `DataError` for a name that is none of `EMBEDDERS`."""
    if isinstance(embedder, str) and embedder not in EMBEDDERS:
        raise DataError(f"embedder {embedder!r}: known are {', '.join(EMBEDDERS)}, or a section of sentence_transformers")


def tfidf_similarity(targets: Sequence[str], responses: Sequence[Sequence[str]]) -> list[np.ndarray]:
    """Cosine of TF-IDF rows (words and word pairs; document frequencies over all texts given), one array per target."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    flat = [text for texts in responses for text in texts]
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"[^\s]+", lowercase=True)
    vectorizer.fit([*targets, *flat])
    left, right = vectorizer.transform(targets), vectorizer.transform(flat)
    owner = np.repeat(np.arange(len(targets)), [len(texts) for texts in responses])
    cosines = np.asarray(left[owner].multiply(right).sum(axis=1)).ravel()
    return _split(cosines, responses)


def hidden_similarity(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    targets: Sequence[str],
    responses: Sequence[Sequence[str]],
) -> list[np.ndarray]:
    """Cosine of the mean last hidden states over the response's tokens, given the prompt."""
    rows = hidden_rows(tokenizer, prompts, targets, responses)
    return state_cosines(computed(MeanStates(model, rows), len(rows)), responses)


def hidden_rows(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    targets: Sequence[str],
    responses: Sequence[Sequence[str]],
) -> list[TokenRow]:
    """Return each prompt's target and its responses as tokens, prompt after prompt."""
    template = ChatTemplate(tokenizer)
    rows: list[TokenRow] = []
    for prompt, target, texts in zip(prompts, targets, responses, strict=True):
        opening = tuple(template.prompt_ids(prompt))
        rows += [TokenRow(opening, tuple(template.response_ids(prompt, Response(text)))) for text in (target, *texts)]
    return rows


def state_cosines(states: np.ndarray, responses: Sequence[Sequence[str]]) -> list[np.ndarray]:
    """Return the cosines of responses to their target, one array per prompt.

    Args:
        states: of `hidden_rows`, [N, hidden].
    """
    if not responses:
        return []
    states = states / np.linalg.norm(states, axis=1, keepdims=True)
    cosines, position = [], 0
    for texts in responses:
        cosines.append(states[position + 1 : position + 1 + len(texts)] @ states[position])
        position += 1 + len(texts)
    return cosines


class MeanStates:
    """The mean last hidden state of each row's response, batch by batch (a `Batched`): [n, hidden], float64."""

    def __init__(self, model: PreTrainedModel, rows: Sequence[TokenRow]) -> None:
        self.model, self.rows = model, rows

    def batches(self) -> list[list[int]]:
        return list(cut(self.rows, TOKENS_PER_BATCH))

    def compute(self, batch: Sequence[int]) -> np.ndarray:
        import torch

        width = max(self.rows[index].tokens for index in batch)
        ids = torch.zeros((len(batch), width), dtype=torch.long)
        mask, wanted = torch.zeros_like(ids), torch.zeros((len(batch), width))
        for line, index in enumerate(batch):
            row = self.rows[index]
            ids[line, : row.tokens] = torch.tensor(row.prompt + row.response)
            mask[line, : row.tokens] = 1
            wanted[line, len(row.prompt) : row.tokens] = 1.0 / len(row.response)
        device = self.model.device
        with torch.inference_mode(), exact_products():
            output = self.model(
                input_ids=ids.to(device), attention_mask=mask.to(device), output_hidden_states=True, logits_to_keep=1
            )
            last = output.hidden_states[-1].float().cpu()  # [N, T, H]
            return torch.einsum("nth,nt->nh", last, wanted).double().numpy()


def _split(values: np.ndarray, like: Sequence[Sequence[object]]) -> list[np.ndarray]:
    return np.split(values, np.cumsum([len(items) for items in like])[:-1]) if like else []
