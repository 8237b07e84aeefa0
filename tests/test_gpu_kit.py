"""benchmarks/gpu: written for a machine that is not at hand, it must work when one is, and keep what a broken part leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from argparse import Namespace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
from gpu import equality, generation, models, speed, wheels  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`.*gradient_checkpointing` is deprecated:FutureWarning")
SMALL = Namespace(small=True, device="cpu", m=[2], steps=1)


def kit(out: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run the command; its exit code, gpu.json and gpu.md."""
    command = [sys.executable, str(BENCHMARKS / "gpu"), "--small", "--out", str(out), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    return done.returncode, json.loads((out / "gpu.json").read_text()), (out / "gpu.md").read_text()


@pytest.mark.parametrize("is_whole", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_it_runs_at_a_small_size(is_whole: bool, tmp_path: Path) -> None:
    """Every part; the quickstart, a comparison as others are, in the slow one alone."""
    parts = ["machine", "equality", "speed", "generation", "smollm2"]
    code, content, page = kit(tmp_path, "--device", "cpu", *(() if is_whole else ("--parts", *parts)))
    rows = {name: part["rows"] for name, part in content["parts"].items()}
    assert code == 0 and {*rows} == {*parts, *(["quickstart"] if is_whole else [])}
    assert rows["machine"][0]["versions"]["trl"] == metadata.version("trl")
    losses = [row["loss"] for row in rows["equality"] if "loss" in row]
    assert len(losses) == 4 and losses == pytest.approx([losses[0]] * 4, rel=0.01)
    assert all(0 < row["error"] < 0.1 for row in rows["equality"] if "loss" in row)  # it does compute in bfloat16
    tokens = {row["side"]: row["tokens"] for row in rows["speed"]}
    assert tokens["shared_prefix"] < tokens["unique"] < tokens["TRL"]
    assert [row["setting"] for row in rows["generation"]] == ["greedy", "whole", "ending"]
    assert rows["generation"][0]["equal_share"] > 0.5
    assert not is_whole or (rows["quickstart"][-1]["rows"] == 2 and "the board has 2 rows" in page)
    assert "skipped" in rows["smollm2"][0]


@pytest.mark.gpu
def test_everything_runs_on_a_gpu(tmp_path: Path) -> None:
    code, content, _ = kit(tmp_path, "--device", "cuda")
    assert code == 0 and all(row["peak_gib"] > 0 for row in content["parts"]["speed"]["rows"])


def test_a_part_past_its_time_limit_is_ended_and_said_to_be(tmp_path: Path) -> None:
    code, content, page = kit(tmp_path, "--device", "cpu", "--parts", "smollm2", "--limit", "0.05")
    assert code == 1 and content["parts"]["machine"]["error"] == "ended after 0.05 s, its time limit"
    assert "- machine: ended after 0.05 s, its time limit" in page


def test_without_a_gpu_nothing_is_measured(tmp_path: Path) -> None:
    code, content, page = kit(tmp_path, "--device", "cuda", "--parts", "equality") if not _has_gpu() else pytest.skip("a GPU")
    assert code == 1 and [*content["parts"]] == ["machine"] and "no CUDA device is here" in page


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def test_too_little_memory_is_a_result_and_another_error_a_failure() -> None:
    import torch

    def fail(error: Exception) -> dict[str, Any]:
        raise error

    assert models.attempt({"m": 1}, lambda: fail(torch.OutOfMemoryError("0 bytes are free"))) == {"m": 1, "out_of_memory": True}
    assert models.attempt({"m": 1}, lambda: fail(ValueError("no"))) == {"m": 1, "failed": "m 1: ValueError: no"}
    assert models.attempt({"m": 1}, lambda: {"seconds": 2.0}) == {"m": 1, "seconds": 2.0}
    lines = speed.report([{"m": 1, "side": "TRL", "out_of_memory": True}], {})
    assert lines[-1] == "| 1 | TRL | | out of memory | | | |"


def test_a_wrong_gradient_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = models.Step.gradient

    def wrong(step: Any) -> Any:
        loss, gradient = right(step)
        worse = step.trainer is None and step.layout.name == "unique"
        return loss, {name: value * (1.1 if worse else 1.0) for name, value in gradient.items()}

    monkeypatch.setattr(models.Step, "gradient", wrong)
    failed = {row["side"] for row in equality.gradients(SMALL, 2) if "failed" in row}
    assert failed == {"unique"}


def test_the_operations_of_a_step_are_those_that_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    groups = models.referred(SMALL, models.Case(2, 20, 24), "float32")  # equal lengths: no padding, which is not counted
    for side in (models.TRL, models.UNIQUE, models.SHARED):
        step = models.Step(SMALL, side, groups, "float32")
        with FlopCounterMode(display=False) as counter:
            step.backward()
        counted, work = counter.get_total_flops(), speed.work_of(groups, side.layout)
        # TRL's head is fused into functions of its own; the rest counts what attention masks, and heads one position more.
        ours = work.flops(step.model.config)
        assert ours == pytest.approx(counted, rel=0.05 if side.layout else 0.6), side.name


def test_prompts_have_one_length_and_every_id_is_a_word() -> None:
    built = generation.tokenizer(4096)
    assert built.decode([4095]) == "w4095"
    lengths = {
        len(built.apply_chat_template([{"role": "user", "content": p.text}], add_generation_prompt=True, return_dict=False))
        for p in generation.prompts(3, 10, 4096)
    }
    assert lengths == {14}


# The packages that travel


def wheel(folder: Path, name: str, version: str, *requires: str) -> wheels.Wheel:
    file = folder / f"{name}-{version}-py3-none-any.whl"
    fields = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {item}" for item in requires)]
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{name}-{version}.dist-info/METADATA", "\n".join(fields) + "\n")
    return wheels.Wheel.of(file)


def test_only_what_the_machine_lacks_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    present = {"trl": None, "datasets": None, "dill": None, "transformers": "5.17.0", "pyarrow": "3.0"}
    monkeypatch.setattr(wheels, "installed", lambda name: present.get(name, "9.9"))
    monkeypatch.setattr(
        wheels, "requirements", lambda: [wheels.Requirement("trl>=1"), wheels.Requirement("transformers>=5,<6")]
    )
    carried = {
        "trl": wheel(tmp_path, "trl", "1.16.0", "datasets>=4", "transformers>=4.56", 'peft; extra == "peft"'),
        "datasets": wheel(tmp_path, "datasets", "5.2.0", "dill>=0.3", "pyarrow>=24"),
        "dill": wheel(tmp_path, "dill", "0.4.1"),
        "transformers": wheel(tmp_path, "transformers", "5.23.0"),  # the machine's own is never replaced
    }
    absent, problems = wheels.lacking(carried)
    assert {item.file.name.split("-")[0] for item in absent} == {"trl", "datasets", "dill"}
    assert problems == ["pyarrow>=24 is needed, and the machine has 3.0"]


def test_the_list_of_what_travels() -> None:
    needed = wheels.closure("3.12")
    assert {"trl", "datasets", "dill", "pydantic-core", "setuptools", "torch"} <= needed
    assumed = wheels.named(wheels.ASSUMED.read_text())
    assert {"torch", "transformers", "pyarrow"} <= assumed and not {"trl", "datasets", "pydantic"} & assumed
    assert wheels.named("Package Version\n------- -----\nPyYAML 6.0\nhf_xet==1.8\n") >= {"pyyaml", "hf-xet"}
