"""One trainer for every objective, on `transformers.Trainer`: a comparison of methods must not be a comparison of loops.

A batch is a number of prompts. Each optimiser step cuts it into micro-batches by tokens, and weights their losses by what
the whole batch holds (pairs, groups or tokens), so that the cut never changes the loss or its gradient. This module imports
transformers; import it where training begins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

from harness.errors import StageError
from harness.interfaces import Objective
from harness.training.batch import TokenGroup, cut_groups, group_logps, mismatched_logps
from harness.training.layouts.choose import choose_layout
from harness.training.layouts.layout import Layout
from harness.training.reduction import Totals, batch_metrics, reduce_loss
from harness.training.settings import Schedule, TrainingSettings

Report = Callable[[int, int, str], None]


class GroupTrainer(Trainer):  # type: ignore[misc]
    """`transformers.Trainer` whose step is a batch of groups.

    Attributes:
        layout: how responses lie in a forward pass.
        history: one row per optimiser step: step, loss, learning_rate, gradient_norm and the objective's metrics.
    """

    def __init__(self, *, objective: Objective, settings: TrainingSettings, layout: Layout, **arguments: Any) -> None:
        super().__init__(data_collator=lambda groups: {"groups": groups}, **arguments)
        self.objective = objective
        self.settings = settings
        self.layout = layout
        self.history: list[dict[str, float]] = []

    def training_step(
        self, model: PreTrainedModel, inputs: dict[str, list[TokenGroup]], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Forward and backward over one whole batch; its loss."""
        model.train()
        batch = inputs["groups"]
        totals, value, metrics = Totals.of(batch), 0.0, dict[str, float]()
        tokens, layout = self.settings.tokens_per_micro_batch, self.layout
        mismatched = mismatched_logps(model, batch, tokens, layout) if self.objective.needs_mismatched else None
        for micro in cut_groups(batch, tokens, layout):
            logps = group_logps(model, micro, self.objective, mismatched, layout)
            loss = self.objective.loss(logps)
            share = reduce_loss(loss, logps, self.objective, totals)
            self.accelerator.backward(share)
            value += float(share.detach())
            for name, mean in batch_metrics(loss, logps).items():
                metrics[name] = metrics.get(name, 0.0) + mean * len(micro) / len(batch)
        if not math.isfinite(value):
            raise StageError(
                f"the loss of {self.objective.name} is {value} at step {self.state.global_step + 1} of {self.state.max_steps}: "
                f"lower training.learning_rate (now {self.settings.learning_rate:g})"
            )
        self.history.append({"loss": value, **metrics})
        return torch.tensor(value, device=model.device)


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
) -> list[dict[str, float]]:
    """Train `model` in place.

    Args:
        groups: with `reference` filled for every view that the objective needs.
        seed: of the order of the batches.
        scratch: an existing folder for the trainer's own files.
        report: called after each step with (step, steps, a short note).
        layout: what `choose_layout` gave for this model and `settings.layout`, where the caller wants to know it.

    Returns:
        `GroupTrainer.history`.

    Raises:
        StageError: the loss stopped being a number, which names the step; or the model does not honour `settings.layout`.
    """
    steps = settings.epochs * math.ceil(len(groups) / settings.prompts_per_batch)
    arguments = _arguments(settings, seed, scratch, steps)
    own: dict[str, Any] = {
        "objective": objective,
        "settings": settings,
        "layout": layout or choose_layout(model, settings.layout),
    }
    trainer = GroupTrainer(model=model, args=arguments, train_dataset=list(groups), **own)
    trainer.add_callback(StepCallback(report, lambda row: trainer.history[-1].update(row)))
    trainer.train()
    return trainer.history


def _arguments(settings: TrainingSettings, seed: int, scratch: Path, steps: int) -> TrainingArguments:
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
