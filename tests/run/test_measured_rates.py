"""`harness plan --measure`: rates from timings, which plans take them, and where they are kept."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.api.registry import Registry
from harness.config import Comparison, resolve
from harness.errors import HarnessError
from harness.run.estimates import measured
from harness.run.estimates.gpu import GPUS, Lengths, comparison_size
from harness.run.estimates.measured import Calibration, Rates
from harness.run.estimates.plan import plan_report

CONFIG: dict[str, Any] = {
    "schema": 1,
    "name": "tiny",
    "source": {"name": "sandbox", "sft": 20, "train": 20, "tuning": 5, "heldout": 5},
    "model": {"path": "sandbox"},
    "budget": {"prompts": 10},
    "methods": ["sft", "dpo"],
    "evaluators": ["preference_accuracy"],
    "seeds": [0],
    "baseline": "sft",
}
LENGTHS = Lengths(20, 10, "made up")


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return resolve(CONFIG, Registry.load())


@pytest.fixture
def rates(comparison: Comparison) -> Rates:
    return Rates("cpu", "2026-11-28", comparison_size(comparison).multiplied, training=1e9, decoding=2e8, bandwidth=1e9)


def core_seconds(comparison: Comparison, calibration: Calibration, folder: Path) -> float:
    report = plan_report(comparison, folder / "store", None, None, cores=2, calibration=calibration)
    assert report.cpu is not None
    return report.cpu.core_seconds


def test_rates_are_computed_from_timings(comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    timings = iter([1000.0, 50.0])  # tokens a second of training, and of generation
    monkeypatch.setattr(measured, "_rate", lambda work, seconds, clock: next(timings))
    assert comparison.checkpoint is not None
    size, found = comparison_size(comparison), measured.measure(comparison.checkpoint, LENGTHS)
    assert (found.device, found.multiplied) == ("cpu", size.multiplied)
    assert found.training == 6 * size.multiplied * 1000 and found.decoding == 2 * size.multiplied * 50
    step = 2 * size.parameters + 32 * (20 + 10 / 2) * size.cache_bytes  # bytes for the next token of 32 sequences
    assert found.bandwidth == pytest.approx(step * 50 / 32)


def test_a_real_measurement_takes_steps_and_generates(comparison: Comparison) -> None:
    assert comparison.checkpoint is not None
    found = measured.measure(comparison.checkpoint, LENGTHS, seconds=0.0)
    assert 1e6 < found.training < 1e14 and 1e6 < found.decoding < 1e14


def test_a_plan_takes_the_measured_rates(comparison: Comparison, rates: Rates, tmp_path: Path) -> None:
    rough = core_seconds(comparison, Calibration(tmp_path / "none"), tmp_path)
    calibration = Calibration(tmp_path)
    calibration._keep(rates)
    once = core_seconds(comparison, calibration, tmp_path)
    calibration._keep(replace(rates, training=5e8, decoding=1e8))  # replaces those of the same device and size
    twice = core_seconds(comparison, calibration, tmp_path)
    calibration._keep(replace(rates, training=1e30, decoding=1e30))
    fixed = core_seconds(comparison, calibration, tmp_path)  # what each stage takes whatever the model
    assert twice - fixed == pytest.approx(2 * (once - fixed)) and once > rough > fixed > 0
    report = plan_report(comparison, tmp_path / "store", None, None, cores=2, calibration=calibration)
    assert report.cpu is not None and report.cpu.line().endswith("by rates measured on this machine on 2026-11-28")
    assert report.as_dict()["cpu"] == {"core_seconds": fixed, "workers": 2, "measured": "2026-11-28"}


def test_measuring_again_keeps_the_rates(
    comparison: Comparison, rates: Rates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured, "this_device", lambda: "cpu")
    monkeypatch.setattr(measured, "measure", lambda checkpoint, lengths: rates)
    assert Calibration(tmp_path, again=True).rates(comparison, None, lambda: LENGTHS) == rates
    assert Calibration(tmp_path).rates(comparison, None, lambda: LENGTHS) == rates
    monkeypatch.setattr(measured, "measure", lambda checkpoint, lengths: pytest.fail("it measures for a minute in vain"))
    with pytest.raises(HarnessError, match="this machine computes on cpu, not on h200-141gb"):
        Calibration(tmp_path, again=True).rates(comparison, GPUS["h200-141gb"], lambda: LENGTHS)
    monkeypatch.setattr(measured, "this_device", lambda: "NVIDIA H200")
    with pytest.raises(HarnessError, match="the GPU NVIDIA H200: name it by --gpu"):
        Calibration(tmp_path, again=True).rates(comparison, None, lambda: LENGTHS)


def test_rates_of_another_machine_size_or_device_and_damaged_ones_are_not_used(
    comparison: Comparison, rates: Rates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibration = Calibration(tmp_path)
    calibration._keep(replace(rates, multiplied=rates.multiplied * 5))
    assert calibration.rates(comparison, None, lambda: LENGTHS) is None
    calibration._keep(replace(rates, device="NVIDIA A100"))
    assert calibration.rates(comparison, None, lambda: LENGTHS) is None
    calibration._keep(rates)
    assert calibration.rates(comparison, None, lambda: LENGTHS) == rates
    with monkeypatch.context() as other:
        other.setattr(platform, "node", lambda: "another")
        assert calibration.rates(comparison, None, lambda: LENGTHS) is None
    calibration.file.write_text('[{"device": 1}]')
    assert calibration.rates(comparison, None, lambda: LENGTHS) is None


@pytest.mark.parametrize(
    ("card", "name", "same"),
    [
        ("NVIDIA H200", "h200-141gb", True),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb", True),
        ("NVIDIA GeForce RTX 4090", "rtx4090-24gb", True),
        ("NVIDIA L40S", "l4-24gb", False),
        ("cpu", "h100-80gb", False),
    ],
)
def test_a_gpu_takes_the_shares_of_its_own_card(rates: Rates, card: str, name: str, same: bool) -> None:
    gpu = GPUS[name]
    here = replace(rates, device=card, training=gpu.flops / 4, bandwidth=gpu.bandwidth / 2)
    assert here.is_of(gpu) == same
    calibrated = here.calibrate(gpu)
    assert (calibrated.compute, calibrated.decoding, calibrated.measured) == (0.25, 0.5, "2026-11-28")


def test_a_large_model_is_measured_with_fewer_layers() -> None:
    config = {
        "model_type": "qwen3",
        "num_hidden_layers": 8,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "vocab_size": 128,
        "layer_types": ["full_attention"] * 8,
    }
    whole, half = measured.shortened(config, 1e9), measured.shortened(config, measured.model_size(config).parameters / 2)
    assert whole == config
    assert half["num_hidden_layers"] == 4 and half["layer_types"] == ["full_attention"] * 4
    assert measured.model_size(half).layers == 4


def test_a_model_made_from_nothing_is_estimated_by_its_recipe(tmp_path: Path) -> None:
    """Ten times as many numbers in its layers take ten times as long, beside what each stage takes whatever the model."""
    seconds = []
    for width in (128, 1280, 12800):
        recipe = {"vocabulary_size": 300, "hidden_size": 64, "layers": 1, "heads": 2, "intermediate_size": width}
        comparison = resolve(CONFIG | {"model": {"scratch": recipe}}, Registry.load())
        seconds.append(core_seconds(comparison, Calibration(tmp_path / "none"), tmp_path))
    assert seconds[0] > 0
    assert (seconds[2] - seconds[1]) / (seconds[1] - seconds[0]) == pytest.approx(10)


def test_a_model_of_unknown_size_has_no_time(comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: Comparison) -> None:
        raise HarnessError("the hub cannot be reached")

    monkeypatch.setattr("harness.run.estimates.cpu.comparison_size", unknown)
    assert (
        plan_report(comparison, tmp_path / "store", None, None, cores=2, calibration=Calibration(tmp_path / "none")).cpu is None
    )
