"""Two processes train as one does: the same loss curve, metrics and weights, up to the order in which floats are added."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import together
import torch
from safetensors.torch import load_file

from harness.store import file_hash
from harness.training.checkpoints import MANIFEST, Manifest
from harness.training.ranks import Ranks

COUNT = 2


@pytest.fixture(scope="module")
def folder(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes that did all cases left there."""
    folder = tmp_path_factory.mktemp("together")
    script = [sys.executable, str(Path(together.__file__)), str(tiny_checkpoint), str(folder)]
    processes = []
    for rank in range(COUNT):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(COUNT), "LOCAL_WORLD_SIZE": str(COUNT)}
        environment = {**os.environ, **place, "OMP_NUM_THREADS": "1"}
        processes.append(subprocess.Popen([*script, str(rank), str(COUNT)], env=environment, stderr=subprocess.PIPE))
    said = [process.communicate()[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0] * COUNT, "\n".join(said)
    return folder


@pytest.fixture(scope="module")
def alone(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """The result of a case in one process, computed once."""
    return cache(lambda name: together.run(together.CASES[name], tiny_checkpoint, tmp_path_factory.mktemp("alone")))


@pytest.mark.parametrize(
    ("strategy", "name"),
    [*(("replicated", name) for name in together.CASES), *(("fsdp", name) for name in together.SHARDED)],
)
def test_two_processes_train_as_one_does(folder: Path, alone: Callable[[str], Any], strategy: str, name: str) -> None:
    right, weights = alone(name)
    found = [json.loads((folder / f"{strategy}-{name}-{rank}.json").read_text()) for rank in range(COUNT)]
    assert found[0] == found[1]
    assert len(found[0]["history"]) == len(right["history"]) == 6
    for row, other in zip(found[0]["history"], right["history"], strict=True):
        assert row.keys() == other.keys()
        assert row == pytest.approx(other, rel=1e-4, abs=1e-5)
    if name.startswith("memory"):
        assert found[0]["tokens"] < together.CASES[name].settings.tokens_per_micro_batch
    if name == "sft-memory":  # the first process held two rows of a batch
        assert found[0]["rows"] == 1 and right["rows"] == 2
    trained = load_file(folder / f"{strategy}-{name}.safetensors")
    assert trained.keys() == weights.keys()
    for key, value in trained.items():
        assert (value - weights[key]).abs().max() < 1e-4, key


@pytest.mark.parametrize(("way", "name"), [*(("by-first", name) for name in together.BY_FIRST), ("resumed", "tied")])
def test_loaded_by_the_first_process_or_resumed_a_sharded_model_is_trained_to_the_same_bits(
    folder: Path, way: str, name: str
) -> None:
    trained, right = (load_file(folder / f"{each}-{name}.safetensors") for each in (way, "fsdp"))
    assert len(right) > 10 and trained.keys() == right.keys()
    assert all(torch.equal(value, right[key]) for key, value in trained.items())
    for rank in range(COUNT):
        facts = [json.loads((folder / f"{each}-{name}-{rank}.json").read_text()) for each in (way, "fsdp")]
        assert facts[0] == facts[1]


def test_each_process_keeps_its_part_of_a_sharded_checkpoint(folder: Path) -> None:
    (checkpoint,) = (folder / "partial" / "resumed").iterdir()
    manifest = Manifest.model_validate_json((checkpoint / MANIFEST).read_text())
    parts = {
        f"{name}.{rank}.{suffix}" for rank in range(COUNT) for name, suffix in (("model", "safetensors"), ("optimizer", "pt"))
    }
    assert parts <= manifest.files.keys() and not any(name.endswith(".bin") for name in manifest.files)
    assert all(file_hash(checkpoint / name) == checksum for name, checksum in manifest.files.items())
    weights = [load_file(checkpoint / f"model.{rank}.safetensors") for rank in range(COUNT)]
    whole = load_file(folder / "resumed-tied.safetensors")
    assert weights[0].keys() == weights[1].keys() and all("lora" in name for name in weights[0])
    assert all(len(weights[0][name]) + len(weights[1][name]) == len(whole[name]) for name in weights[0])


def test_one_process_s_gradient_that_is_no_number_stops_both(folder: Path) -> None:
    said = [(folder / f"stopped-{rank}.txt").read_text() for rank in range(COUNT)]
    assert said[0] == said[1]
    assert said[0].startswith("the gradient of SFT is nan at step 1 of 6: lower sft.learning_rate (now 0.01); prompts: ")
    assert said[0].endswith("partial/key/stopped")
    assert [path.name for path in (folder / "partial" / "key").iterdir()] == ["stopped"]


def test_shares_are_whole_and_balanced() -> None:
    costs = [5, 1, 9, 2, 7]
    parts = [Ranks(rank, 2).share(costs) for rank in range(2)]
    assert parts == [[2, 0, 1], [4, 3]]
    assert Ranks(2, 3).share([4, 4]) == [] and Ranks().share(costs) == [0, 1, 2, 3, 4]
