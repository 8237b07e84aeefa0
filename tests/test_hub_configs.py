"""The papers' configs and those for GPUs: offline they fail for want of the network alone; with local stand-ins they plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness import ConfigError
from harness.plan import plan
from harness.registry import Registry
from harness.resolve import resolve
from harness.yaml_file import load_raw

CONFIGS = Path(__file__).parent.parent / "configs"
FILES = sorted([*(CONFIGS / "papers").glob("*.yaml"), *(CONFIGS / "gpu").glob("*.yaml")])


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def stand_in(raw: dict[str, Any], checkpoint: Path, folder: Path) -> dict[str, Any]:
    """The config with a local model and data set in place of the hub's."""
    folder.mkdir()
    row = {"chosen": "\n\nHuman: hi\n\nAssistant: good day", "rejected": "\n\nHuman: hi\n\nAssistant: no"}
    (folder / "train.jsonl").write_text(json.dumps(row) + "\n")
    source = {**raw["source"], "dataset": str(folder)}
    model = {name: value for name, value in raw["model"].items() if name not in ("revision", "chat_template")}
    return {**raw, "source": source, "model": {**model, "path": str(checkpoint)}}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_offline_the_only_problem_is_the_network(path: Path, registry: Registry, offline: None) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(load_raw(path), registry)
    assert {problem.field for problem in caught.value.problems} == {"model.path", "source.dataset"}
    assert all("needs network: the hub cannot be reached" in problem.fix for problem in caught.value.problems)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_with_local_stand_ins_it_plans(path: Path, registry: Registry, tiny_checkpoint: Path, tmp_path: Path) -> None:
    raw = stand_in(load_raw(path), tiny_checkpoint, tmp_path / "data")
    comparison = resolve(raw, registry)
    graph = plan(comparison)
    assert len(graph.rows) == len(comparison.variants) * len(comparison.config.seeds)
    assert all("NOT RUN by this project" in line for line in [path.read_text()])


@pytest.mark.network
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_online_every_revision_is_pinned(path: Path, registry: Registry) -> None:
    comparison = resolve(load_raw(path), registry)
    assert comparison.checkpoint is not None and len(comparison.checkpoint.commit or "") == 40
    assert len(comparison.source.revision) == 40  # type: ignore[attr-defined]
