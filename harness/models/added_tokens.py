"""Special tokens added to a checkpoint, such as OpenChat's `<|end_of_turn|>`, which ends its turns, to Mistral's."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import DataError
from harness.models.checkpoint import checkpoint_hash, locate
from harness.models.load import load_tokenizer

if TYPE_CHECKING:
    from torch import nn

RECORD = "harness_added_tokens"  # in config.json


@dataclass(frozen=True)
class AddedTokens:
    """The record of an addition, which the checkpoint's config.json keeps.

    Attributes:
        tokens: their texts.
        ids: their ids, in the same order.
        initial: how their embedding rows were initialised.
        base: the hub's name and commit of the checkpoint they were added to, or `hash:` and its files' hash.
    """

    tokens: tuple[str, ...]
    ids: tuple[int, ...]
    initial: str
    base: str


def add_special_tokens(path: str, tokens: Sequence[str], out: Path, revision: str | None = None) -> AddedTokens:
    """Write a checkpoint with further special tokens; their rows in both embeddings are the mean of all others.

    So does OpenChat's own script (github.com/imoneoi/openchat, commit 15ac02fa, ochat/scripts/hf_add_tokens.py), which
    Self-Contrast's authors use on Nectar. The weights keep their type.

    Args:
        path: as `model.path`: a folder, or owner/name of the hub.
        tokens: texts that are no tokens yet.
        out: a folder that is not there, or empty.

    Raises:
        DataError: a text is empty, given twice or a token already; `out` holds something; or the checkpoint cannot be loaded.
    """
    import torch
    from tokenizers import AddedToken
    from transformers import AutoModelForCausalLM

    if out.exists() and any(out.iterdir()):
        raise DataError(f"--out {out}: the folder holds something already; name another, or empty it")
    checkpoint = locate(path, revision)
    folder = checkpoint.files()
    tokenizer = load_tokenizer(folder)
    before, words = len(tokenizer), tokenizer.get_vocab()
    for token in tokens:
        if not token.strip() or list(tokens).count(token) > 1:
            raise DataError(f"token {token!r}: it is {'empty' if not token.strip() else 'given twice'}")
        if token in words:
            raise DataError(f"token {token!r}: it is a token of {path} already, with id {words[token]}; leave it out")
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype="auto")
    except (OSError, ValueError, ImportError) as error:
        raise DataError(f"the model in {folder} cannot be loaded: {error}") from error
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in tokens], special_tokens=True)
    rows: int = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:  # some checkpoints have more rows than tokens, and room for further ones
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    ends: dict[int, nn.Module] = {}  # by their weights: a model may share them
    for embedding in (model.get_input_embeddings(), model.get_output_embeddings()):
        if embedding is not None:
            ends.setdefault(id(embedding.weight), embedding)
    with torch.no_grad():
        for embedding in ends.values():
            weight = embedding.weight
            weight[before : len(tokenizer)] = weight[:before].to(torch.float32).mean(0).to(weight.dtype)
    ids = tuple(int(number) for number in tokenizer.convert_tokens_to_ids(list(tokens)))
    base = f"{checkpoint.hub}@{checkpoint.commit}" if checkpoint.hub else f"hash:{checkpoint_hash(folder)}"
    record = AddedTokens(tuple(tokens), ids, f"mean of the {before:,} rows before them", base)
    setattr(model.config, RECORD, asdict(record))
    _save(model, tokenizer, out)
    return record


def _save(model: object, tokenizer: object, out: Path) -> None:
    """Write both beside the place and rename, so that a killed command leaves no half of a checkpoint there."""
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for item in (model, tokenizer):
        item.save_pretrained(part)  # type: ignore[attr-defined]
    if out.exists():
        out.rmdir()
    part.rename(out)
