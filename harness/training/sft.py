"""Supervised fine-tuning of the shared starting point, by TRL's `SFTTrainer`. Imports transformers, as `trainer` does."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api.types import Example
from harness.errors import DataError
from harness.models.prompts import ChatTemplate
from harness.training.batch import tokenize_target
from harness.training.checkpoints import Checkpoints, train_resumably
from harness.training.settings import SftSettings, resolve_precision
from harness.training.trainer import Report, StepCallback, recompute_layers, shared_arguments

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.training.sft_trainer import SharedSFTTrainer


@dataclass(frozen=True)
class FineTuned:
    """What supervised fine-tuning leaves beside the weights.

    Attributes:
        history: one row per step: step, loss, learning_rate, gradient_norm.
        counts: examples, dropped, tokens (per epoch).
        rows: of a pass at the end: fewer than asked for where memory ran out.
    """

    history: list[dict[str, float]]
    counts: dict[str, int]
    rows: int


def fine_tune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    settings: SftSettings,
    *,
    seed: int,
    scratch: Path,
    report: Report | None = None,
    checkpoints: Checkpoints | None = None,
) -> FineTuned:
    """Train `model` in place on the examples' targets.

    The loss is TRL's: the mean over all response tokens of a batch. Examples longer than `max_length` are dropped whole.

    Raises:
        DataError: no example has a target that fits.
        StageError: the loss or its gradient stopped being a number, which names step and prompts; or an example does not fit
            in memory.
    """
    rows, counts = _tokenize(ChatTemplate(tokenizer), examples, settings.max_length)
    if settings.gradient_checkpointing:
        recompute_layers(model)
    trainer = _build(model, tokenizer, rows, settings, seed, scratch, report, checkpoints)
    train_resumably(trainer, checkpoints, trainer.notes, trainer.restore)
    return FineTuned(trainer.history, counts, trainer.pass_size)


def _tokenize(
    template: ChatTemplate, examples: Sequence[Example], max_length: int
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Rows for SFTTrainer, tokenised by the same code as all else: ids, a mask of the response's tokens, the prompt's id."""
    rows, dropped, tokens = [], 0, 0
    for example in examples:
        ids = tokenize_target(example, template, max_length)
        if isinstance(ids, str):
            dropped += 1
            continue
        prompt, response = ids
        mask = [0] * len(prompt) + [1] * len(response)
        rows.append({"input_ids": prompt + response, "completion_mask": mask, "id": example.prompt.id})
        tokens += len(prompt) + len(response)
    if not rows:
        raise DataError(f"no example of {len(examples)} has a target of at most {max_length} tokens: raise sft.max_length")
    return rows, {"examples": len(rows), "dropped": dropped, "tokens": tokens}


def _build(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[dict[str, Any]],
    settings: SftSettings,
    seed: int,
    scratch: Path,
    report: Report | None,
    checkpoints: Checkpoints | None,
) -> SharedSFTTrainer:
    from datasets import Dataset
    from trl import SFTConfig

    from harness.training.sft_trainer import SharedSFTTrainer

    steps = settings.epochs * math.ceil(len(rows) / settings.batch_size)
    with warnings.catch_warnings():
        # TRL turns checkpointing on under a name that transformers calls deprecated, and only that name turns it off.
        warnings.filterwarnings("ignore", message="`gradient_checkpointing` is deprecated", category=FutureWarning)
        arguments = SFTConfig(
            output_dir=str(scratch),
            per_device_train_batch_size=settings.batch_size,  # which the trainer itself cuts into passes
            num_train_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            seed=seed,
            data_seed=seed,
            max_length=None,
            packing=False,
            completion_only_loss=True,
            gradient_checkpointing=False,
            average_tokens_across_devices=False,  # every process counts the whole batch's
            bf16=resolve_precision(settings.precision, model.device.type) == "bfloat16",
            train_sampling_strategy="group_by_length",
            **shared_arguments(settings.schedule, settings.warmup_share, steps),
        )
    return SharedSFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[StepCallback(report, lambda row: None)],
        settings=settings,
        checkpoints=checkpoints,
    )
