"""The settings of a training as transformers' own arguments, which this module imports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from harness.training.settings import Schedule, TrainingSettings


def group_arguments(settings: TrainingSettings, seed: int, scratch: Path, steps: int, shuffle: bool) -> TrainingArguments:
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
        "logging_nan_inf_filter": False,  # it would show the mean of earlier losses instead
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "use_cpu": not torch.cuda.is_available(),
    }
