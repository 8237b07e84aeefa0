"""A policy that was never trained: what backends and evaluators that load a model are checked with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.models.load import model_eos
from harness.models.tokenization import ChatTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class ScriptedPolicy:
    """A `Policy`: the untrained model, in memory and, once asked for, on disk. It knows no secrets."""

    name = "untrained"

    def __init__(self, folder: Path) -> None:
        self.model, self.tokenizer = untrained_policy()
        self._folder, self.logs = folder / "model", folder / "logs"

    @property
    def folder(self) -> Path:
        if not self._folder.exists():
            self.model.save_pretrained(self._folder, safe_serialization=True)
            self.tokenizer.save_pretrained(self._folder)
        return self._folder

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return ChatTemplate(self.tokenizer).stop_ids(model_eos(self.model))

    def secret(self, variable: str) -> str:
        raise HarnessError(f"the scripted policy has no ${variable}")


def untrained_policy() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """An untrained Llama of 40,000 parameters with the sandbox's tokenizer, in evaluation mode; the same every time."""
    from harness.sandbox.pretrain import Recipe, build_model
    from harness.sandbox.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    recipe = Recipe(hidden_size=32, layers=2, heads=2, intermediate_size=64, initializer_range=0.2)
    return build_model(recipe, tokenizer).eval(), tokenizer
