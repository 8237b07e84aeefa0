"""Supervised fine-tuning as an objective over groups."""

from __future__ import annotations

from typing import ClassVar, Literal

from harness import GroupLogps, Loss, Objective


class SFT(Objective):
    """Negative log-likelihood of the chosen response, averaged over the batch's response tokens as TRL's SFTTrainer does."""

    name: ClassVar[str] = "sft"
    needs_reference: ClassVar[bool] = False
    needs_rejected: ClassVar[bool] = False
    group_mean: ClassVar[Literal["groups", "tokens"]] = "tokens"

    def loss(self, batch: GroupLogps) -> Loss:
        nll = -batch.policy.chosen / batch.policy.chosen_tokens  # [G], nats per token
        return Loss(per_group=nll, metrics={"nll": nll})
