"""Comparisons of online trainers: killed at a step they go on to the same board; a real model learns from a verifier.

Their parts are tested by `tests/training/test_trl_trainer.py`, quickly; these take minutes.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness.board.build import Board
from harness.run.compare import compare

pytestmark = pytest.mark.slow
MAIN = "from harness.cli import main; main()"
ONLINE = {"grpo": {"num_generations": 2}, "rloo": {"num_generations": 2}, "online_dpo": {}}
STEPS = 6


def start(path: Path, name: str) -> subprocess.Popen[str]:
    """Begin a comparison as a user does, in a process group of its own."""
    command = [sys.executable, "-c", MAIN, "compare", str(path), "--workers", "1"]
    command += ["--out", str(path.parent / name), "--store", str(path.parent / f"{name}-store")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0)


def finish(path: Path, name: str) -> Board:
    process = start(path, name)
    _, said = process.communicate()
    assert process.returncode == 0, said
    return Board.read(path.parent / name)


def kill_at(path: Path, name: str, trainer: str, step: int) -> int:
    """Kill a comparison and its workers when a row's training has come to a step; return the step that it had come to."""
    process = start(path, name)
    reached = -1
    while process.poll() is None and reached < step:
        time.sleep(0.02)
        try:
            running = json.loads((path.parent / name / "status.json").read_text())["running"]
        except (OSError, ValueError, KeyError):
            continue  # not written yet
        reached = max(
            [reached, *(stage.get("done") or 0 for stage in running if stage["title"].startswith(f"train {trainer} "))]
        )
    assert process.poll() is None, process.communicate()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return reached


@pytest.mark.parametrize("trainer", ONLINE)
def test_killed_at_a_random_step_it_goes_on_to_the_same_board(trainer: str, tmp_path: Path, tiny_checkpoint: Path) -> None:
    path = tmp_path / "online.yaml"
    row = {"name": "trl", "trainer": trainer, "reward": {"policy": "likelihood"}, "arguments": ONLINE[trainer]}
    config: dict[str, Any] = {
        "name": "online",
        "source": {"name": "sandbox", "sft": 8, "train": 4 * STEPS, "tuning": 4, "heldout": 6},
        "model": {"path": str(tiny_checkpoint)},
        "sft": None,
        "training": {"prompts_per_batch": 4, "learning_rate": 0.01},
        "budget": {"prompts": 4 * STEPS},
        "generation": {"max_tokens": 8},
        "run": {"checkpoint_minutes": 0},
        "methods": ["sft", {"label": trainer, "trainer": row}],
        "evaluators": ["response_stats"],
        "seeds": [0],
        "baseline": "sft",
    }
    path.write_text(json.dumps(config))
    step = random.SystemRandom().randint(1, STEPS - 1)
    reached = kill_at(path, "killed", trainer, step)
    assert step <= reached
    kept = list((tmp_path / "killed-store" / "partial").rglob("checkpoint-*"))
    assert kept or reached == STEPS, f"nothing was kept at step {reached}"
    killed, whole = finish(path, "killed"), finish(path, "whole")
    assert killed.without_times() == whole.without_times(), f"killed at step {reached}"
    trained = killed.row(trainer)
    assert trained is not None and not trained.failed
    assert (trained.budget["updates"], trained.budget["reward_calls"]) == (STEPS, 4 * STEPS * 2)
    assert [point["step"] for point in trained.curves["0"]] == list(range(1, STEPS + 1))


@pytest.mark.parametrize("trainer", ONLINE)
def test_smollm2_is_trained_by_gsm8ks_verifier(trainer: str, tmp_path: Path, smollm2_whole: Path) -> None:
    reference = os.environ.get("HARNESS_REFERENCE_DATA")
    if reference is None:
        pytest.skip("HARNESS_REFERENCE_DATA is not set: the folder that holds gsm8k/train.jsonl")
    problems = [json.loads(line) for line in (Path(reference) / "gsm8k" / "train.jsonl").read_text().splitlines()]
    short = sorted(problems, key=lambda problem: len(problem["question"]))[:16]
    file = tmp_path / "gsm8k.jsonl"
    file.write_text("".join(json.dumps(problem) + "\n" for problem in short))
    reward = {"checker": "gsm8k"}
    raw: dict[str, Any] = {
        "name": "gsm8k",
        "source": {
            "name": "jsonl",
            "path": str(file),
            "columns": {"prompt": "question", "target": "answer"},
            "heldout_share": 0.25,
        },
        "model": {"path": str(smollm2_whole)},
        "sft": None,
        "training": {"prompts_per_batch": 2, "learning_rate": 1e-5},
        "budget": {"prompts": 4},
        "generation": {"max_tokens": 48},
        "reward": reward,  # which reaches the trainer
        "methods": ["sft", {"label": trainer, "trainer": {"name": "trl", "trainer": trainer, "arguments": ONLINE[trainer]}}],
        "evaluators": [{"name": "verifier", "checker": "gsm8k", "max_tokens": 48}],
        "seeds": [0],
        "baseline": "sft",
    }
    result = compare(raw, workers=1, where="gsm8k.yaml", folder=tmp_path / "run", store=tmp_path / "store")
    assert not result.outcome.failed
    row = result.board.row(trainer)
    assert row is not None
    assert (row.budget["updates"], row.budget["reward_calls"]) == (2, 8)
    assert 0 < row.budget["generated"] <= 8 * 48
    (round_,) = row.provenance["rounds"]
    assert round_["trainer"]["fields"]["reward"] == {**reward, "reference": "target"}
    assert all(0 <= point["reward"] <= 1 for point in row.curves["0"])
    assert 0 <= row.scores["verifier/accuracy"].mean <= 1
