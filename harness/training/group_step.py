"""The training step of every objective: a batch of groups in micro-batches, whose losses add up to the loss of the batch.

A batch is a number of prompts. Each optimiser step cuts it into micro-batches by tokens, and weights their losses by the totals
of the whole batch (pairs, groups or tokens), so that the cut changes neither the loss nor its gradient. Imports transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel

from harness.api.interfaces import Objective
from harness.api.types import GroupLogps, Loss, Mismatched
from harness.errors import StageError
from harness.training.batch import TokenGroup, cut_groups, group_logps, mismatched_logps, mismatched_scores
from harness.training.guards import Batch, FiniteGuard, PassSize
from harness.training.layouts.layout import Layout
from harness.training.precision import autocast
from harness.training.ranks import Ranks
from harness.training.reduction import MetricMeans, Totals, reduce_loss
from harness.training.settings import TrainingSettings
from harness.training.sharded_passes import ShardedPasses
from harness.training.sharding import ThroughShards

if TYPE_CHECKING:
    from harness.training.checkpoints import Checkpoints
    from harness.training.step_trainer import StepTrainer

SHARDED_FIX = "lower training.tokens_per_micro_batch, set training.gradient_checkpointing, or take more devices"


@dataclass
class Share:
    """The part of a batch's loss and metrics that one process computed."""

    loss: float = 0.0
    metrics: MetricMeans = field(default_factory=MetricMeans)


class GroupStep:
    """Forward and backward over a batch of groups, alone or as one of several processes.

    Attributes:
        layout: how responses lie in a forward pass.
        passes: tokens of a micro-batch; halved where memory runs out.
        history: one row per optimiser step: the loss and the objective's metrics.
    """

    def __init__(
        self, objective: Objective, settings: TrainingSettings, layout: Layout, checkpoints: Checkpoints | None = None
    ) -> None:
        self.objective = objective
        self.settings = settings
        self.layout = layout
        self.passes = PassSize(settings.tokens_per_micro_batch, SHARDED_FIX)
        self.history: list[dict[str, float]] = []
        self._guard = FiniteGuard(objective.name, "training", settings, checkpoints)
        self._together: ShardedPasses | None = None  # where weights are sharded
        self._micro: Sequence[TokenGroup] = ()  # the groups in the pass under way: `_halved` asks how many did not fit

    def __call__(
        self, trainer: StepTrainer, model: PreTrainedModel, inputs: Mapping[str, Sequence[TokenGroup]], tokens: object
    ) -> torch.Tensor:
        """Compute this process's share of the batch and its gradient, sum both over processes, and return the batch's loss."""
        model.train()
        batch, ranks = inputs["groups"], trainer.ranks
        if ranks.sharded and not isinstance(self.layout, ThroughShards):  # here, since FSDP wraps the model after `__init__`
            self.layout = ThroughShards(self.layout, model)
            self._together = ShardedPasses(model)
        mismatched = self._mismatched(model, batch, ranks)
        share = Share()
        for part in self.passes.fit(model, ranks, lambda: self._backward(trainer, model, batch, mismatched), self._halved):
            share.loss += part.loss
            share.metrics.merge(part.metrics)
        ranks.sum_gradients(model)
        self._guard.check(trainer, model, share.loss, lambda: self._described(batch))
        self.history.append({"loss": share.loss, **share.metrics.values()})
        return torch.tensor(share.loss, device=trainer.args.device)

    def _backward(
        self, trainer: StepTrainer, model: PreTrainedModel, batch: Sequence[TokenGroup], mismatched: Mismatched | None
    ) -> Share:
        """Forward and backward over this process's part of a batch, one micro-batch after the other."""
        ranks, share, totals = trainer.ranks, Share(), Totals.of(batch)
        mine = [batch[index] for index in ranks.share([group.tokens for group in batch])]
        cuts = list(cut_groups(mine, self.passes.size, self.layout))

        def add(number: int, last: bool) -> None:
            self._micro = cuts[number]
            loss, logps = self._loss(model, self._micro, mismatched)
            part = reduce_loss(loss, logps, self.objective, totals) * ranks.scale
            trainer.backward(part, last=last)
            share.loss += float(part.detach()) / ranks.scale
            share.metrics.add(loss, logps)

        def add_nothing(last: bool) -> None:
            loss, logps = self._loss(model, [min(batch, key=lambda group: group.tokens)], mismatched)
            trainer.backward(reduce_loss(loss, logps, self.objective, totals) * 0, last=last)

        if self._together is not None:
            self._together.run(len(cuts), ranks, add, add_nothing)
        else:
            for number in range(len(cuts)):
                add(number, number == len(cuts) - 1)
        return share

    def _mismatched(self, model: PreTrainedModel, batch: Sequence[TokenGroup], ranks: Ranks) -> Mismatched | None:
        """Return the mismatched pairs of the whole batch, of which each process scores a part.

        Sharded processes score all of it each: they must make equally many passes.
        """
        if not self.objective.needs_mismatched:
            return None
        whole = list(range(len(batch)))
        mine = whole if ranks.sharded else ranks.share([group.tokens for group in batch])

        def score() -> dict[int, list[float]]:
            self._micro = [batch[index] for index in mine]
            with autocast(model, self.settings.precision):
                scores = mismatched_scores(model, self._micro, self.passes.size, self.layout)
            return dict(zip(mine, scores, strict=True))

        parts = self.passes.fit(model, ranks, score, self._halved)
        scores = {index: row for part in parts for index, row in part.items()}
        return mismatched_logps(model, batch, self.passes.size, self.layout, [scores[index] for index in whole])

    def _loss(
        self, model: PreTrainedModel, micro: Sequence[TokenGroup], mismatched: Mismatched | None
    ) -> tuple[Loss, GroupLogps]:
        # Only the model computes under autocast. The objective gets float64 sums and computes in their precision.
        with autocast(model, self.settings.precision):
            logps = group_logps(model, micro, self.objective, mismatched, self.layout)
        return self.objective.loss(logps), logps

    def _halved(self) -> int:
        return halve(self._micro, self.passes.size, self.layout)

    def _described(self, batch: Sequence[TokenGroup]) -> Batch:
        rows = [
            {"id": group.id, "reference": {view: list(map(str, row)) for view, row in group.reference.items()}}
            for group in batch
        ]
        return Batch([group.id for group in batch], {"groups": rows, "history": self.history})


def halve(failed: Sequence[TokenGroup], tokens: int, layout: Layout) -> int:
    """Return the tokens of the next try, after a micro-batch of at most `tokens` did not fit.

    Raises:
        StageError: the micro-batch held a single prompt, and cannot be cut.
    """
    size = min(tokens, layout.tokens([group.bundle() for group in failed]))
    if len(failed) == 1 or size < 2:
        raise StageError(
            f"one prompt with its {len(failed[0].responses)} responses ({size} tokens) does not fit in memory: set "
            "training.gradient_checkpointing, fewer negatives, shorter samples, or fewer --workers"
        )
    return size // 2
