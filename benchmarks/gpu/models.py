"""Models of random weights and the steps of each side, which the parts share. What is measured does not hang on the weights.

Imports torch and the harness: parts import it where they measure.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from sides import BETA, Case, pairs_of, trl_trainer
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from gpu.machine import synchronize
from harness.training.batch import PLAIN, TokenGroup, cut_groups, group_logps
from harness.training.layouts.choose import Attention, LayoutName, choose_layout
from harness.training.layouts.layout import score_bundles
from harness.training.layouts.padded import UniqueRows
from harness.training.precision import autocast
from harness.training.reduction import Totals, reduce_loss
from harness_plugins.baselines.dpo import DPO

TOKENS = 16384  # of a micro-batch of ours: each case fits in one
Gradient = dict[str, Tensor]


@dataclass(frozen=True)
class Side:
    """One way to take a step.

    Attributes:
        layout: ours by name, or None: TRL's DPOTrainer on expanded pairs.
        weights: their type; matrix products are in bfloat16 either way, unless `precision` of the step says otherwise.
        liger: with Liger's kernels for the layers. It replaces functions of the library for the whole process.
        attention: as transformers names it.
        kernel: `training.attention`, of the shared-prefix layout.
    """

    name: str
    layout: LayoutName | None = None
    weights: torch.dtype = torch.float32
    liger: bool = False
    attention: str = "sdpa"
    kernel: Attention = "sdpa"


TRL = Side("TRL")
EXPANDED, UNIQUE, SHARED = (Side(name, name) for name in ("expanded", "unique", "shared_prefix"))


def kernel_sides(options: argparse.Namespace) -> list[Side]:
    """The shared-prefix layout by the kernels that need a GPU."""
    ways: tuple[Attention, ...] = ("varlen", "flex") if options.device == "cuda" else ()
    return [Side(f"shared_prefix, {way}", "shared_prefix", kernel=way) for way in ways]


def model_config(options: argparse.Namespace, attention: str = "sdpa") -> LlamaConfig:
    """A Llama of 1.14 B parameters, or of 0.3 M."""
    if options.small:
        sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    else:
        sizes = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32}
    heads, words = sizes["num_attention_heads"], 4096 if options.small else 32768
    return LlamaConfig(
        vocab_size=words, num_key_value_heads=heads, tie_word_embeddings=True, attn_implementation=attention, **sizes
    )


def build(options: argparse.Namespace, seed: int, attention: str = "sdpa") -> PreTrainedModel:
    """The policy (seed 0) or its reference (seed 1): weights in float32, drawn on the device."""
    torch.manual_seed(seed)
    with torch.device(options.device):
        return cast(PreTrainedModel, LlamaForCausalLM(model_config(options, attention)))


def case(options: argparse.Namespace, m: int, prompts: int) -> Case:
    """Prompts of 146 and responses of 256 tokens, Nectar's averages, give or take 30 %."""
    prompt, response = (20, 24) if options.small else (146, 256)
    return Case(m, prompt, response, spread=0.3, prompts=prompts)


def referred(options: argparse.Namespace, case: Case, precision: str) -> list[TokenGroup]:
    """The case's groups with the reference's log-probabilities, as every side then reads them."""
    model = build(options, 1).eval()
    groups = case.groups()
    with autocast(model, precision):
        scores = score_bundles(model, [group.bundle() for group in groups], UniqueRows())
    return [replace(group, reference={PLAIN: tuple(row)}) for group, row in zip(groups, scores, strict=True)]


class Step:
    """One side's model, batch and optimiser.

    Args:
        precision: of matrix products, `bfloat16` or `float32`.
    """

    def __init__(self, options: argparse.Namespace, side: Side, groups: list[TokenGroup], precision: str = "bfloat16") -> None:
        self.device, self.precision, self.groups = options.device, precision, groups
        self.model = build(options, 0, side.attention).to(side.weights)
        self.trainer: Any = None
        if side.layout is None:
            if side.liger:
                with_liger(self.model)
            self.pairs = _stored(groups)
            self.trainer = _trainer(options, self.model, self.pairs)
            self.model = self.trainer.model
        else:
            self.layout = choose_layout(self.model, side.layout, side.kernel)
            if side.liger:
                with_liger(self.model)
        self.model.train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-6, fused=options.device == "cuda")

    def backward(self) -> float:
        """Loss and backward, as the trainers do them; the loss."""
        return self._theirs() if self.trainer is not None else self._ours()

    def _theirs(self) -> float:
        batch = {name: value.to(self.device) for name, value in self.trainer.data_collator(self.pairs).items()}
        with warnings.catch_warnings(), autocast(self.model, self.precision):
            warnings.simplefilter("ignore", FutureWarning)
            loss = self.trainer.compute_loss(self.model, batch)
        loss.backward()
        return float(loss.detach())

    def _ours(self) -> float:
        objective, totals, value = DPO(beta=BETA), Totals.of(self.groups), 0.0
        for micro in cut_groups(self.groups, TOKENS, self.layout):
            with autocast(self.model, self.precision):
                logps = group_logps(self.model, micro, objective, layout=self.layout)
            share = reduce_loss(objective.loss(logps), logps, objective, totals)
            share.backward()  # type: ignore[no-untyped-call]
            value += float(share.detach())
        return value

    def gradient(self) -> tuple[float, Gradient]:
        """Loss and gradient of a first step; both stay on the device."""
        loss = self.backward()
        return loss, {name: p.grad.detach() for name, p in self.model.named_parameters() if p.grad is not None}

    def take(self) -> float:
        """Take a step, and return its seconds."""
        synchronize(self.device)
        began = time.perf_counter()
        self.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        synchronize(self.device)
        return time.perf_counter() - began


def _stored(groups: list[TokenGroup]) -> list[dict[str, Any]]:
    """TRL's pairs with the reference's log-probabilities, as its own precomputing adds them."""
    reference = [(row[0], value) for group in groups for row in [group.reference[PLAIN]] for value in row[1:]]
    pairs = pairs_of(groups)
    for pair, (chosen, rejected) in zip(pairs, reference, strict=True):
        pair |= {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
    return pairs


def _trainer(options: argparse.Namespace, model: PreTrainedModel, pairs: list[dict[str, Any]]) -> Any:
    """TRL's trainer that reads the reference from the batch and keeps no reference model.

    Its own precomputing would hash the whole model first; so it is built with a tiny model in the reference's place.
    """
    tiny = LlamaForCausalLM(
        LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = trl_trainer(pairs, folder, model, tiny, cpu=options.device == "cpu")
    trainer.precompute_ref_logps, trainer.ref_model = True, None
    return trainer


def with_liger(model: PreTrainedModel) -> None:
    """Liger's kernels for the layers, as TRL sets them: not its loss, since TRL has a fused one of its own."""
    from liger_kernel.transformers import apply_liger_kernel_to_llama

    apply_liger_kernel_to_llama(cross_entropy=False, fused_linear_cross_entropy=False, model=model)


def attempt(row: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The row with what `measure` gives. Too little memory is a result; any other error is a failure, and the rest goes on."""
    try:
        row = row | measure()
    except torch.OutOfMemoryError:
        row = row | {"out_of_memory": True}
    except Exception as error:
        traceback.print_exc()
        row = row | {"failed": f"{_named(row)}: {type(error).__name__}: {str(error)[:300]}"}
    free()  # here, and not in `finally`: an exception that is still handled holds the tensors of its frames
    return row


def _named(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in row.items())


def free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
