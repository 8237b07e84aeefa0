"""Shared fixtures: a tiny model of the sandbox's language, made once a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


# The files that take longest begin, so that processes which share the suite end together.
LONGEST = ("test_compare.py", "test_local.py", "test_commands.py", "test_judged_comparison.py", "test_analyze.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Determinism and speed on shared cores, as in the worker processes."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder: the sandbox's tokenizer and an untrained Llama of 40,000 parameters."""
    from harness.sandbox.pretrain import Recipe, build_model
    from harness.sandbox.tokenizer import build_tokenizer

    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = build_tokenizer()
    recipe = Recipe(hidden_size=32, layers=2, heads=2, intermediate_size=64, initializer_range=0.2)
    build_model(recipe, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_classifier(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with one label and the sandbox's tokenizer and template."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    from harness.models.load import load_tokenizer

    folder = tmp_path_factory.mktemp("classifier")
    tokenizer = load_tokenizer(tiny_checkpoint)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_labels=1, initializer_range=0.3, pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny(tiny_checkpoint: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A fresh copy of the tiny model, and its tokenizer."""
    from harness.models.load import load

    return load(tiny_checkpoint)
