"""The checkpoint that a trainer leaves: refused unless it is a model like the start. Imports torch where it is used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import StageError
from harness.models.load import load_tokenizer
from harness.models.options import KEPT

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def read_trained(
    folder: Path, start: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, title: str, kept: Mapping[str, Any]
) -> PreTrainedModel:
    """Return the model that a trainer left in a folder, with float32 weights.

    Args:
        start: the model that the round starts from.
        tokenizer: the start's.
        title: the trainer's, for errors.
        kept: `LoadOptions.kept` of the start, which hold for the trained model too.

    Raises:
        StageError: there is none, its weights are pickles, it cannot be loaded, weights are absent or of another shape, or its
            vocabulary is not the start's.
    """
    import torch
    from transformers import AutoModelForCausalLM

    who = f"the trainer {title!r}"
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    if not any(name.endswith(".safetensors") for name in files):
        if pickled := [name for name in files if Path(name).suffix in PICKLES]:
            raise StageError(f"{who} left weights as pickles ({pickled[0]}), which are not read: save them as safetensors")
        listed = ", ".join(files[:5]) or "nothing"
        raise StageError(f"{who} left no *.safetensors in its output folder ({listed}): it should save its model there")
    if "config.json" not in files:
        raise StageError(f"{who} left weights without config.json: save the model with its configuration")
    _check_vocabulary(folder, files, start, tokenizer, who)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:  # anything may be wrong with files of another program
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StageError(f"{who} left a checkpoint that cannot be loaded: {reason}") from error
    wrong = sorted([*report["missing_keys"], *(str(item) for item in report["mismatched_keys"]), *report["unexpected_keys"]])
    if wrong:
        raise StageError(
            f"{who} left a checkpoint whose weights do not fit its configuration: {wrong[0]} and {len(wrong) - 1} more"
        )
    if kept:
        setattr(model.config, KEPT, dict(kept))
    return model.to(start.device).eval()


def _check_vocabulary(
    folder: Path, files: list[str], start: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, who: str
) -> None:
    """Refuse a checkpoint whose tokens are not the start's. One without a tokenizer is taken to have the start's."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        size = (config.get("text_config") or config).get("vocab_size")
    except (OSError, ValueError, AttributeError) as error:
        raise StageError(f"{who} left a config.json that cannot be read: {error}") from error
    before = start.get_input_embeddings().weight.shape[0]
    if size != before:
        raise StageError(
            f"{who} left a model with a vocabulary of {size}, and its start has {before}: train without new tokens"
        )
    if not any(name in files for name in TOKENIZER_FILES):
        return
    try:
        vocabulary = load_tokenizer(folder).get_vocab()
    except Exception as error:
        raise StageError(f"{who} left a tokenizer that cannot be loaded: {error}") from error
    other = vocabulary.items() ^ tokenizer.get_vocab().items()
    if other:
        token = min(token for token, _ in other)
        raise StageError(f"{who} left a tokenizer with another vocabulary than its start ({token!r} differs): keep the start's")


def count_moved(trained: PreTrainedModel, start: PreTrainedModel, title: str) -> int:
    """Return how many weights differ from the start's.

    Raises:
        StageError: a weight is absent, has another shape, or is NaN or infinite.
    """
    import torch

    moved, before = 0, start.state_dict()  # which has tied weights under each of their names
    for name, weight in trained.named_parameters():
        if name not in before or before[name].shape != weight.shape:
            raise StageError(f"the trainer {title!r} left another architecture than its start: {name} differs")
        if not bool(torch.isfinite(weight).all()):
            raise StageError(f"the trainer {title!r} left weights that are no numbers ({name}): lower its learning rate")
        moved += int((weight.detach() != before[name].detach().to(weight.dtype)).sum())
    if absent := sorted(before.keys() - trained.state_dict().keys()):
        raise StageError(f"the trainer {title!r} left another architecture than its start: {absent[0]} is absent")
    return moved
