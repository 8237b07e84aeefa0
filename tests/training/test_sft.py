"""The shared starting point."""

from __future__ import annotations

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
