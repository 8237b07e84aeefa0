"""The same tokens through TRL's own trainers: loss and gradient must agree."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch

from harness.models.logps import score
from harness.models.prompts import ChatTemplate
from harness.sandbox import build_dataset
from harness.training.batch import PLAIN, TokenGroup, group_logps, tokenize
from harness.training.reduction import Totals, reduce_loss
from harness.types import Group, Response
from harness_plugins.baselines.dpo import DPO
from harness_plugins.baselines.nll import SFT

BETA = 0.3


def preference_groups(count: int) -> list[Group]:
    examples = build_dataset({"train": count}, 0.0, 0)["train"]
    return [Group(e.prompt, Response(e.ranked[0]), (Response(e.ranked[1]),)) for e in examples]


def ours(model, reference, groups: list[TokenGroup], objective) -> tuple[float, dict[str, torch.Tensor]]:
    filled = [TokenGroup(g.prompts, g.responses, {PLAIN: tuple(score(reference, g.rows()))}) for g in groups]
    model.zero_grad()
    logps = group_logps(model, filled, objective)
    loss = reduce_loss(objective.loss(logps), logps, objective, Totals.of(filled))
    loss.backward()
    return float(loss.detach()), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def relative(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Norm of the gradients' difference over the norm of theirs."""
    difference = sum(float((ours[name] - theirs[name]).double().norm() ** 2) for name in theirs) ** 0.5
    return difference / sum(float(value.double().norm() ** 2) for value in theirs.values()) ** 0.5


@pytest.fixture
def models(tiny):
    """A policy and the reference that it has moved away from."""
    model, tokenizer = tiny
    policy = copy.deepcopy(model)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for parameter in policy.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return policy, model, tokenizer


def trl_arguments(config, folder: Path, **changes):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`gradient_checkpointing` is deprecated", category=FutureWarning)
        return config(
            output_dir=str(folder), per_device_train_batch_size=6, use_cpu=True, bf16=False, report_to=[], max_length=None,
            gradient_checkpointing=False, disable_tqdm=True, **changes,
        )  # fmt: skip


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # TRL's own call
def test_dpo_equals_trl(models, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    policy, reference, tokenizer = models
    groups = preference_groups(6)
    rows = [
        {
            "prompt": [{"role": "user", "content": g.prompt.text}],
            "chosen": [{"role": "assistant", "content": g.chosen.text}],
            "rejected": [{"role": "assistant", "content": g.rejected[0].text}],
        }
        for g in groups
    ]
    trainer = DPOTrainer(
        model=copy.deepcopy(policy),
        ref_model=copy.deepcopy(reference),
        args=trl_arguments(DPOConfig, tmp_path, beta=BETA),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    batch = next(iter(torch.utils.data.DataLoader(trainer.train_dataset, batch_size=6, collate_fn=trainer.data_collator)))
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    theirs = {name: parameter.grad for name, parameter in trainer.model.named_parameters()}

    value, gradient = ours(policy, reference, tokenize(groups, ChatTemplate(tokenizer), DPO()), DPO(beta=BETA))
    assert value == pytest.approx(float(loss.detach()), rel=1e-5)
    assert relative(gradient, theirs) < 1e-5


def test_sft_equals_trl(models, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    policy, _, tokenizer = models
    groups = [Group(g.prompt, g.chosen) for g in preference_groups(6)]
    tokenized = tokenize(groups, ChatTemplate(tokenizer), SFT())
    rows = [
        {
            "input_ids": [*g.prompts[PLAIN], *g.responses[0]],
            "completion_mask": [0] * len(g.prompts[PLAIN]) + [1] * len(g.responses[0]),
        }
        for g in tokenized
    ]
    trainer = SFTTrainer(
        model=copy.deepcopy(policy),
        args=trl_arguments(SFTConfig, tmp_path, completion_only_loss=True),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    batch = next(iter(torch.utils.data.DataLoader(trainer.train_dataset, batch_size=6, collate_fn=trainer.data_collator)))
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    theirs = {name: parameter.grad for name, parameter in trainer.model.named_parameters()}

    value, gradient = ours(policy, policy, tokenized, SFT())
    assert value == pytest.approx(float(loss.detach()), rel=1e-5)
    assert relative(gradient, theirs) < 1e-5
