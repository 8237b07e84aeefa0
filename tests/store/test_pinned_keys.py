"""The stage keys of every packaged config, pinned: a key that changes makes stores of users useless, so it changes on purpose.

`HARNESS_WRITE_KEYS=1 pytest tests/store/test_pinned_keys.py` writes the file again after such a change.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.api.registry import Registry
from harness.config import resolve_each
from harness.config.file import load_raw
from harness.models.checkpoint import checkpoint_folder
from harness.run.graph import joined
from harness.run.plan import plan

ROOT = Path(__file__).parents[2]
CONFIGS = {str(path.relative_to(ROOT / "configs")): path for path in sorted((ROOT / "configs").rglob("*.yaml"))}
CONFIGS = {name: path for name, path in CONFIGS.items() if not name.startswith("accelerate")}
PINNED = Path(__file__).parent / "pinned_keys.json"
ENVIRONMENT = {"device": "cpu", "torch": "2.13.0+cpu", "numpy": "2.4.0"}  # keys must not depend on this machine


def dialogues(folder: Path) -> Path:
    """Write a made-up file in the format of the configs whose data are not packaged; its bytes are part of the keys."""
    ask = "\n\nHuman: Say {}.\n\nAssistant:"
    rows = [{"chosen": f"{ask.format(i)} Yes, {i}.", "rejected": f"{ask.format(i)} No."} for i in range(1200)]
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def described(path: Path, folder: Path) -> dict[str, object]:
    """Return the number of stages by kind and one hash over all their keys, in the order of the graph."""
    raw = load_raw(path)
    if raw["source"].get("path") == "":
        raw["source"]["path"] = dialogues(folder).name
    models = raw["model"] if isinstance(raw["model"], list) else [raw["model"]]
    for model in models:
        if model.get("path") == "smollm2":  # its weights are no part of the project
            model["path"] = "sandbox"
        if model.get("path", "").startswith("runs/"):  # nor is a model that a command makes: another one stands for it
            model["path"] = str(shutil.copytree(checkpoint_folder("sandbox"), folder / "other"))
            Path(model["path"], "other.txt").write_text("other")
    comparisons = resolve_each(raw, Registry.load(), offline=True)
    graph = joined({comparison.start: plan(comparison) for comparison in comparisons})
    digest = hashlib.sha256("\n".join(graph.stages).encode()).hexdigest()
    return {"stages": dict(Counter(stage.kind for stage in graph)), "keys": digest}


@pytest.fixture(autouse=True)
def same_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the hub, the user's cache and the versions of this machine's libraries."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "harness"))
    monkeypatch.setattr("harness.run.plan.environment", lambda: dict(ENVIRONMENT))
    monkeypatch.setattr("harness.run.plan.metadata", SimpleNamespace(version=lambda name: "0"))


@pytest.mark.parametrize("name", CONFIGS)
def test_the_keys_of_a_packaged_config_stay(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a data file, as written, is in the keys
    found = described(CONFIGS[name], tmp_path)
    if os.environ.get("HARNESS_WRITE_KEYS"):
        pinned = json.loads(PINNED.read_text()) if PINNED.exists() else {}
        PINNED.write_text(json.dumps({**pinned, name: found}, indent=2, sort_keys=True) + "\n")
    assert json.loads(PINNED.read_text())[name] == found
