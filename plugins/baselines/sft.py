"""Supervised fine-tuning on the methods' prompts: targets without negatives, and their likelihood as an objective."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

from harness import BuildTask, DataBuilder, Group, GroupLogps, Loss, Objective, Response


class Targets(DataBuilder):
    """The target as chosen and nothing rejected: more supervised fine-tuning, on the methods' prompts."""

    name: ClassVar[str] = "targets"
    needs: ClassVar[frozenset[Literal["target", "ranked", "gold"]]] = frozenset({"target"})

    def has_rejected(self) -> bool:
        return False

    def build(self, task: BuildTask) -> Iterable[Group]:
        for example in task.examples:
            if example.target is None:
                task.count("no target")
            else:
                yield Group(example.prompt, Response(example.target))


class SFT(Objective):
    """Negative log-likelihood of the chosen response, averaged over the batch's response tokens as TRL's SFTTrainer does."""

    name: ClassVar[str] = "sft"
    needs_reference: ClassVar[bool] = False
    needs_rejected: ClassVar[bool] = False
    group_mean: ClassVar[Literal["groups", "tokens"]] = "tokens"

    def loss(self, batch: GroupLogps) -> Loss:
        nll = -batch.policy.chosen / batch.policy.chosen_tokens  # [G], nats per token
        return Loss(per_group=nll, metrics={"nll": nll})
