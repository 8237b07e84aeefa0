"""How alike two texts are: cosine similarity of responses to their target.

`tfidf` and `hidden` need no download; a `SentenceEmbedder` is any sentence-transformers model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.api.types import Prompt, Response
from harness.errors import DataError
from harness.models.logps import TokenRow, cut, exact_products
from harness.models.sentence import SentenceEmbedder
from harness.models.tokenization import ChatTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

EMBEDDERS = ("tfidf", "hidden")


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
    template = ChatTemplate(tokenizer)
    rows: list[TokenRow] = []
    for prompt, target, texts in zip(prompts, targets, responses, strict=True):
        opening = tuple(template.prompt_ids(prompt))
        rows += [TokenRow(opening, tuple(template.response_ids(prompt, Response(text)))) for text in (target, *texts)]
    states = _mean_states(model, rows)
    states /= np.linalg.norm(states, axis=1, keepdims=True)
    cosines, position = [], 0
    for texts in responses:
        cosines.append(states[position + 1 : position + 1 + len(texts)] @ states[position])
        position += 1 + len(texts)
    return cosines


def _mean_states(model: PreTrainedModel, rows: Sequence[TokenRow]) -> np.ndarray:
    """[N, hidden], float64."""
    import torch

    states = np.zeros((len(rows), model.config.hidden_size))
    with torch.inference_mode(), exact_products():
        for batch in cut(rows, 8192):
            width = max(rows[index].tokens for index in batch)
            ids = torch.zeros((len(batch), width), dtype=torch.long)
            mask, wanted = torch.zeros_like(ids), torch.zeros((len(batch), width))
            for line, index in enumerate(batch):
                row = rows[index]
                ids[line, : row.tokens] = torch.tensor(row.prompt + row.response)
                mask[line, : row.tokens] = 1
                wanted[line, len(row.prompt) : row.tokens] = 1.0 / len(row.response)
            device = model.device
            output = model(
                input_ids=ids.to(device), attention_mask=mask.to(device), output_hidden_states=True, logits_to_keep=1
            )
            last = output.hidden_states[-1].float().cpu()  # [N, T, H]
            states[batch] = torch.einsum("nth,nt->nh", last, wanted).double().numpy()
    return states


def _split(values: np.ndarray, like: Sequence[Sequence[object]]) -> list[np.ndarray]:
    return np.split(values, np.cumsum([len(items) for items in like])[:-1]) if like else []
