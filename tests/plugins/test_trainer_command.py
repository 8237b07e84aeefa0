"""The trainer `command`: a script fills a row; whatever else a program does is one clear error on its row."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import ValidationError

from harness.api.registry import Registry
from harness.config import resolve
from harness.errors import ConfigError, StageError
from harness.run.plan import plan
from harness_plugins.trainers.command import Command

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "train_dpo.py"
PLACES = "--start {start} --data {data} --out {out} --seed {seed}"
# Does one thing that a trainer should not, as its first argument says.
ODD = """
import json, shutil, subprocess, sys, time
from pathlib import Path
what, start, out = sys.argv[1], Path(sys.argv[3]), Path(sys.argv[7])

def copied():
    for file in start.iterdir():
        if file.suffix in (".json", ".jinja", ".safetensors"):
            shutil.copy(file, out)

def changed(change):
    from safetensors.numpy import load_file, save_file
    copied()
    weights = load_file(out / "model.safetensors")
    change(weights)
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})

if what == "still":
    copied()
elif what == "nan":
    changed(lambda weights: weights["model.norm.weight"].fill(float("nan")))
elif what == "cut":
    changed(lambda weights: weights.pop("model.norm.weight"))
elif what == "vocabulary":
    copied()
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "vocab_size": config["vocab_size"] + 1}))
elif what == "tokens":
    copied()
    text = (out / "tokenizer.json").read_text()
    (out / "tokenizer.json").write_text(text.replace('"gold":', '"lead":').replace('"the":', '"teh":'))
elif what == "pickles":
    (out / "pytorch_model.bin").write_bytes(b"no model")
elif what == "hang":
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "MARK"], start_new_session=True)
    print("begun", flush=True)
    time.sleep(600)
elif what == "lines":
    for number in range(1_000_000):
        print(number)
elif what == "loss":
    print(json.dumps({"step": 1, "loss": float("nan")}))
elif what == "code":
    print("the reason", file=sys.stderr)
    sys.exit(7)
elif what == "updates":
    copied()
    print(json.dumps({"step": 99, "loss": 1.0}))
"""
ERRORS = {
    "nothing": "left no *.safetensors in its output folder (nothing)",
    "nan": "left weights that are no numbers (model.norm.weight)",
    "cut": "whose weights do not fit its configuration: model.norm.weight",
    "vocabulary": "left a model with a vocabulary of",
    "tokens": "left a tokenizer with another vocabulary than its start",
    "pickles": "left weights as pickles (pytorch_model.bin), which are not read",
    "hang": "ran longer than its limit, hours = 0.002, and was ended",
    "lines": "printed more than max_lines = 5,000 lines",
    "loss": "loss is nan at step 1",
    "code": "ended with code 7\n    the reason",
}


def config(checkpoint: Path, methods: list[Any], **changes: Any) -> dict[str, Any]:
    return {
        "name": "trainers",
        "source": {"name": "sandbox", "sft": 8, "train": 16, "tuning": 4, "heldout": 6},
        "model": {"path": str(checkpoint)},
        "sft": None,
        "budget": {"prompts": 12},
        "generation": {"max_tokens": 8},
        "methods": ["sft", *methods],
        "evaluators": [{"name": "preference_accuracy"}],
        "seeds": [0],
        "baseline": "sft",
        **changes,
    }


def trainer(command: str, **fields: Any) -> dict[str, Any]:
    return {"name": "command", "command": command, **fields}


@pytest.fixture(scope="module")
def board(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run with the script and every odd program, each in a row."""
    folder = tmp_path_factory.mktemp("trainers")
    odd = folder / "odd.py"
    odd.write_text(ODD.replace("MARK", str(folder)))
    script = trainer(f"{sys.executable} {SCRIPT} {PLACES} --lr 0.01 --batch 4", files=[str(SCRIPT)], version_command="echo 1.0")
    rows = [{"label": "script", "data": "preference", "trainer": script}]
    for what in [*ERRORS, "still"]:
        limits = {"hang": {"hours": 0.002}, "lines": {"max_lines": 5000}}.get(what, {})
        rows.append(
            {"label": what, "data": "preference", "trainer": trainer(f"{sys.executable} {odd} {what} {PLACES}", **limits)}
        )
    path = folder / "trainers.yaml"
    path.write_text(json.dumps(config(tiny_checkpoint, rows)))
    command = [sys.executable, "-c", "from harness.cli import main; main()", "compare", str(path), "--json", "--workers", "1"]
    done = subprocess.run(
        [*command, "--out", str(folder / "out"), "--store", str(folder / "store")], capture_output=True, text=True
    )
    assert done.stdout, done.stderr
    read: dict[str, Any] = json.loads((folder / "out" / "board.json").read_text())
    return {"folder": folder, "board": read, "rows": {row["method"]: row for row in read["rows"]}}


