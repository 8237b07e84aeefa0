"""The disk that a run needs: numbers worked out by hand, what is really written, and the refusal of what does not fit."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from test_compare import tiny_config

from harness.api.registry import Registry
from harness.config import resolve_each
from harness.errors import StoreWriteError
from harness.run.compare import compare
from harness.run.estimates.disk import DELTA_SHARE, DIGITS_SHARE, DiskEstimate, disk_estimate, size_text
from harness.run.estimates.gpu import comparison_size
from harness.run.graph import joined
from harness.run.plan import plan

LORA = {"lora": {"rank": 4}}


def estimate(checkpoint: Path, **changes: Any) -> tuple[DiskEstimate, int]:
    """Return the estimate of four models, SFT and three rows' at one seed, and the number of parameters."""
    samples = {"method": "self_contrast", "data": {"samples": 4, "keep": 0.5}}
    again = {"method": "dpo", "label": "again", "objective": {"beta": 0.5}}
    config = tiny_config(checkpoint) | {"methods": ["sft", "dpo", samples, again]}
    model = config["model"] | changes.pop("model", {})
    (comparison,) = resolve_each(config | {"model": model} | changes, Registry.load(), offline=True)
    found = disk_estimate(comparison, joined({None: plan(comparison)}), (), workers=1)
    assert found is not None
    return found, comparison_size(comparison).parameters


@pytest.mark.parametrize(
    ("changes", "kept", "passing", "state"),
    [
        ({}, 4 * 4, 0, 3 * 4),
        ({"model": {"storage": "bfloat16"}}, 4 * 2, 0, 3 * 4),
        ({"model": {"storage": "delta"}}, 4 * 4 * DELTA_SHARE, 4, 3 * 4),
        ({"run": {"keep_models": "best"}}, 2 * 4, 2 * 4, 3 * 4),
        ({"run": {"keep_models": "none"}}, 1 * 4, 2 * 4, 3 * 4),
        ({"training": {"optimizer": "sgd"}, "sft": None}, 3 * 4, 0, 1 * 4),
    ],
)
def test_models_and_state_are_counted_in_bytes_of_a_parameter(
    tiny_checkpoint: Path, changes: dict[str, Any], kept: float, passing: float, state: int
) -> None:
    need, parameters = estimate(tiny_checkpoint, **changes)
    assert (need.kept, need.passing, need.state) == tuple(parameters * bytes_ for bytes_ in (kept, passing, state))
    # Two kinds of answers to 24 prompts by four rows, and at least 4 samples of 16 prompts, each of 12 tokens of 12 bytes.
    assert need.texts >= (2 * 4 * 24 + 4 * 16) * 12 * 12
    assert need.peak == need.kept + need.passing + 2 * need.state + need.texts


def test_adapters_have_a_small_state_and_lie_beside_the_model(tiny_checkpoint: Path) -> None:
    whole, parameters = estimate(tiny_checkpoint)
    adapters, _ = estimate(tiny_checkpoint, sft=LORA, training=LORA)
    numbers = (adapters.kept - whole.kept) / 4 / 4
    assert 0 < numbers < parameters and adapters.state == 3 * 4 * numbers
    alone, _ = estimate(tiny_checkpoint, sft=LORA, training=LORA, model={"storage": "delta"})
    assert alone.kept == pytest.approx(4 * (4 * numbers + 4 * parameters * DIGITS_SHARE))


def test_two_comparisons_write_all_models_and_one_state_at_a_time() -> None:
    both = DiskEstimate(1, 2, 30, 4) + DiskEstimate(10, 20, 3, 40)
    assert both == DiskEstimate(11, 22, 30, 44) and both.peak == 137
    assert [size_text(count) for count in (2.5e12, 7e9, 1.26e6, 400)] == ["2.5 TB", "7.0 GB", "1.3 MB", "0 kB"]


def test_a_run_that_does_not_fit_is_refused_and_one_that_fits_writes_what_was_estimated(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tiny_checkpoint) | {"methods": ["sft", "dpo"], "evaluators": ["preference_accuracy"]}
    options: dict[str, Any] = {"folder": tmp_path / "run", "store": tmp_path / "store", "workers": 1}
    usage = namedtuple("usage", "free")
    with monkeypatch.context() as full:
        full.setattr("harness.run.estimates.disk.shutil.disk_usage", lambda path: usage(100_000))
        with pytest.raises(StoreWriteError) as refused:
            compare(config, **options)
    message = str(refused.value)
    assert str(tmp_path / "store") in message and "100 kB are free" in message and "run.keep_models=none" in message
    assert not list((tmp_path / "store" / "artifacts").iterdir())
    (comparison,) = resolve_each(config, Registry.load())
    need = disk_estimate(comparison, plan(comparison), (), workers=1)
    compare(config, **options)
    weights = sum(path.stat().st_size for path in (tmp_path / "store").rglob("model.safetensors"))
    assert need is not None and need.kept == pytest.approx(weights, rel=0.05)
