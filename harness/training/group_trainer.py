"""The step of every objective's training: a batch of groups, cut into micro-batches whose losses come to that of the whole.

A batch is a number of prompts. Each optimiser step cuts it into micro-batches by tokens, and weights their losses by what
the whole batch holds (pairs, groups or tokens), so that the cut never changes the loss or its gradient. This module imports
transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel

from harness.api.interfaces import Objective
from harness.api.types import GroupLogps, Loss, Mismatched
from harness.training.batch import TokenGroup, cut_groups, group_logps, mismatched_logps, mismatched_scores
from harness.training.checkpoints import Checkpoints
from harness.training.guarded_trainer import GuardedTrainer, halved
from harness.training.layouts.layout import Layout
from harness.training.reduction import Means, Totals, reduce_loss
from harness.training.settings import TrainingSettings, autocast
from harness.training.shared_trainer import ThroughShards


@dataclass
class Share:
    """What one process computed of a batch: its part of the loss and of the metrics."""

    loss: float = 0.0
    metrics: Means = field(default_factory=Means)


class GroupTrainer(GuardedTrainer):
    """`transformers.Trainer` whose step is a batch of groups, alone or as one of several processes.

    Attributes:
        layout: how responses lie in a forward pass.
        pass_size: tokens of a micro-batch; halved when memory runs out.
        history: one row per optimiser step: step, loss, learning_rate, gradient_norm and the objective's metrics.
    """

    section: ClassVar[str] = "training"
    sharded_fix: ClassVar[str] = (
        "lower training.tokens_per_micro_batch, set training.gradient_checkpointing, or take more devices"
    )

    def __init__(
        self,
        *,
        objective: Objective,
        settings: TrainingSettings,
        layout: Layout,
        checkpoints: Checkpoints | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(data_collator=lambda groups: {"groups": groups}, **arguments)
        self._micro: Sequence[TokenGroup] = ()  # what is being computed
        self.objective, self.subject = objective, objective.name
        self.settings = settings
        self.layout = layout
        self.checkpoints = checkpoints
        self.pass_size = settings.tokens_per_micro_batch
        self.history: list[dict[str, float]] = []

    def training_step(
        self, model: PreTrainedModel, inputs: dict[str, list[TokenGroup]], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Forward and backward over one whole batch, of which this process takes its share; the batch's loss."""
        model.train()
        batch = inputs["groups"]
        if self.ranks.sharded and not isinstance(self.layout, ThroughShards):
            self.layout = ThroughShards(self.layout, model)
        mismatched = self._mismatched(model, batch)
        share = Share()
        for other in self.within_memory(model, lambda: self._pass(model, batch, mismatched)):
            share.loss += other.loss
            share.metrics.merge(other.metrics)
        self.ranks.sum_gradients(model)
        self.check_finite(model, share.loss, batch)
        self.history.append({"loss": share.loss, **share.metrics.values()})
        return torch.tensor(share.loss, device=self.args.device)

    def halved(self) -> int:
        """See `GuardedTrainer.halved`."""
        return halved(self._micro, self.pass_size, self.layout)

    def described(self, batch: Sequence[TokenGroup]) -> tuple[list[str], dict[str, Any]]:
        """See `GuardedTrainer.described`."""
        rows = [
            {"id": group.id, "reference": {view: list(map(str, row)) for view, row in group.reference.items()}}
            for group in batch
        ]
        return [group.id for group in batch], {"groups": rows, "history": self.history}

    def _pass(self, model: PreTrainedModel, batch: Sequence[TokenGroup], mismatched: Mismatched | None) -> Share:
        """Forward and backward over this process's part of a batch."""
        share, totals = Share(), Totals.of(batch)
        own = [batch[index] for index in self.ranks.share([group.tokens for group in batch])]
        cuts = list(cut_groups(own, self.pass_size, self.layout))
        most = max(self.ranks.gather(len(cuts))) if self.ranks.sharded else len(cuts)
        for number in range(most):
            real = number < len(cuts)  # otherwise one group without weight, since sharded processes pass in step
            self._micro = cuts[number] if real else batch[:1]
            loss, logps = self._loss(model, self._micro, mismatched)
            part = reduce_loss(loss, logps, self.objective, totals) * (self.ranks.scale if real else 0)
            self._backward(part, last=number == most - 1)
            if real:
                share.loss += float(part.detach()) / self.ranks.scale
                share.metrics.add(loss, logps)
        return share

    def _backward(self, loss: torch.Tensor, last: bool) -> None:
        """DeepSpeed steps its optimiser within a batch's last backward, and must know which that is."""
        self.accelerator.gradient_state._set_sync_gradients(last)
        self.accelerator.backward(loss)

    def _mismatched(self, model: PreTrainedModel, batch: Sequence[TokenGroup]) -> Mismatched | None:
        """Of the whole batch, a part by each process; sharded processes, which pass in step, all compute all."""
        if not self.objective.needs_mismatched:
            return None
        whole = list(range(len(batch)))
        own = whole if self.ranks.sharded else self.ranks.share([group.tokens for group in batch])

        def score() -> dict[int, list[float]]:
            self._micro = [batch[index] for index in own]
            with autocast(model, self.settings.precision):
                scores = mismatched_scores(model, self._micro, self.pass_size, self.layout)
            return dict(zip(own, scores, strict=True))

        known = {index: row for part in self.within_memory(model, score) for index, row in part.items()}
        return mismatched_logps(model, batch, self.pass_size, self.layout, [known[index] for index in whole])

    def _loss(
        self, model: PreTrainedModel, micro: Sequence[TokenGroup], mismatched: Mismatched | None
    ) -> tuple[Loss, GroupLogps]:
        with autocast(model, self.settings.precision):
            logps = group_logps(model, micro, self.objective, mismatched, self.layout)
        return self.objective.loss(logps), logps
