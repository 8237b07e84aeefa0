"""One trainer for every objective, on `transformers.Trainer`: a comparison of methods must not be a comparison of loops.

A batch is a number of prompts. Each optimiser step cuts it into micro-batches by tokens, and weights their losses by what
the whole batch holds (pairs, groups or tokens), so that the cut never changes the loss or its gradient. This module imports
transformers; import it where training begins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.nn.utils import get_total_norm
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments

from harness.errors import StageError
from harness.interfaces import Objective
from harness.models.logps import unwrapped
from harness.training.batch import TokenGroup, cut_groups, group_logps, mismatched_logps, mismatched_scores
from harness.training.checkpoints import Checkpoints, train_resumably
from harness.training.layouts.choose import choose_layout
from harness.training.layouts.layout import Layout
from harness.training.memory import halved, is_out_of_memory
from harness.training.precision import autocast
from harness.training.reduction import Means, Totals, reduce_loss
from harness.training.settings import Schedule, TrainingSettings
from harness.training.shared_trainer import SharedTrainer, ThroughShards
from harness.types import GroupLogps, Loss, Mismatched

Report = Callable[[int, int, str], None]
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


@dataclass(frozen=True)
class Trained:
    """What a training leaves beside the weights.

    Attributes:
        history: `GroupTrainer.history`.
        tokens: of a micro-batch at the end: fewer than asked for where memory ran out.
    """

    history: list[dict[str, float]]
    tokens: int


def train(
    model: PreTrainedModel,
    groups: Sequence[TokenGroup],
    objective: Objective,
    settings: TrainingSettings,
    *,
    seed: int,
    scratch: Path,
    report: Report | None = None,
    layout: Layout | None = None,
    shuffle: bool = True,
    checkpoints: Checkpoints | None = None,
) -> Trained:
    """Train `model` in place.

    Args:
        groups: with `reference` filled for every view that the objective needs.
        seed: of the order of the batches.
        scratch: an existing folder for the trainer's own files, on the file system of `checkpoints`.
        report: called after each step with (step, steps, a short note).
        shuffle: whether each pass has an order of its own; otherwise groups are trained on as they come.
        layout: what `choose_layout` gave for this model and `settings.layout`, where the caller wants to know it.
        checkpoints: where to go on from, and where to keep how far this came; nothing is kept without.

    Raises:
        StageError: the loss or its gradient stopped being a number, which names step and prompts; a prompt does not fit in
            memory; or the model does not honour `settings.layout`.
    """
    layout = layout or choose_layout(model, settings.layout)
    if settings.gradient_checkpointing:
        recompute_layers(model)
    steps = settings.epochs * math.ceil(len(groups) / settings.prompts_per_batch)
    trainer = GroupTrainer(
        model=model,
        args=_arguments(settings, seed, scratch, steps, shuffle),
        train_dataset=list(groups),
        objective=objective,
        settings=settings,
        layout=layout,
        checkpoints=checkpoints,
    )
    trainer.add_callback(StepCallback(report, lambda row: trainer.history[-1].update(row)))

    def restore(notes: dict[str, Any]) -> None:
        trainer.history, trainer.tokens = [*notes["history"]], notes["tokens"]

    train_resumably(trainer, checkpoints, lambda: {"history": trainer.history, "tokens": trainer.tokens}, restore)
    return Trained(trainer.history, trainer.tokens)


def recompute_layers(model: PreTrainedModel) -> None:
    """Gradient checkpointing, not reentrant, so that low-rank adapters need no gradient of their layer's input."""
    bare = unwrapped(model)
    enable = getattr(bare, "activation_checkpointing_enable", None) or bare.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def _arguments(settings: TrainingSettings, seed: int, scratch: Path, steps: int, shuffle: bool) -> TrainingArguments:
    """The settings as transformers' own."""
    return TrainingArguments(
        output_dir=str(scratch),
        per_device_train_batch_size=settings.prompts_per_batch,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_gradient_norm,
        seed=seed,
        data_seed=seed,
        train_sampling_strategy="random" if shuffle else "sequential",
        **shared_arguments(settings.schedule, settings.warmup_share, steps),
    )


def shared_arguments(schedule: Schedule, warmup_share: float, steps: int) -> dict[str, Any]:
    """Arguments that every training here shares: AdamW, one log row a step, no files and no bars of the trainer's own."""
    return {
        "lr_scheduler_type": {"constant": "constant_with_warmup"}.get(schedule, schedule),
        "warmup_steps": round(warmup_share * steps),
        "optim": "adamw_torch",
        "logging_strategy": "steps",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "use_cpu": not torch.cuda.is_available(),
    }


class StepCallback(TrainerCallback):  # type: ignore[misc]
    """Reports each step's progress; passes step, learning rate and gradient norm to `note`."""

    def __init__(self, report: Report | None, note: Callable[[dict[str, float]], None]) -> None:
        self.report = report
        self.note = note

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.report is not None:
            self.report(0, state.max_steps, "")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs:
            return
        self.note(
            {
                "step": float(state.global_step),
                "learning_rate": float(logs["learning_rate"]),
                "gradient_norm": float(logs.get("grad_norm", 0.0)),
            }
        )
        if self.report is not None:
            self.report(state.global_step, state.max_steps, f"loss {float(logs['loss']):.3f}")
