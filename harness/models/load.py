"""Checkpoints into memory: safetensors only, no remote code, evaluation mode."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import DataError
from harness.store import file_hash

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SANDBOX = "sandbox"


def checkpoint_folder(path: str) -> Path:
    """The folder of a starting model: `sandbox` is the one in the package.

    Raises:
        DataError: no such folder, or no safetensors in it.
    """
    folder = Path(__file__).parent.parent / "sandbox" / "base" if path == SANDBOX else Path(path).expanduser()
    if not folder.is_dir():
        raise DataError(f"model.path = {path!r}: no such folder; give 'sandbox' or a local checkpoint folder")
    if not any(folder.glob("*.safetensors")):
        raise DataError(f"model.path = {path!r}: no *.safetensors in {folder}; other weight formats are not read")
    return folder


def checkpoint_hash(folder: Path) -> str:
    """A hash of everything that decides what the checkpoint computes: weights, configuration, tokenizer, template."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in {".safetensors", ".json", ".jinja", ".model", ".txt"} and file.name not in {
            "recipe.json",
            "artifact.json",
        }:
            digest.update(f"{file.name} {file_hash(file)}\n".encode())
    return digest.hexdigest()[:32]


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def load_model(folder: Path) -> PreTrainedModel:
    """The checkpoint's model: float32 on a CPU, bfloat16 on a GPU; evaluation mode, dropout off."""
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, trust_remote_code=False, use_safetensors=True).to(device)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in [name for name, value in vars(module).items() if "drop" in name and isinstance(value, float)]:
            setattr(module, name, 0.0)  # OPT's and others' own probabilities, given to a function
    return model.eval()


def load(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer of one checkpoint folder."""
    return load_model(folder), load_tokenizer(folder)
