"""The shared starting point."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from harness.errors import DataError
from harness.sandbox import build_dataset
from harness.training.settings import SftSettings
from harness.training.sft import fine_tune
from harness.types import Example, Prompt


def test_fine_tuning_lowers_the_loss_and_counts(tiny, tmp_path: Path) -> None:
    examples = [*build_dataset({"sft": 24}, 0.0, 0)["sft"], Example(Prompt.of("bare", "why ?"))]
    settings = SftSettings(epochs=4, batch_size=8, learning_rate=1e-2, warmup_share=0)
    history, counts = fine_tune(*tiny, examples, settings, seed=0, scratch=tmp_path)
    assert len(history) == 12
    assert history[-1]["loss"] < history[0]["loss"]
    assert counts["examples"] == 24 and counts["dropped"] == 1 and counts["tokens"] > 24 * 10


def test_longer_examples_are_dropped_whole(tiny, tmp_path: Path) -> None:
    examples = build_dataset({"sft": 24}, 0.0, 0)["sft"]
    _, counts = fine_tune(*tiny, examples, SftSettings(epochs=1, max_length=30), seed=0, scratch=tmp_path)
    assert 0 < counts["dropped"] < 24 and counts["examples"] + counts["dropped"] == 24
    with pytest.raises(DataError, match=r"raise sft\.max_length"):
        fine_tune(*tiny, examples, SftSettings(max_length=8), seed=0, scratch=tmp_path)


def test_micro_batches_change_memory_and_not_the_loss(tiny, tmp_path: Path) -> None:
    examples = build_dataset({"sft": 22}, 0.0, 0)["sft"]  # the last batch is not full
    found = []
    for size in (None, 4, 2):
        settings = SftSettings(epochs=2, batch_size=8, micro_batch_size=size, learning_rate=1e-3, warmup_share=0)
        model = copy.deepcopy(tiny[0])
        found.append(fine_tune(model, tiny[1], examples, settings, seed=0, scratch=tmp_path)[0])
    for history in found[1:]:
        assert len(history) == len(found[0]) == 6
        for row, whole in zip(history, found[0], strict=True):
            assert row == pytest.approx(whole, rel=1e-4, abs=1e-6)


def test_a_micro_batch_divides_its_batch_and_is_for_one_device() -> None:
    assert (
        "micro_batch_size" not in SftSettings().payload("cpu")
        and SftSettings(micro_batch_size=4).payload("cpu")["micro_batch_size"] == 4
    )
    with pytest.raises(ValueError, match="it should divide batch_size = 32"):
        SftSettings(micro_batch_size=5)
    with pytest.raises(ValueError, match="`micro_batch_size` is for one device"):
        SftSettings(micro_batch_size=4, devices=2)
