"""The path of real data on a small scale: JSON lines, a checkpoint without a template, limits, decontamination, a board."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent / "models"))
from checkpoints import make_checkpoint

MAIN = "from harness.cli import main; main()"
COMMIT = "89abcdef0123456789abcdef0123456789abcdef"


def harness(*arguments: str, environment: dict[str, str] | None = None) -> str:
    command = [sys.executable, "-c", MAIN, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(environment or {})})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Preferences over dialogues with a system turn, some rows too long or evaluated, on a Pythia-like hub model in a cache."""
    folder = tmp_path_factory.mktemp("real")
    repository = folder / "cache" / "models--someone--tiny-neox"
    make_checkpoint(repository / "snapshots" / COMMIT, "gpt_neox", template=None)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    system = {"role": "system", "content": "be kind ."}
    rows = []
    for number in range(24):
        asked = [system, {"role": "user", "content": f"is tea {number} hot ?"}]
        rows.append({"prompt": asked, "chosen": "yes , it is .", "rejected": "no"})
    rows.append({"prompt": "is tea hot ?", "chosen": "pear , fig . " * 40, "rejected": "no"})
    rows.append({"prompt": "NAME two FRUITS", "chosen": "pear , fig .", "rejected": "no"})
    heldout = [{"prompt": "name two fruits .", "chosen": "pear , fig .", "rejected": "no"}]
    heldout += [{"prompt": f"is pear {number} hot ?", "chosen": "no .", "rejected": "yes ."} for number in range(5)]
    for name, content in (("train", rows), ("heldout", heldout)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    raw = {
        "name": "real",
        "source": {"name": "jsonl", "path": str(folder / "train.jsonl"), "splits": {"heldout": str(folder / "heldout.jsonl")}},
        "model": {"path": "someone/tiny-neox", "chat_template": "zephyr", "dtype": "float32", "attn_implementation": "eager"},
        "limits": {"max_response_tokens": 60},
        "sft": {"epochs": 1, "batch_size": 8},
        "budget": {"prompts": 16},
        "methods": ["sft", "dpo"],
        "evaluators": ["preference_accuracy"],
        "seeds": [0],
        "baseline": "sft",
    }
    (folder / "real.yaml").write_text(yaml.safe_dump(raw))
    return folder / "real.yaml"


def test_a_hub_model_in_the_cache_and_json_lines_give_a_board(config: Path) -> None:
    folder = config.parent
    offline = {"HF_HUB_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    said = harness("plan", str(config), "--store", str(folder / "store"), environment=offline)
    data = json.loads(harness("plan", str(config), "--json", "--store", str(folder / "store"), environment=offline))["data"]
    assert data["kept"] == {"sft": 24, "train": 24, "tuning": 0, "heldout": 6}
    assert data["contaminated"]["train"] == {"exact": 0, "normalised": 1, "continued": 0}
    (pair,) = (pair for pair in data.pop("pairs") if pair["split"] == "train")
    assert (pair["text"], pair["evaluated_text"]) == ("NAME two FRUITS", "name two fruits .")
    assert data["too_long"]["train"] == {"max_response_tokens": 1}
    assert "prompts left out because they are evaluated: tuning 0 (0 exact), train 1 (0 exact)" in " ".join(said.split())
    harness(
        "compare", str(config), "--workers", "1", "--out", str(folder / "out"), "--store", str(folder / "store"),
        environment=offline,
    )  # fmt: skip
    board = json.loads((folder / "out" / "board.json").read_text())
    assert board["sharing"]["data"] == data
    for row in board["rows"]:
        assert "failed" not in row
        model = row["provenance"]["model"]
        assert (model["hub"], model["commit"]) == ("someone/tiny-neox", COMMIT)
        assert (model["dtype"], model["attn_implementation"]) == ("float32", "eager")
        assert len(model["chat_template_sha256"]) == 64
    page = (folder / "out" / "index.html").read_text()
    assert "Chat template" in page and "left out because they are evaluated" in page
