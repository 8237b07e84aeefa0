"""What `gpu.py` holds against each other: a step of TRL's DPOTrainer and of ours in each layout, in bfloat16, on any device."""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from typing import cast

import torch
from sides import BETA, Case, pairs_of, trl_trainer
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from harness.training.batch import PLAIN, TokenGroup, cut_groups, group_logps
from harness.training.layouts.choose import LayoutName, choose_layout
from harness.training.layouts.layout import score_bundles
from harness.training.layouts.padded import UniqueRows
from harness.training.precision import autocast
from harness.training.reduction import Totals, reduce_loss
from harness_plugins.baselines.dpo import DPO

TRL = "trl"
SIZES = {
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32},
    "small": {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4, "num_attention_heads": 4},
}
Gradient = dict[str, Tensor]


def build(options: argparse.Namespace, seed: int) -> PreTrainedModel:
    """The policy (seed 0) or its reference (seed 1): weights in float32, on the device."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(model_config(options)).to(options.device)


def model_config(options: argparse.Namespace) -> LlamaConfig:
    sizes = SIZES["small" if options.small else "1b"]
    words = 4096 if options.small else 32768
    return LlamaConfig(vocab_size=words, num_key_value_heads=sizes["num_attention_heads"], tie_word_embeddings=True, **sizes)


class Step:
    """One side's batch and model.

    Args:
        side: a layout, or TRL.
        reference: the groups' responses under the reference, one row each; TRL computes its own.
    """

    def __init__(
        self, options: argparse.Namespace, case: Case, side: str, precision: str, reference: list[list[float]]
    ) -> None:
        self.precision, self.groups, self.trainer = precision, referred(case.groups(), reference), None
        self.model = build(options, 0)
        if side == TRL:
            self.pairs, cpu = pairs_of(self.groups), options.device == "cpu"
            with tempfile.TemporaryDirectory() as folder:
                self.trainer = trl_trainer(self.pairs, folder, self.model, build(options, 1), cpu=cpu)
            self.model = self.trainer.model
        else:
            self.layout = choose_layout(self.model, cast(LayoutName, side))
        self.model.train()
        self.optimizer: torch.optim.Optimizer | None = None

    def backward(self) -> float:
        """Loss and backward, as the trainers do them; the loss."""
        if self.trainer is not None:
            batch = {name: value.to(self.model.device) for name, value in self.trainer.data_collator(self.pairs).items()}
            with autocast(self.model, self.precision):
                loss = self.trainer.compute_loss(self.model, batch)
            loss.backward()
            return float(loss.detach())
        objective, totals, value = DPO(beta=BETA), Totals.of(self.groups), 0.0
        for micro in cut_groups(self.groups, 16384, self.layout):
            with autocast(self.model, self.precision):
                logps = group_logps(self.model, micro, objective, layout=self.layout)
            share = reduce_loss(objective.loss(logps), logps, objective, totals)
            share.backward()  # type: ignore[no-untyped-call]
            value += float(share.detach())
        return value

    def gradient(self) -> tuple[float, Gradient]:
        loss = self.backward()
        return loss, {name: p.grad.detach().cpu() for name, p in self.model.named_parameters() if p.grad is not None}

    def seconds(self) -> float:
        """Of one whole step; what the device still has to do is waited for."""
        self.optimizer = self.optimizer or torch.optim.AdamW(self.model.parameters(), lr=1e-6)
        wait(self.model)
        began = time.perf_counter()
        self.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        wait(self.model)
        return time.perf_counter() - began


def referred(groups: list[TokenGroup], reference: list[list[float]]) -> list[TokenGroup]:
    return [replace(group, reference={PLAIN: tuple(row)}) for group, row in zip(groups, reference, strict=True)]


def reference_of(options: argparse.Namespace, case: Case, precision: str) -> list[list[float]]:
    model = build(options, 1).eval()
    with autocast(model, precision):
        return [list(row) for row in score_bundles(model, [group.bundle() for group in case.groups()], UniqueRows())]


def wait(model: PreTrainedModel) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize()
