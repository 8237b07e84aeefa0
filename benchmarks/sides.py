"""The two sides of `multi_negative.py`: one batch, one model, one optimiser step, by TRL's code and by ours."""

from __future__ import annotations

import random
import tempfile
import time
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from harness.sandbox.tokenizer import build_tokenizer
from harness.training.batch import PLAIN, TokenGroup, cut_groups, group_logps
from harness.training.layouts.choose import LayoutName, choose_layout
from harness.training.layouts.layout import score_bundles
from harness.training.layouts.padded import ExpandedPairs, UniqueRows
from harness.training.reduction import Totals, reduce_loss
from harness_plugins.baselines.dpo import DPO

BETA = 0.1
VOCABULARY = 4096


@dataclass(frozen=True)
class Case:
    """m negatives, tokens of prompt and response, how much those vary, prompts per step."""

    m: int
    prompt: int
    response: int
    spread: float = 0.0
    prompts: int = 1

    @property
    def label(self) -> str:
        return f"{self.prompt}/{self.response} m={self.m}"

    def groups(self) -> list[TokenGroup]:
        rng = random.Random(0)

        def ids(length: int) -> tuple[int, ...]:
            exact = round(length * (1 + rng.uniform(-self.spread, self.spread)))
            return tuple(rng.choices(range(10, VOCABULARY), k=exact))

        return [
            TokenGroup({PLAIN: ids(self.prompt)}, tuple(ids(self.response) for _ in range(self.m + 1)))
            for _ in range(self.prompts)
        ]


def build_model(seed: int = 0) -> PreTrainedModel:
    """A Llama of 8.4 M parameters; `seed` 0 is the policy, 1 the reference."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config)


class Side(ABC):
    """One way to take a step.

    Attributes:
        tokens: that the policy's pass computes, padding and repetition included.
    """

    tokens: int
    model: PreTrainedModel

    def __init__(self, case: Case) -> None:
        self.groups = case.groups()
        self.optimizer: torch.optim.Optimizer | None = None

    @abstractmethod
    def loss_and_backward(self) -> float:
        """Collate, loss, backward; the loss."""

    def gradient(self) -> tuple[float, dict[str, Tensor]]:
        """Loss and gradient of a first step, without taking it."""
        loss = self.loss_and_backward()
        gradient = {name: cast(Tensor, p.grad).clone() for name, p in self.model.named_parameters()}
        self.model.zero_grad()
        return loss, gradient

    def step(self) -> float:
        """Seconds of one whole step, by the wall clock."""
        self.optimizer = self.optimizer or torch.optim.AdamW(self.model.parameters(), lr=1e-6)
        start = time.perf_counter()
        self.loss_and_backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - start


class Theirs(Side):
    """TRL's own `compute_loss` on its own collator's batch of m pairs per prompt."""

    def __init__(self, case: Case, precomputed: bool) -> None:
        super().__init__(case)
        self.pairs = pairs_of(self.groups)
        self.tokens = ExpandedPairs().tokens([group.bundle() for group in self.groups])
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.trainer = trl_trainer(self.pairs, folder, build_model(), build_model(1))
        if precomputed:  # not by TRL's own pass, which keeps a cache file; the trainer then reads these from the batch
            self.trainer.precompute_ref_logps = True
            for pair, (chosen, rejected) in zip(self.pairs, _reference(self.groups), strict=True):
                pair |= {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
        self.model = self.trainer.model.train()

    def loss_and_backward(self) -> float:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)  # TRL's own call
            loss = self.trainer.compute_loss(self.model, self.trainer.data_collator(self.pairs))
        loss.backward()
        return float(loss.detach())


class Ours(Side):
    """The trainer's own step over micro-batches; the reference stored, or computed in each step by its one pass."""

    def __init__(self, case: Case, layout: str, stored: bool) -> None:
        super().__init__(case)
        self.model = build_model().train()
        self.layout = choose_layout(self.model, cast(LayoutName, layout))
        self.tokens = self.layout.tokens([group.bundle() for group in self.groups])
        self.reference = build_model(1).eval()
        choose_layout(self.reference, cast(LayoutName, layout))
        if stored:
            self.groups = self._referred()
        self.stored = stored

    def _referred(self) -> list[TokenGroup]:
        scores = score_bundles(self.reference, [group.bundle() for group in self.groups], self.layout)
        return [replace(group, reference={PLAIN: tuple(row)}) for group, row in zip(self.groups, scores, strict=True)]

    def loss_and_backward(self) -> float:
        groups = self.groups if self.stored else self._referred()
        objective, totals, value = DPO(beta=BETA), Totals.of(groups), 0.0
        for micro in cut_groups(groups, 8192, self.layout):
            logps = group_logps(self.model, micro, objective, layout=self.layout)
            share = reduce_loss(objective.loss(logps), logps, objective, totals)
            share.backward()  # type: ignore[no-untyped-call]
            value += float(share.detach())
        return value


def relative_difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Norm of the difference over the norm, in float64, over all parameters."""
    difference = sum(float((found[name] - value).double().norm() ** 2) for name, value in expected.items())
    return (difference / sum(float(value.double().norm() ** 2) for value in expected.values())) ** 0.5


def pairs_of(groups: list[TokenGroup]) -> list[dict[str, Any]]:
    """Every chosen response against every rejected one, as TRL's collator takes them."""
    return [
        {
            "prompt_ids": list(group.prompts[PLAIN]),
            "chosen_ids": list(group.responses[0]),
            "rejected_ids": list(rejected),
        }
        for group in groups
        for rejected in group.responses[1:]
    ]


def _reference(groups: list[TokenGroup]) -> list[tuple[float, float]]:
    scores = score_bundles(build_model(1).eval(), [group.bundle() for group in groups], UniqueRows())
    return [(row[0], value) for row in scores for value in row[1:]]


def trl_trainer(
    pairs: list[dict[str, Any]], folder: str, policy: PreTrainedModel, reference: PreTrainedModel, *, cpu: bool = True
) -> Any:
    """TRL's own trainer on ids that are given, so that no template or tokenizer comes between."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class OnOurIds(DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

    settings = DPOConfig(
        output_dir=folder,
        beta=BETA,
        per_device_train_batch_size=len(pairs),
        max_length=None,
        use_cpu=cpu,
        bf16=False,
        report_to=[],
        gradient_checkpointing=False,
        disable_tqdm=True,
    )
    return OnOurIds(
        model=policy,
        ref_model=reference,
        args=settings,
        train_dataset=Dataset.from_list(pairs),
        processing_class=build_tokenizer(),
    )
