"""A policy for backends, and their usual prompts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from harness import ChatTemplate, Message, Prompt, StageError
from harness.models.load import generation_eos, load_model, load_tokenizer


@dataclass
class FolderPolicy:
    """A checkpoint folder as backends see it; `loaded` tells whether its model was asked for."""

    folder: Path
    logs: Path
    name: str = "policy-test"
    secrets: Mapping[str, str] = field(default_factory=dict)
    loaded: bool = False

    @cached_property
    def model(self) -> Any:
        self.loaded = True
        return load_model(self.folder)

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.folder)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return ChatTemplate(self.tokenizer).stop_ids(generation_eos(self.folder))

    def secret(self, variable: str) -> str:
        if variable not in self.secrets:
            raise StageError(f"the environment variable {variable} is not set")
        return self.secrets[variable]


@pytest.fixture
def policy(tiny_checkpoint: Path, tmp_path: Path) -> FolderPolicy:
    logs = tmp_path / "engines"
    logs.mkdir()
    return FolderPolicy(tiny_checkpoint, logs)


@pytest.fixture
def prompts() -> list[Prompt]:
    turns = (Message("user", "name two fruits ."), Message("assistant", "pear , plum"), Message("user", "name one more ."))
    return [
        Prompt.of("a", "name two fruits but not apple . answer separated by commas ."),
        Prompt("b", turns),
        Prompt.of("c", "describe a lemon in two points . answer with a dash before each item ."),
    ]


@pytest.fixture
def several_ends(tmp_path: Path) -> Callable[[FolderPolicy, list[int]], tuple[int, ...]]:
    """Give the policy a checkpoint whose generation configuration names further end tokens; return all that end its answers."""

    def give(policy: FolderPolicy, others: list[int]) -> tuple[int, ...]:
        own = ChatTemplate(policy.tokenizer).end_id
        policy.folder = shutil.copytree(policy.folder, tmp_path / "several")
        (policy.folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [*others, own]}))
        assert policy.stop_ids == (own, *others)
        return policy.stop_ids

    return give
