"""benchmarks/gpu.py on a tiny model: it is written for a machine that is not at hand, and must work when one is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import gpu
import gpu_sides

TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
pytestmark = pytest.mark.filterwarnings("ignore:`.*gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(gpu_sides.SIZES, "small", TINY)
    return gpu.parse(["--small", "--device", "cpu", "--m", "2", "--steps", "1", "--out", str(tmp_path)])


def test_layouts_and_trl_agree_and_are_timed(options: Any, tmp_path: Path) -> None:
    found = {**gpu.about(options), "equality": gpu.equality(options), "speed": gpu.speed(options)}
    (row,) = found["equality"]["rows"]
    assert found["equality"]["passed"] and set(row["sides"]) == {"trl", "expanded", "unique", "shared_prefix"}
    assert all(0 < side["error"] < 0.1 for side in row["sides"].values())  # it does compute in bfloat16
    assert [side["loss"] for side in row["sides"].values()] == pytest.approx([row["sides"]["trl"]["loss"]] * 4, rel=0.01)
    assert [(item["m"], item["side"]) for item in found["speed"]] == [
        (2, side) for side in ("trl", "expanded", "unique", "shared_prefix")
    ]
    gpu.write(found, options)
    assert json.loads((tmp_path / "gpu-small.json").read_text())["speed"] == found["speed"]
    assert "| 2 | shared_prefix |" in (tmp_path / "gpu-small.md").read_text()


def test_a_wrong_gradient_is_seen(options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    right = gpu.Step.gradient

    def wrong(step: Any) -> Any:
        loss, gradient = right(step)
        worse = step.trainer is None and step.layout.name == "unique"
        return loss, {name: value * (1.1 if worse else 1.0) for name, value in gradient.items()}

    monkeypatch.setattr(gpu.Step, "gradient", wrong)
    assert not gpu.equality(options)["passed"]


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit, match="no CUDA device is here"):
        gpu.main()


@pytest.mark.gpu
def test_on_a_gpu(tmp_path: Path) -> None:
    options = gpu.parse(["--small", "--steps", "1", "--out", str(tmp_path)])
    assert gpu.equality(options)["passed"]
    assert all(row["peak_gib"] > 0 for row in gpu.speed(options))
    assert gpu.quickstart(options)["failed"] == []
