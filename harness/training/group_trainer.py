"""The step of every objective's training: a batch of groups, cut into micro-batches whose losses come to that of the whole.

A batch is a number of prompts. Each optimiser step cuts it into micro-batches by tokens, and weights their losses by what
the whole batch holds (pairs, groups or tokens), so that the cut never changes the loss or its gradient. This module imports
transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch.nn.utils import get_total_norm
from transformers import PreTrainedModel

from harness.errors import StageError
from harness.interfaces import Objective
from harness.training.batch import TokenGroup, cut_groups, group_logps, mismatched_logps, mismatched_scores
from harness.training.checkpoints import Checkpoints
from harness.training.layouts.layout import Layout
from harness.training.memory import halved, is_out_of_memory
from harness.training.precision import autocast
from harness.training.reduction import Means, Totals, reduce_loss
from harness.training.settings import TrainingSettings
from harness.training.shared_trainer import SharedTrainer, ThroughShards
from harness.types import GroupLogps, Loss, Mismatched

Value = TypeVar("Value")
SHOWN = 8  # prompt ids in an error
SHARDED_MEMORY = (
    "memory ran out in a training whose weights are spread over processes, which cannot go on by itself: lower "
    "training.tokens_per_micro_batch, set training.gradient_checkpointing, or take more devices"
)


@dataclass
class Share:
    """What one process computed of a batch: its part of the loss and of the metrics."""

    loss: float = 0.0
    metrics: Means = field(default_factory=Means)


class GroupTrainer(SharedTrainer):
    """`transformers.Trainer` whose step is a batch of groups, alone or as one of several processes.

    Attributes:
        layout: how responses lie in a forward pass.
        tokens: of a micro-batch; halved when memory runs out.
        history: one row per optimiser step: step, loss, learning_rate, gradient_norm and the objective's metrics.
    """

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
        self.objective = objective
        self.settings = settings
        self.layout = layout
        self.checkpoints = checkpoints
        self.tokens = settings.tokens_per_micro_batch
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
        for other in self._within_memory(model, lambda: self._pass(model, batch, mismatched)):
            share.loss += other.loss
            share.metrics.merge(other.metrics)
        self.ranks.sum_gradients(model)
        norm = self._norm(model)
        for what, number in (("loss", share.loss), ("gradient", norm)):
            if not math.isfinite(number):
                raise StageError(self._stopped(batch, what, number))
        self.history.append({"loss": share.loss, **share.metrics.values()})
        return torch.tensor(share.loss, device=self.args.device)

    def _within_memory(self, model: PreTrainedModel, compute: Callable[[], Value]) -> list[Value]:
        """What each process computed, by rank; all do it again in smaller passes where memory ran out on any of them."""
        while True:
            try:
                value, tokens = compute(), self.tokens
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.ranks.sharded:
                    raise StageError(SHARDED_MEMORY) from error
                value, tokens = None, 0
            if value is None:  # here, where the failed pass's tensors are gone
                tokens = halved(self._micro, self.tokens, self.layout)
                torch.cuda.empty_cache()
            everyone = self.ranks.gather((value, tokens))
            values = [value for value, _ in everyone if value is not None]
            if len(values) == len(everyone):
                return values
            self.tokens = min(tokens for _, tokens in everyone)
            model.zero_grad()

    def _pass(self, model: PreTrainedModel, batch: Sequence[TokenGroup], mismatched: Mismatched | None) -> Share:
        """Forward and backward over this process's part of a batch."""
        share, totals = Share(), Totals.of(batch)
        own = [batch[index] for index in self.ranks.share([group.tokens for group in batch])]
        cuts = list(cut_groups(own, self.tokens, self.layout))
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

    def _norm(self, model: PreTrainedModel) -> float:
        """Of the whole gradient; DeepSpeed, which has it no more, says what it was."""
        if self.is_deepspeed_enabled:
            return float(self._get_grad_norm(model))
        norm = get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)

    def _mismatched(self, model: PreTrainedModel, batch: Sequence[TokenGroup]) -> Mismatched | None:
        """Of the whole batch, a part by each process; sharded processes, which pass in step, all compute all."""
        if not self.objective.needs_mismatched:
            return None
        whole = list(range(len(batch)))
        own = whole if self.ranks.sharded else self.ranks.share([group.tokens for group in batch])

        def score() -> dict[int, list[float]]:
            self._micro = [batch[index] for index in own]
            with autocast(model, self.settings.precision):
                scores = mismatched_scores(model, self._micro, self.tokens, self.layout)
            return dict(zip(own, scores, strict=True))

        known = {index: row for part in self._within_memory(model, score) for index, row in part.items()}
        return mismatched_logps(model, batch, self.tokens, self.layout, [known[index] for index in whole])

    def _loss(
        self, model: PreTrainedModel, micro: Sequence[TokenGroup], mismatched: Mismatched | None
    ) -> tuple[Loss, GroupLogps]:
        with autocast(model, self.settings.precision):
            logps = group_logps(model, micro, self.objective, mismatched, self.layout)
        return self.objective.loss(logps), logps

    def _stopped(self, batch: Sequence[TokenGroup], what: str, value: float) -> str:
        """Why the training cannot go on; its state is kept for a look, as it was before the step."""
        step, ids = self.state.global_step + 1, [group.id for group in batch]
        message = (
            f"the {what} of {self.objective.name} is {value} at step {step} of {self.state.max_steps}: "
            f"lower training.learning_rate (now {self.settings.learning_rate:g}); prompts: {', '.join(ids[:SHOWN])}"
            + (f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else "")
        )
        if self.checkpoints is None:
            return message
        rows = [
            {"id": group.id, "reference": {view: list(map(str, row)) for view, row in group.reference.items()}}
            for group in batch
        ]
        where = self.checkpoints.keep_stopped(self, {"step": step, what: str(value), "groups": rows, "history": self.history})
        return f"{message}; weights, optimiser and batch are kept in the store under {where}"
