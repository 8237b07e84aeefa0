"""A training stage on two processes: what it leaves, and what is left when one of them, or whoever started them, is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import shared_run
from safetensors.torch import load_file

from harness.errors import StageError
from harness.run.stages.devices import launch_environment
from harness.training.settings import DeviceSettings, TrainingSettings

TWO = {"devices": {"count": 2, "strategy": "replicated"}}


def same(found, right) -> None:
    """Two artifacts of one training, up to the order in which floats are added."""
    for row, other in zip(found.read_lines("history.jsonl"), right.read_lines("history.jsonl"), strict=True):
        assert row == pytest.approx(other, rel=1e-4, abs=1e-5)
    weights = load_file(right / "model" / "model.safetensors")
    for name, value in load_file(found / "model" / "model.safetensors").items():
        assert (value - weights[name]).abs().max() < 1e-4, name
    changing = {"seconds", "created"}
    assert {k: v for k, v in found.facts.items() if k not in changing} == {
        k: v for k, v in right.facts.items() if k not in changing
    }


@pytest.mark.slow
def test_one_of_two_processes_dies_and_the_next_run_goes_on(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The stage fails with one reason and leaves no process; then it is finished from the last checkpoint."""
    steps: list[int] = []

    def kill_second(done: int, total: int, note: str) -> None:
        if done == 3:
            psutil.Process().children()[1].send_signal(signal.SIGKILL)

    with pytest.raises(StageError, match=r"^process 1 of 2 was killed by SIGKILL; the machine may be out of memory$"):
        shared_run.run(tmp_path / "two", tiny_checkpoint, kill_second, TWO)
    assert psutil.Process().children() == [] and list((tmp_path / "two" / "parts").iterdir()) == []
    found = shared_run.run(tmp_path / "two", tiny_checkpoint, lambda done, total, note: steps.append(done), TWO)
    assert steps[0] == 0 and steps[1] > 1 and steps[-1] == 5
    same(found, shared_run.run(tmp_path / "one", tiny_checkpoint, lambda done, total, note: None, {}))


@pytest.mark.slow
def test_sharded_weights_come_back_whole_from_a_checkpoint_too(tiny_checkpoint: Path, tmp_path: Path) -> None:
    sharded = {"devices": {"count": 2, "strategy": "fsdp"}}

    def kill_first(done: int, total: int, note: str) -> None:
        if done == 3:
            psutil.Process().children()[0].send_signal(signal.SIGKILL)

    with pytest.raises(StageError, match=r"^process 0 of 2 was killed"):
        shared_run.run(tmp_path / "two", tiny_checkpoint, kill_first, sharded)
    steps: list[int] = []
    found = shared_run.run(tmp_path / "two", tiny_checkpoint, lambda done, total, note: steps.append(done), sharded)
    assert steps[1] > 1
    same(found, shared_run.run(tmp_path / "one", tiny_checkpoint, lambda done, total, note: None, {}))


@pytest.mark.slow
def test_sharded_adapters_of_a_tied_output_are_stored_apart_from_the_input(tiny_checkpoint: Path, tmp_path: Path) -> None:
    lora = {"lora": {"rank": 2, "target_modules": ["q_proj", "lm_head"]}}
    sharded = {**lora, "devices": {"count": 2, "strategy": "fsdp"}}
    found = shared_run.run(tmp_path / "two", tiny_checkpoint, lambda done, total, note: None, sharded)
    same(found, shared_run.run(tmp_path / "one", tiny_checkpoint, lambda done, total, note: None, lora))
    weights, start = load_file(found / "model" / "model.safetensors"), load_file(tiny_checkpoint / "model.safetensors")
    name = "model.embed_tokens.weight"
    assert (weights[name] == start[name]).all() and (weights["lm_head.weight"] - start[name]).abs().max() > 1e-3


@pytest.mark.slow
def test_nothing_is_left_when_whoever_started_them_is_killed(tiny_checkpoint: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(Path(shared_run.__file__)), str(tmp_path), str(tiny_checkpoint), "3"]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True)
    started = [int(number) for number in done.stdout.split()]
    assert done.returncode == -signal.SIGKILL and len(started) == 2
    left = [psutil.Process(number) for number in started if psutil.pid_exists(number)]
    _, alive = psutil.wait_procs(left, timeout=20)
    assert alive == []
    (partial,) = (tmp_path / "partial").iterdir()
    assert next(partial.iterdir()).name.startswith("checkpoint-")


def test_a_failing_stage_says_why_once(tiny_checkpoint: Path, tmp_path: Path) -> None:
    wrong = {**TWO, "lora": {"target_modules": ["nothing"]}}
    with pytest.raises(StageError, match=r"^lora.target_modules = .*'nothing'.* does not fit"):
        shared_run.run(tmp_path, tiny_checkpoint, lambda done, total, note: None, wrong)


@pytest.mark.parametrize("strategy", ["replicated", "fsdp", "fsdp_offload"])
def test_the_configs_that_ship_are_what_accelerate_reads(strategy: str) -> None:
    environment = launch_environment(DeviceSettings(count=2, strategy=strategy))
    assert environment["ACCELERATE_MIXED_PRECISION"] == "no"
    assert (environment.get("ACCELERATE_USE_FSDP") == "true") == strategy.startswith("fsdp")
    assert environment.get("FSDP_OFFLOAD_PARAMS", "false") == str(strategy == "fsdp_offload").lower()


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeeds_configs_are_read_without_it(stage: int) -> None:
    """Its own part could not be run here: no GPU."""
    settings = DeviceSettings.model_construct(count=2, strategy=f"deepspeed_zero{stage}")
    environment = launch_environment(settings)
    assert environment["ACCELERATE_USE_DEEPSPEED"] == "true" and environment["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == str(stage)
    assert environment["ACCELERATE_MIXED_PRECISION"] == "no" and "accelerate" in settings.libraries


def test_devices_are_a_number_or_a_section_and_one_is_none() -> None:
    assert TrainingSettings(devices=1) == TrainingSettings() and "devices" not in TrainingSettings().payload("cpu")
    assert TrainingSettings(devices=2).payload("cpu")["devices"] == {"count": 2, "strategy": "replicated"}
    assert TrainingSettings(**TrainingSettings(devices=2).payload("cpu")) == TrainingSettings(devices=2)
    with pytest.raises(ValueError, match="deepspeed is not installed: pip install deepspeed, or choose 'fsdp'"):
        TrainingSettings(devices={"count": 2, "strategy": "deepspeed_zero3"})
