"""A training that was interrupted goes on to the same weights and history as one that was not, bit for bit."""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import load_file
from stage_run import run as run_stage_alone
from token_groups import groups
from transformers import TrainerControl, TrainerState

from harness.errors import StageError, TimeOverError
from harness.sandbox import build_dataset
from harness.store import MANIFEST as ARTIFACT
from harness.store import file_hash
from harness.training.adapters import add_adapters
from harness.training.checkpoint_files import NAMES, write_tensors
from harness.training.checkpoints import MANIFEST, CheckpointCallback, Checkpoints, Manifest
from harness.training.ranks import Ranks
from harness.training.settings import LoraSettings, SftSettings, TrainingSettings
from harness.training.sft import fine_tune
from harness.training.trainer import train
from harness_plugins.baselines.dpo import DPO
from harness_plugins.baselines.kto import KTO

SETTINGS = TrainingSettings(learning_rate=5e-3, prompts_per_batch=3, epochs=3)  # 3 steps an epoch, the last one short
STEPS = 9


class KilledError(Exception):
    """What stands for the end of a process."""


def kill_at(step: int | None) -> Callable[[int, int, str], None]:
    def report(done: int, total: int, note: str) -> None:
        if done == step:
            raise KilledError

    return report


def disturb() -> None:
    """A fresh process has other random numbers."""
    random.seed(99)
    numpy.random.seed(99)
    torch.manual_seed(99)


def run(start, batch, objective, settings: TrainingSettings, folder: Path, kill: int | None = None):
    """One process's share: a fresh copy of the starting model, trained until `kill`."""
    disturb()
    model, kept = copy.deepcopy(start), Checkpoints(folder / "partial" / "key", 0)
    policy = add_adapters(model, settings.lora, 0) if settings.lora else model
    (folder / "scratch").mkdir(parents=True, exist_ok=True)
    trained = train(
        policy, batch, objective, settings, seed=0, scratch=folder / "scratch", report=kill_at(kill), checkpoints=kept
    )
    return policy, trained, kept


def changed(**fields) -> TrainingSettings:
    return SETTINGS.model_copy(update=fields)


CASES = {
    "dpo": (DPO(), SETTINGS),
    "kto": (KTO(), changed(tokens_per_micro_batch=60)),
    "adapters with dropout": (DPO(), changed(lora=LoraSettings(rank=2, dropout=0.3), layout="unique")),
    "adapters of the output": (DPO(), changed(lora=LoraSettings(rank=2, target_modules=("q_proj", "lm_head")))),
    "bfloat16": (DPO(), changed(precision="bfloat16", gradient_checkpointing=True)),
}


@pytest.mark.parametrize("name", CASES)
def test_an_interrupted_training_ends_as_one_that_was_not(tiny, tmp_path: Path, name: str) -> None:
    """Killed in the middle of the first epoch, at its end, and in the last, by turns."""
    objective, settings = CASES[name]
    batch = groups(tiny[0])
    whole, expected, _ = run(tiny[0], batch, objective, settings, tmp_path / "whole")
    for kill in (2, 4, 8):  # at `kill`, the last checkpoint is the step before
        with pytest.raises(KilledError):
            run(tiny[0], batch, objective, settings, tmp_path / "killed", kill)
    policy, trained, kept = run(tiny[0], batch, objective, settings, tmp_path / "killed")
    assert kept.notes["history"] == expected.history[:7] and kept.earlier_seconds > 0
    assert trained == expected and len(trained.history) == STEPS
    for (key, found), right in zip(policy.state_dict().items(), whole.state_dict().values(), strict=True):
        assert torch.equal(found, right), key


def test_a_training_whose_time_is_over_keeps_its_last_step(tiny, tmp_path: Path) -> None:
    batch = groups(tiny[0])
    whole, expected, _ = run(tiny[0], batch, DPO(), SETTINGS, tmp_path / "whole")
    (tmp_path / "late").mkdir()
    late = Checkpoints(tmp_path / "late" / "partial" / "key", 3600, ends_at=0.0)
    with pytest.raises(TimeOverError):
        train(copy.deepcopy(tiny[0]), batch, DPO(), SETTINGS, seed=0, scratch=tmp_path / "late", checkpoints=late)
    assert [path.name for path in late.folder.iterdir()] == ["checkpoint-1"]
    policy, trained, kept = run(tiny[0], batch, DPO(), SETTINGS, tmp_path / "late")
    assert kept.notes["history"] == expected.history[:1] and trained == expected
    assert all(torch.equal(weight, whole.state_dict()[name]) for name, weight in policy.state_dict().items())


