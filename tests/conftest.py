"""Shared fixtures: a tiny model of the sandbox's language; real weights and tokenizers, where they were fetched."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
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
def _coverage_of_this_process_alone() -> Iterator[None]:
    """Pytest runs that a test starts are no part of this one, whose coverage slipcover puts together."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SLIPCOVER_ENABLED", raising=False)
        yield


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


# ---- real weights and tokenizers: `.ci/run` fetches them, tests use what is there

SMOLLM2_LAYERS = 3


def fetched_or_skip(name: str, kind: str) -> Path:
    """The folder of something that `harness fetch` got, or the test is skipped with the reason."""
    from harness.errors import DataError
    from harness.models.fetched import cache_folder, fetched

    try:
        folder = fetched(name, kind, cache_folder(os.environ))
    except DataError as error:
        pytest.skip(f"{name}: {error}")
    assert folder is not None
    return folder


@pytest.fixture(scope="session")
def real_tokenizers() -> Mapping[str, Path]:
    """Folders of real tokenizers with templates: mistral-v1 (with Zephyr's), mistral-v3, mistral-nemo, llama-3, smollm2."""
    from harness.models.fetched import CAUSAL_LM, TOKENIZER_FOLDERS

    folder = fetched_or_skip("tokenizers", TOKENIZER_FOLDERS)
    names = ("mistral-v1", "mistral-v3", "mistral-nemo", "llama-3")
    return {**{name: folder / name for name in names}, "smollm2": fetched_or_skip("smollm2", CAUSAL_LM)}


@pytest.fixture(scope="session")
def smollm2_whole() -> Path:
    """SmolLM2-135M-Instruct with all its 30 layers: a checkpoint folder, not to be written to."""
    from harness.models.fetched import CAUSAL_LM

    return fetched_or_skip("smollm2", CAUSAL_LM)


@pytest.fixture(scope="session")
def smollm2(smollm2_whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first layers of SmolLM2-135M-Instruct with its tokenizer and template: a checkpoint folder, not to be written to."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("smollm2")
    for path in smollm2_whole.iterdir():
        if path.name not in ("model.safetensors", "FETCHED"):
            shutil.copy(path, folder)
    config = json.loads((smollm2_whole / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": SMOLLM2_LAYERS}))
    with safe_open(smollm2_whole / "model.safetensors", "pt") as weights:
        later = tuple(f"model.layers.{number}." for number in range(SMOLLM2_LAYERS, config["num_hidden_layers"]))
        kept = {name: weights.get_tensor(name) for name in weights.keys() if not name.startswith(later)}  # noqa: SIM118
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2, a sentence-transformers model: a folder, not to be written to."""
    from harness.models.fetched import SENTENCE_EMBEDDER

    return fetched_or_skip("minilm", SENTENCE_EMBEDDER)