def test_a_plain_script_fills_a_row_with_its_curve_and_what_it_used(board: dict[str, Any]) -> None:
    row = board["rows"]["script"]
    assert row["data"] == "preference" and row["objective"] == "command"
    assert row["budget"] == {"prompts": 12, "pairs": 12, "updates": 3}  # it did not tell its tokens
    losses = [point["loss"] for point in row["curves"]["0"]]
    assert len(losses) == 3 and abs(losses[0] - 0.6931) < 1e-3 and losses[1] != losses[0]
    (round_,) = row["provenance"]["rounds"]
    assert (
        round_["objective"] is None and round_["trainer"]["name"] == "command" and len(round_["trainer"]["fingerprint"]) == 32
    )
    assert "preference_accuracy/pair_accuracy" in row["scores"]


@pytest.mark.parametrize("what", ERRORS)
def test_an_odd_program_is_one_clear_error_on_its_row(board: dict[str, Any], what: str) -> None:
    row = board["rows"][what]
    assert ERRORS[what] in row["failed"] and row["failed"].startswith(f"train {what} · seed 0: ")
    assert not row["scores"]


def test_a_program_that_moves_nothing_is_a_warning(board: dict[str, Any]) -> None:
    warning = "still: the trainer command moved no weight: this row is its starting model"
    assert warning in board["board"]["warnings"]
    (still, sft) = (board["rows"][label]["scores"] for label in ("still", "sft"))
    assert {name: score["mean"] for name, score in still.items()} == {name: score["mean"] for name, score in sft.items()}


def test_no_process_stays_and_the_log_is_bounded(board: dict[str, Any]) -> None:
    mark = str(board["folder"])
    running = [process.info["cmdline"] for process in psutil.process_iter(["cmdline"])]
    assert not [words for words in running if words and mark in words]
    log = "".join(path.read_text() for path in (board["folder"] / "out").rglob("worker-*.log"))
    assert "begun" in log and "4999" in log and "999999" not in log


def test_files_and_the_version_are_in_the_key_and_secrets_are_not_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "train.py"
    file.write_text("1")
    fields: dict[str, Any] = {"command": f"python {file} {PLACES}", "files": (str(file),)}
    first = Command(**fields).fingerprint()
    assert Command(**fields).fingerprint() == first
    assert (
        Command(**fields, version_command="echo 2").fingerprint()
        != Command(**fields, version_command="echo 3").fingerprint()
        != first
    )
    file.write_text("2")
    assert Command(**fields).fingerprint() != first
    monkeypatch.setenv("SOME_TOKEN", "secret")
    assert "SOME_TOKEN" not in Command(**fields)._variables()
    assert Command(**fields, environment=("SOME_TOKEN",))._variables()["SOME_TOKEN"] == "secret"


@pytest.mark.parametrize(
    ("fields", "field", "fix"),
    [
        ({"command": "python train.py {start} {data} {out}"}, "command", "it lacks {seed}"),
        ({"command": f"no-such-program {PLACES}"}, "command", "no program 'no-such-program'"),
        ({"command": f"python x {PLACES}", "files": ["absent.py"]}, "files", "'absent.py' is not there"),
        ({"command": f"python x {PLACES}", "version_command": "false"}, "version_command", "it fails"),
    ],
)
def test_what_only_the_machine_can_tell_is_said_while_planning(
    fields: dict[str, Any], field: str, fix: str, tiny_checkpoint: Path
) -> None:
    raw = config(tiny_checkpoint, [{"label": "script", "data": "preference", "trainer": {"name": "command", **fields}}])
    with pytest.raises(ConfigError) as error:
        resolve(raw, Registry.load())
    assert [problem.field for problem in error.value.problems] == [f"methods.1.trainer.{field}"]
    assert fix in error.value.problems[0].fix


