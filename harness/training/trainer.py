"""One trainer for every objective, on `transformers.Trainer`: a comparison of methods must not be a comparison of loops.

A batch is a number of prompts. Each optimiser step cuts it into micro-batches by tokens, and weights their losses by what
the whole batch holds (pairs, groups or tokens), so that the cut never changes the loss or its gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import StageError
from harness.interfaces import Objective
from harness.training.batch import TokenGroup, cut_groups, group_logps
from harness.training.settings import Schedule, TrainingSettings
from harness.types import GroupLogps, Loss

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, TrainerCallback

Report = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Totals:
    """What a whole batch holds: the denominators of its loss."""

    pairs: int
    groups: int
    chosen_tokens: int

    @classmethod
    def of(cls, groups: Sequence[TokenGroup]) -> Totals:
        return cls(
            sum(group.pairs for group in groups), len(groups), sum(len(group.responses[0]) for group in groups)
        )


def reduce_loss(loss: Loss, batch: GroupLogps, objective: Objective, totals: Totals) -> Tensor:
    """A micro-batch's share of the batch's loss: a scalar; the shares of all micro-batches add up to the batch's mean."""
    value = batch.policy.chosen.new_zeros(())
    if loss.per_pair is not None and totals.pairs:
        value = value + loss.per_pair.masked_fill(~batch.policy.mask, 0.0).sum() / totals.pairs
    if loss.per_group is not None:
        if objective.group_mean == "tokens":
            value = value + (loss.per_group * batch.policy.chosen_tokens).sum() / totals.chosen_tokens
        else:
            value = value + loss.per_group.sum() / totals.groups
    return value


def batch_metrics(loss: Loss, batch: GroupLogps) -> dict[str, float]:
    """Means of a micro-batch's metrics over its groups and valid pairs."""
    means = {}
    for name, values in loss.metrics.items():
        kept = values[batch.policy.mask] if values.dim() == 2 else values
        if kept.numel():
            means[name] = float(kept.detach().double().mean())
    return means


def train(
    model: PreTrainedModel,
    groups: Sequence[TokenGroup],
    objective: Objective,
    settings: TrainingSettings,
    *,
    seed: int,
    scratch: Path,
    report: Report | None = None,
) -> list[dict[str, float]]:
    """Train `model` in place.

    Args:
        groups: with `reference` filled for every view that the objective needs.
        seed: of the order of the batches.
        scratch: an existing folder for the trainer's own files.
        report: called after each step with (step, steps, a short note).

    Returns:
        One row per optimiser step: step, loss, learning_rate, gradient_norm and the objective's metrics.

    Raises:
        StageError: the loss stopped being a number; names the step.
    """
    trainer = _build_trainer(model, groups, objective, settings, seed, scratch, report)
    trainer.train()
    return trainer.history


def _build_trainer(
    model: PreTrainedModel,
    groups: Sequence[TokenGroup],
    objective: Objective,
    settings: TrainingSettings,
    seed: int,
    scratch: Path,
    report: Report | None,
) -> Any:
    """The `GroupTrainer` itself: defined here, since transformers is imported only where it is used."""
    from transformers import Trainer, TrainingArguments

    steps = settings.epochs * math.ceil(len(groups) / settings.prompts_per_batch)

    class GroupTrainer(Trainer):  # type: ignore[misc]
        history: list[dict[str, float]] = []  # noqa: RUF012

        def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
            model.train()
            batch: list[TokenGroup] = inputs["groups"]
            totals, value, metrics = Totals.of(batch), 0.0, {}
            for micro in cut_groups(batch, settings.tokens_per_micro_batch):
                logps = group_logps(model, micro, objective)
                loss = objective.loss(logps)
                share = reduce_loss(loss, logps, objective, totals)
                self.accelerator.backward(share)
                value += float(share.detach())
                for name, mean in batch_metrics(loss, logps).items():
                    metrics[name] = metrics.get(name, 0.0) + mean * len(micro) / len(batch)
            if not math.isfinite(value):
                raise StageError(
                    f"the loss of {objective.name} is {value} at step {self.state.global_step + 1} of {steps}: "
                    f"lower training.learning_rate (now {settings.learning_rate:g})"
                )
            self.history.append({"loss": value, **metrics})
            return share.detach().new_tensor(value)

    trainer = GroupTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(scratch),
            per_device_train_batch_size=settings.prompts_per_batch,
            num_train_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_gradient_norm,
            seed=seed,
            data_seed=seed,
            **quiet_arguments(settings.schedule, settings.warmup_share, steps),
        ),
        train_dataset=_Rows(groups),
        data_collator=lambda rows: {"groups": list(rows)},
        callbacks=[step_callback(report, lambda row: trainer.history[-1].update(row))],
    )
    trainer.history = []
    return trainer


class _Rows(list[TokenGroup]):
    """A list is all a map-style data set needs to be."""


def quiet_arguments(schedule: Schedule, warmup_share: float, steps: int) -> dict[str, Any]:
    """Arguments that every training here shares: no files, no logs, no bars of the trainer's own."""
    import torch

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


def step_callback(report: Report | None, note: Callable[[dict[str, float]], Any]) -> TrainerCallback:
    """Reports each step's progress; passes step, learning rate and gradient norm to `note`."""
    from transformers import TrainerCallback

    class Progress(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if report is not None:
                report(0, state.max_steps, "")

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:
                row = {"step": float(state.global_step), "learning_rate": logs["learning_rate"]}
                note({**row, "gradient_norm": logs.get("grad_norm", 0.0)})
                if report is not None:
                    report(state.global_step, state.max_steps, f"loss {logs['loss']:.3f}")

    return Progress()
