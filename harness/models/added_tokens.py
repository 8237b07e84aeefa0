"""Special tokens added to a checkpoint, such as OpenChat's `<|end_of_turn|>`, which ends its turns, to Mistral's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

RECORD = "harness_added_tokens"  # in the config.json of a model that was trained with them: text -> id


def add_tokens(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str]) -> None:
    """Add special tokens at the end of a tokenizer's vocabulary, in place.

    Raises:
        DataError: a text is a token already, so that its row would be written over.
    """
    from tokenizers import AddedToken

    words = tokenizer.get_vocab()
    for token in tokens:
        if token in words:
            raise DataError(f"model.add_tokens: {token!r} is a token of this model already (id {words[token]}): leave it out")
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in tokens], special_tokens=True)


def add_rows(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str]) -> None:
    """Give a model rows for the last tokens of its tokenizer, in place: the mean of all others, in both embeddings.

    So does OpenChat's own script (github.com/imoneoi/openchat, commit 15ac02fa, ochat/scripts/hf_add_tokens.py), which
    Self-Contrast's authors use on Nectar. The configuration records the tokens and goes into the trained checkpoint.

    Args:
        tokenizer: with the tokens, as `add_tokens` leaves it.
    """
    import torch

    before, rows = len(tokenizer) - len(tokens), int(model.get_input_embeddings().weight.shape[0])
    if len(tokenizer) > rows:  # some checkpoints have more rows than tokens, and room for further ones
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    weights: dict[int, torch.Tensor] = {}  # each once: a model's two embeddings may share them
    for embedding in (model.get_input_embeddings(), model.get_output_embeddings()):
        if embedding is not None and isinstance(embedding.weight, torch.Tensor):
            weights.setdefault(id(embedding.weight), embedding.weight)
    with torch.no_grad():
        for weight in weights.values():
            weight[before : len(tokenizer)] = weight[:before].to(torch.float32).mean(0).to(weight.dtype)
    ids = tokenizer.convert_tokens_to_ids(list(tokens))
    setattr(model.config, RECORD, dict(zip(tokens, ids, strict=True)))
