"""Liger's kernels by a stand-in that replaces what it replaces: used within a training, and nowhere after it."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from architectures import HONOURING, make
from transformers.models.llama import modeling_llama

from harness.errors import StageError
from harness.training.kernels import layer_kernels
from harness.training.optimizers import on_this_machine
from harness.training.settings import TrainingSettings


class Norm(torch.nn.Module):
    pass


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The keywords of each call of the stand-in, which knows Llama alone."""
    calls: list[dict[str, Any]] = []

    def apply(model: Any, **keywords: Any) -> None:
        if model.config.model_type == "llama":
            calls.append(keywords)
            modeling_llama.LlamaRMSNorm = Norm

    monkeypatch.setitem(sys.modules, "liger_kernel", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", SimpleNamespace(_apply_liger_kernel_to_instance=apply))
    return calls


def test_kernels_are_put_back_and_leave_the_loss_alone(given: list[dict[str, Any]]) -> None:
    own = modeling_llama.LlamaRMSNorm
    with pytest.raises(ZeroDivisionError), layer_kernels(make(HONOURING["llama"]), "liger"):
        assert modeling_llama.LlamaRMSNorm is Norm
        raise ZeroDivisionError
    assert modeling_llama.LlamaRMSNorm is own
    assert given == [{"cross_entropy": False, "fused_linear_cross_entropy": False}]
    with layer_kernels(make(HONOURING["llama"]), "default"):
        assert modeling_llama.LlamaRMSNorm is own


def test_an_architecture_without_kernels_is_an_error(given: list[dict[str, Any]]) -> None:
    with (
        pytest.raises(StageError, match="'liger': it has none for GPT2LMHeadModel"),
        layer_kernels(make(HONOURING["gpt2"]), "liger"),
    ):
        raise AssertionError("never entered")
    assert not given


def test_what_cannot_run_here_is_refused_and_only_the_choice_is_in_the_key(
    given: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "they need a CUDA device, and this machine has none" in TrainingSettings(kernels="liger").absent()["kernels"]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert TrainingSettings(kernels="liger").absent() == {}
    assert TrainingSettings(kernels="liger").payload("cuda")["kernels"] == "liger"
    assert "kernels" not in TrainingSettings().payload("cuda")
    monkeypatch.setitem(sys.modules, "liger_kernel", None)
    assert "pip install 'alignment-harness[liger]'" in TrainingSettings(kernels="liger").absent()["kernels"]


@pytest.mark.parametrize(
    ("cuda", "name", "strategy", "form"),
    [
        (False, "adamw_torch", "replicated", "adamw_torch"),
        (True, "adamw_torch", "fsdp", "adamw_torch_fused"),
        (True, "adamw_torch", "fsdp_offload", "adamw_torch"),
        (True, "adamw_torch", "deepspeed_zero3", "adamw_torch"),
        (True, "rmsprop", "replicated", "rmsprop"),
    ],
)
def test_adamw_is_fused_on_gpus(cuda: bool, name: str, strategy: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    assert on_this_machine(name, strategy) == form