def test_one_checkpoint_is_kept_without_a_pickle_that_nothing_reads(tiny, tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        run(tiny[0], groups(tiny[0]), DPO(), SETTINGS, tmp_path, 6)
    (checkpoint,) = (tmp_path / "partial" / "key").iterdir()
    assert checkpoint.name == "checkpoint-5"
    names = {path.name for path in checkpoint.iterdir()}
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", MANIFEST} <= names
    assert "training_args.bin" not in names
    files = Manifest.model_validate_json((checkpoint / MANIFEST).read_text()).files
    assert files.keys() == names - {MANIFEST}
    assert all(file_hash(checkpoint / name) == checksum for name, checksum in files.items())
    rebuilt = copy.deepcopy(tiny[0])
    assert rebuilt.load_state_dict(load_file(checkpoint / "model.safetensors"), strict=False).unexpected_keys == []


@pytest.mark.parametrize(("seconds", "writing", "pause"), [(600, 0.0, 600), (600, 10.0, 600), (60, 10.0, 190), (0, 10.0, 0)])
def test_checkpoints_take_at_most_a_twentieth_of_the_time(tmp_path: Path, seconds: float, writing: float, pause: float) -> None:
    assert Checkpoints(tmp_path, seconds).pause(writing) == pytest.approx(pause)


def test_the_pause_follows_the_seconds_that_writing_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step a second, and three seconds to write a checkpoint: one after the floor of 5, then one after 57 more."""
    now = 0.0
    monkeypatch.setattr("harness.training.checkpoints.time.monotonic", lambda: now)
    monkeypatch.setattr(Checkpoints, "keep", lambda *_: None)
    callback = CheckpointCallback(Checkpoints(tmp_path, 5), Ranks(), dict)
    saved, state, control = [], TrainerState(max_steps=200), TrainerControl()
    for step in range(1, 130):
        now, state.global_step = now + 1, step
        callback.on_step_end(None, state, control)
        if control.should_save:
            now += 3
            callback.on_save(argparse.Namespace(output_dir=str(tmp_path)), state, control)
            saved.append(step)
    assert saved == [5, 62, 119]


@pytest.mark.parametrize("dtype", NAMES, ids=str)
def test_a_tensor_of_any_type_is_written_as_safetensors_reads_it(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {
        "transposed": torch.ones(2, 3).to(dtype).t(),
        "empty": torch.ones(0, 2).to(dtype),
        "one": torch.ones(()).to(dtype),
    }
    assert write_tensors(tmp_path / "file", tensors) == file_hash(tmp_path / "file")
    stored = load_file(tmp_path / "file")
    for name, tensor in tensors.items():
        assert stored[name].dtype == dtype and stored[name].shape == tensor.shape
        assert torch.equal(stored[name].to(torch.complex128), tensor.to(torch.complex128))


def test_a_damaged_checkpoint_is_not_used(tiny, tmp_path: Path) -> None:
    batch = groups(tiny[0])
    _, expected, _ = run(tiny[0], batch, DPO(), SETTINGS, tmp_path / "whole")
    with pytest.raises(KilledError):
        run(tiny[0], batch, DPO(), SETTINGS, tmp_path, 6)
    (checkpoint,) = (tmp_path / "partial" / "key").iterdir()
    (checkpoint / "optimizer.pt").write_bytes(b"not what was written")
    assert Checkpoints(checkpoint.parent, 0).resume() is None
    assert not checkpoint.exists()
    _, trained, kept = run(tiny[0], batch, DPO(), SETTINGS, tmp_path)
    assert trained == expected and kept.notes == {}


def test_a_checkpoint_that_another_process_has_kept_is_no_failure(tmp_path: Path) -> None:
    """A machine that stood still comes back, and keeps what another that took over has kept."""
    kept = Checkpoints(tmp_path / "partial", 0)
    for scratch in ("one", "two"):
        made = tmp_path / scratch / "checkpoint-5"
        made.mkdir(parents=True)
        (made / "model.safetensors").write_text("the same")
        kept.keep(made, {"history": []}, 1.0)
        assert not made.exists()
    assert [path.name for path in kept.folder.iterdir()] == ["checkpoint-5"]
    assert Checkpoints(kept.folder, 0).resume() == kept.folder / "checkpoint-5"


def test_checkpoints_come_by_time(tiny, tmp_path: Path) -> None:
    model, kept = copy.deepcopy(tiny[0]), Checkpoints(tmp_path / "partial", 3600)
    train(model, groups(model), DPO(), SETTINGS, seed=0, scratch=tmp_path, checkpoints=kept)
    assert not kept.folder.exists()


def test_fine_tuning_goes_on_too(tiny, tmp_path: Path) -> None:
    examples = build_dataset({"sft": 20}, 0.0, 0)["sft"]
    settings = SftSettings(epochs=2, batch_size=8, learning_rate=1e-2)
    models, histories = [], []
    for kills in ((None,), (2, 4, 6, None)):  # within the first epoch, at its end, within the second
        for kill in kills:
            disturb()
            model, kept = copy.deepcopy(tiny[0]), Checkpoints(tmp_path / str(len(kills)), 0)
            options = {"seed": 0, "scratch": tmp_path, "report": kill_at(kill), "checkpoints": kept}
            if kill is not None:
                with pytest.raises(KilledError):
                    fine_tune(model, tiny[1], examples, settings, **options)
                continue
            histories.append(fine_tune(model, tiny[1], examples, settings, **options).history)
            models.append(model.state_dict())
    assert kept.earlier_seconds > 0
    assert histories[0] == histories[1] and len(histories[0]) == 6
    assert all(torch.equal(found, models[0][name]) for name, found in models[1].items())


def test_a_killed_process_leaves_what_the_next_one_needs(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A whole stage, killed with SIGKILL at its third step: the next process publishes the same files, and cleans up."""
    script, folder = Path(__file__).with_name("stage_run.py"), tmp_path / "killed"
    command = [sys.executable, str(script), str(folder), str(tiny_checkpoint), "3"]
    assert subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode == -9
    (partial,) = (folder / "partial").iterdir()
    assert [path.name for path in partial.iterdir()] == ["checkpoint-2"]
    steps: list[int] = []
    killed = run_stage_alone(folder, tiny_checkpoint, lambda done, total, note: steps.append(done))
    assert steps == [0, 3, 4, 5] and len(list(killed.read_lines("history.jsonl"))) == 5
    assert not partial.exists() and list((folder / "parts").iterdir()) == []
    whole = run_stage_alone(tmp_path / "whole", tiny_checkpoint, lambda done, total, note: None)
    assert whole.read_json(ARTIFACT)["files"] == killed.read_json(ARTIFACT)["files"]


def test_a_gradient_that_is_no_number_leaves_its_state_and_the_prompts(tiny, tmp_path: Path) -> None:
    batch = groups(tiny[0])
    model = copy.deepcopy(tiny[0])
    model.get_input_embeddings().weight.register_hook(lambda gradient: gradient * float("nan"))
    kept = Checkpoints(tmp_path / "partial" / "key", 3600)
    with pytest.raises(StageError, match=r"gradient of dpo is nan at step 1 of 9: lower .*; prompts: prompt-\d, .*key/stopped"):
        train(model, batch, DPO(), SETTINGS, seed=0, scratch=tmp_path, checkpoints=kept)
    stopped = json.loads((kept.folder / "stopped" / "batch.json").read_text())
    assert stopped["step"] == 1 and {row["id"] for row in stopped["groups"]} <= {group.id for group in batch}
    again = type(model).from_pretrained(kept.folder / "stopped")
    assert all(torch.equal(found, tiny[0].state_dict()[name]) for name, found in again.state_dict().items())
