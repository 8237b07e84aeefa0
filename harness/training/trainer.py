"""One training for every objective, on `transformers.Trainer`: a comparison of methods must not be a comparison of loops.

This module imports transformers; import it where training begins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from pydantic import BaseModel
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments

from harness.api.interfaces import Objective
from harness.models.logps import unwrapped
from harness.training.batch import TokenGroup
from harness.training.checkpoints import Checkpoints, train_resumably
from harness.training.group_step import GroupStep
from harness.training.kernels import layer_kernels
from harness.training.layouts.choose import choose_layout
from harness.training.layouts.layout import Layout
from harness.training.optimizers import DEFAULT, on_this_machine
from harness.training.settings import SftSettings, TrainingSettings
from harness.training.step_trainer import StepTrainer

Report = Callable[[int, int, str], None]
Watch = Callable[[Sequence[Mapping[str, float]]], None]


@dataclass(frozen=True)
class Trained:
    """The results of a training beside the weights.

    Attributes:
        history: one row per optimiser step: step, loss, learning_rate, gradient_norm and the objective's metrics.
        tokens: of a micro-batch at the end; fewer than the settings ask for where memory ran out.
    """

    history: list[dict[str, float]]
    tokens: int


class Progress(BaseModel):
    """The part of a training's state that a checkpoint keeps beside transformers' own; see `Trained`."""

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
    watch: Watch | None = None,
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
        watch: takes the rows of the history as they are made; first those of the checkpoint, where the training resumes.

    Raises:
        StageError: the loss or its gradient stopped being a number, which names step and prompts; a prompt does not fit in
            memory; or the model does not honour `settings.layout`.
    """
    layout = layout or choose_layout(model, settings.layout, settings.attention)
    if settings.gradient_checkpointing:
        recompute_layers(model)
    steps = settings.epochs * math.ceil(len(groups) / settings.prompts_per_batch)
    step = GroupStep(objective, settings, layout, checkpoints)
    trainer = StepTrainer(
        step=step,
        model=model,
        args=group_arguments(settings, seed, scratch, steps, shuffle),
        train_dataset=list(groups),
        data_collator=lambda batch: {"groups": batch},
    )

    def note(row: dict[str, float]) -> None:
        step.history[-1].update(row)
        if watch is not None:
            watch(step.history[-1:])

    trainer.add_callback(StepCallback(report, note))

    def restore(notes: Mapping[str, object]) -> None:
        progress = Progress.model_validate(notes)
        step.history, step.passes.size = progress.history, progress.tokens
        if watch is not None:
            watch(step.history)

    with layer_kernels(model, settings.kernels):
        train_resumably(trainer, checkpoints, lambda: {"history": step.history, "tokens": step.passes.size}, restore)
    return Trained(step.history, step.passes.size)


def recompute_layers(model: PreTrainedModel) -> None:
    """Turn on gradient checkpointing."""
    bare = unwrapped(model)
    enable = getattr(bare, "activation_checkpointing_enable", None) or bare.gradient_checkpointing_enable
    # The reentrant kind gives no gradient to a layer whose input takes none, as below low-rank adapters over frozen embeddings.
    enable({"use_reentrant": False})


class StepCallback(TrainerCallback):  # type: ignore[misc]
    """Report each step's progress, and give step, learning rate and gradient norm to `note`."""

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


def group_arguments(settings: TrainingSettings, seed: int, scratch: Path, steps: int, shuffle: bool) -> TrainingArguments:
    """Return the settings as transformers' own."""
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
        **shared_arguments(settings, steps, settings.optimizer),
    )


class SharedArguments(TypedDict):
    """The fields of `transformers.TrainingArguments` that every training here sets alike."""

    lr_scheduler_type: str
    warmup_steps: int
    optim: str
    logging_strategy: str
    logging_steps: int
    logging_nan_inf_filter: bool
    save_strategy: str
    report_to: list[str]
    disable_tqdm: bool
    remove_unused_columns: bool
    dataloader_pin_memory: bool
    use_cpu: bool


def shared_arguments(settings: SftSettings | TrainingSettings, steps: int, optimizer: str = DEFAULT) -> SharedArguments:
    """Return optimiser, schedule over so many steps, one log row a step, and no files or bars of the trainer's own."""
    return {
        "lr_scheduler_type": {"constant": "constant_with_warmup"}.get(settings.schedule, settings.schedule),
        "warmup_steps": round(settings.warmup_share * steps),
        "optim": on_this_machine(optimizer, settings.devices.strategy if settings.devices else "replicated"),
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # the filter would log the mean of earlier losses instead of a NaN
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "use_cpu": not torch.cuda.is_available(),
    }
