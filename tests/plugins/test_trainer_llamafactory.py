"""The example for LLaMA-Factory: its files and command line are those that LLaMA-Factory documents. It is not installed here;
a program in its place checks them and trains nothing.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.testing import train_once
from harness_plugins.trainers.command import Command

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
COMMAND = f"{sys.executable} {EXAMPLES / 'llamafactory_dpo.py'} --start {{start}} --data {{data}} --out {{out}} --seed {{seed}}"
# Keeps what it was given, moves one weight, and logs as LLaMA-Factory does.
STAND_IN = """#!{python}
import json, shutil, sys
from pathlib import Path
from safetensors.numpy import load_file, save_file
kept = Path({kept!r})
given = dict(word.split("=", 1) for word in sys.argv[3:])
folder = Path(given["dataset_dir"])
info = json.loads((folder / "dataset_info.json").read_text())[given["dataset"]]
kept.write_text(json.dumps([sys.argv[1:3], given, info, json.loads((folder / info["file_name"]).read_text())]))
start, out = Path(given["model_name_or_path"]), Path(given["output_dir"])
for file in start.iterdir():
    shutil.copy(file, out)
weights = load_file(out / "model.safetensors")
weights["model.norm.weight"] = weights["model.norm.weight"] + 1
save_file(weights, out / "model.safetensors", metadata={{"format": "pt"}})
rows = [{{"current_steps": step, "total_steps": 2, "loss": 0.75 - step / 4, "percentage": 50.0}} for step in (1, 2)]
rows.append({{"current_steps": 2, "total_steps": 2}})
(out / "trainer_log.jsonl").write_text("".join(json.dumps(row) + chr(10) for row in rows))
"""


def test_the_example_for_llama_factory_writes_its_documented_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, program = tmp_path / "kept.json", tmp_path / "bin" / "llamafactory-cli"
    program.parent.mkdir()
    program.write_text(STAND_IN.format(python=sys.executable, kept=str(kept)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    trained = train_once(Command(command=COMMAND), tmp_path / "trained", seed=7)
    assert trained.curve == [{"step": 1.0, "loss": 0.5}, {"step": 2.0, "loss": 0.25}] and not trained.warnings
    assert trained.budget["updates"] == 2
    words, given, info, pairs = json.loads(kept.read_text())
    assert words == ["train", str(EXAMPLES / "llamafactory_dpo.yaml")] and given["seed"] == "7"
    assert info["formatting"] == "sharegpt" and info["ranking"] is True and info["tags"]["user_tag"] == "user"
    assert len(pairs) == 8
    for pair in pairs:
        assert pair.keys() == {"messages", "chosen", "rejected"}
        assert [message["role"] for message in pair["messages"]] == ["user"]  # an odd number, the user first and last
        assert pair["chosen"].keys() == pair["rejected"].keys() == {"role", "content"}
        assert pair["chosen"]["role"] == "assistant" and pair["chosen"]["content"] != pair["rejected"]["content"]


def test_its_settings_are_read_as_llama_factory_reads_them() -> None:
    settings: dict[str, Any] = yaml.safe_load((EXAMPLES / "llamafactory_dpo.yaml").read_text())
    assert (settings["stage"], settings["pref_loss"], settings["finetuning_type"]) == ("dpo", "sigmoid", "full")
    assert settings["save_strategy"] == "no" and isinstance(settings["learning_rate"], float)
    assert not settings.keys() & {
        "model_name_or_path",
        "dataset",
        "dataset_dir",
        "output_dir",
        "seed",
    }  # given on the command line
