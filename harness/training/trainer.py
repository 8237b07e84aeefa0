"""One training for every objective, on `transformers.Trainer`: a comparison of methods must not be a comparison of loops.

This module imports transformers; import it where training begins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from harness.api.interfaces import Objective
from harness.models.logps import unwrapped
from harness.training.arguments import group_arguments
from harness.training.batch import TokenGroup
from harness.training.checkpoints import Checkpoints, train_resumably
from harness.training.group_trainer import GroupTrainer
from harness.training.layouts.choose import choose_layout
from harness.training.layouts.layout import Layout
from harness.training.progress import Report, StepCallback
from harness.training.settings import TrainingSettings


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
        args=group_arguments(settings, seed, scratch, steps, shuffle),
        train_dataset=list(groups),
        objective=objective,
        settings=settings,
        layout=layout,
        checkpoints=checkpoints,
    )
    trainer.add_callback(StepCallback(report, lambda row: trainer.history[-1].update(row)))

    def restore(notes: dict[str, Any]) -> None:
        trainer.history, trainer.pass_size = [*notes["history"]], notes["tokens"]

    train_resumably(trainer, checkpoints, lambda: {"history": trainer.history, "tokens": trainer.pass_size}, restore)
    return Trained(trainer.history, trainer.pass_size)


def recompute_layers(model: PreTrainedModel) -> None:
    """Gradient checkpointing, not reentrant, so that low-rank adapters need no gradient of their layer's input."""
    bare = unwrapped(model)
    enable = getattr(bare, "activation_checkpointing_enable", None) or bare.gradient_checkpointing_enable
    enable({"use_reentrant": False})