@pytest.mark.parametrize(
    "fields", [{"command": "a 'b"}, {"command": "  "}, {"command": "a", "environment": ("A=1",)}, {"command": "a", "hours": 0}]
)
def test_fields_that_cannot_be(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Command(**fields)


@pytest.mark.parametrize(
    ("row", "field", "fix"),
    [
        ({"method": "dpo"}, "objective", "has a loss of its own"),
        ({"data": "preference", "training": {"epochs": 2}}, "training.epochs", "does not use it"),
        ({"data": "preference", "trainer": {"name": "grouped"}}, "method", "or both a builder and an objective"),
        ({"data": "preference", "trainer": {"name": "comand"}}, "trainer", "did you mean 'command'?"),
    ],
)
def test_what_a_row_cannot_have_with_its_trainer(row: dict[str, Any], field: str, fix: str, tiny_checkpoint: Path) -> None:
    given = {"label": "script", "trainer": trainer(f"python x {PLACES}"), **row}
    with pytest.raises(ConfigError) as error:
        resolve(config(tiny_checkpoint, [given]), Registry.load())
    (problem,) = error.value.problems
    assert problem.field == f"methods.1.{field}" and fix in problem.fix


def test_a_limit_that_a_trainer_cannot_keep_is_refused_and_its_place_keeps_it(tiny_checkpoint: Path) -> None:
    row: dict[str, Any] = {"label": "script", "data": "preference", "trainer": trainer(f"python x {PLACES}")}
    limited = {"budget": {"prompts": 12, "updates": 6}}
    with pytest.raises(ConfigError, match=r"of the row 'script' cannot keep to it: use budget\.prompts alone"):
        resolve(config(tiny_checkpoint, [row], **limited), Registry.load())
    row["trainer"]["command"] += " --updates {updates}"
    graph = plan(resolve(config(tiny_checkpoint, [row], **limited), Registry.load()))
    (stage,) = [stage for stage in graph if stage.kind == "train"]
    assert stage.payload["spending"] == {"unit": "updates", "amount": 6} and stage.payload["settings"] == {}


def test_it_gets_the_gpus_that_the_executor_gave_it(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-b")  # a worker sees its own
    tell = tmp_path / "tell.py"
    tell.write_text("import os, sys; sys.exit(' '.join([os.environ.get('CUDA_VISIBLE_DEVICES', 'none'), *sys.argv[1:3]]))")
    places = f"{sys.executable} {tell} {{devices}} {{processes}} {PLACES}"
    assert "\n    GPU-b GPU-b 1" in _failure(tmp_path, places, gpus=("GPU-a", "GPU-b"))
    assert "\n    GPU-a,GPU-b GPU-a,GPU-b 2" in _failure(tmp_path, places, devices=2, gpus=("GPU-a", "GPU-b", "GPU-c"))
    assert "asks for 3 GPUs, and this run has 2 (GPU-a, GPU-b)" in _failure(
        tmp_path, places, devices=3, gpus=("GPU-a", "GPU-b")
    )
    assert "\n    GPU-b  2" in _failure(tmp_path, places, devices=2)  # no executor's: the environment as it is


def _failure(folder: Path, command: str, gpus: tuple[str, ...] = (), **fields: Any) -> str:
    """The error of a command's training by a worker whose executor has these GPUs."""
    from harness.testing import train_once

    with pytest.raises(StageError) as error:
        train_once(Command(command=command, **fields), folder / "trained", gpus=gpus)
    return str(error.value)


def test_trainings_on_several_gpus_run_one_after_another(tiny_checkpoint: Path) -> None:
    rows = [
        {"label": f"on{count}", "data": "preference", "trainer": trainer(f"python x {PLACES}", devices=count)}
        for count in (1, 2)
    ]
    graph = plan(resolve(config(tiny_checkpoint, rows), Registry.load()))
    assert [stage.devices for stage in graph if stage.kind == "train"] == [1, 2]
    assert ["devices" in stage.payload["trainer"]["fields"] for stage in graph if stage.kind == "train"] == [False, True]
