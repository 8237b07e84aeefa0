"""Out of memory: smaller micro-batches of the same batch, the same loss and gradient."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from token_groups import VIEWS, groups

from harness.errors import StageError
from harness.run.stages.train import memory_warning
from harness.training.guards import is_out_of_memory
from harness.training.layouts.padded import UniqueRows
from harness.training.settings import TrainingSettings
from harness.training.trainer import train
from harness_plugins.baselines.kto import KTO
from harness_plugins.self_refined.sr_dpo import SrDPO

SETTINGS = TrainingSettings(learning_rate=5e-3, prompts_per_batch=4, epochs=2)


class Small(UniqueRows):
    """A machine that holds so many tokens, and fails after half of the backward passes of a batch were made."""

    def __init__(self, tokens: int, error: Exception) -> None:
        super().__init__()
        self.holds = tokens
        self.error = error
        self.failures = 0

    def logps(self, model, bundles):
        if self.tokens(bundles) > self.holds:
            self.failures += 1
            raise self.error
        return super().logps(model, bundles)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryError()],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("objective", [SrDPO(), KTO()], ids=lambda o: o.name)
def test_the_micro_batch_is_halved_and_nothing_else_changes(tiny, tmp_path: Path, objective, error: Exception) -> None:
    batch, models = groups(tiny[0]), [copy.deepcopy(tiny[0]) for _ in range(2)]
    largest = max(UniqueRows().tokens([group.bundle(view)]) for group in batch for view in VIEWS)
    small = Small(largest, error)
    found = train(models[0], batch, objective, SETTINGS, seed=0, scratch=tmp_path, layout=small)
    expected = train(models[1], batch, objective, SETTINGS, seed=0, scratch=tmp_path, layout=UniqueRows())
    assert small.failures > 0
    assert 1 < found.tokens < expected.tokens == SETTINGS.tokens_per_micro_batch
    for row, right in zip(found.history, expected.history, strict=True):
        assert row == pytest.approx(right, rel=1e-3, abs=1e-5)


def test_a_prompt_that_does_not_fit_alone_is_an_error(tiny, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"one prompt with its \d responses \(\d+ tokens\) does not fit in memory"):
        train(tiny[0], groups(tiny[0]), SrDPO(), SETTINGS, seed=0, scratch=tmp_path, layout=Small(5, MemoryError()))


def test_other_errors_go_through(tiny, tmp_path: Path) -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))
    with pytest.raises(RuntimeError, match="shapes"):
        train(tiny[0], groups(tiny[0]), SrDPO(), SETTINGS, seed=0, scratch=tmp_path, layout=Small(5, RuntimeError("shapes")))


def test_the_stage_says_what_was_cut() -> None:
    assert memory_warning(8192, 8192) == ""
    assert "cut to 900 tokens instead of training.tokens_per_micro_batch = 8192" in memory_warning(8192, 900)
