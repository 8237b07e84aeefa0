"""Supervised fine-tuning of the shared starting point, by TRL's `SFTTrainer`. Imports transformers, as `trainer` does."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import DataError
from harness.models.prompts import ChatTemplate
from harness.training.arguments import shared_arguments
from harness.training.checkpoints import Checkpoints, train_resumably
from harness.training.progress import Report, StepCallback
from harness.training.settings import SftSettings, resolve_precision
from harness.training.trainer import recompute_layers
from harness.types import Example, Response

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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
) -> tuple[list[dict[str, float]], dict[str, int]]:
    """Train `model` in place on the examples' targets.

    The loss is TRL's: the mean over all response tokens of a batch. Examples longer than `max_length` are dropped whole.

    Returns:
        One row per step (step, loss, learning_rate, gradient_norm), and counts: examples, dropped, tokens (per epoch).

    Raises:
        DataError: no example has a target that fits.
    """
    rows, counts = _tokenize(ChatTemplate(tokenizer), examples, settings.max_length)
    if settings.gradient_checkpointing:
        recompute_layers(model)
    trainer = _build(model, tokenizer, rows, settings, seed, scratch, report)
    train_resumably(trainer, checkpoints)
    history = [row for row in trainer.state.log_history if "loss" in row]
    kept = [
        {"step": row["step"], "loss": row["loss"], "learning_rate": row["learning_rate"], "gradient_norm": row["grad_norm"]}
        for row in history
    ]
    return kept, counts


def _tokenize(
    template: ChatTemplate, examples: Sequence[Example], max_length: int
) -> tuple[list[dict[str, list[int]]], dict[str, int]]:
    """Rows for SFTTrainer, tokenised by the same code as everything else: ids, and a mask of the response's tokens."""
    rows, dropped, tokens = [], 0, 0
    for example in examples:
        if example.target is None:
            dropped += 1
            continue
        prompt, response = template.prompt_ids(example.prompt), template.response_ids(Response(example.target))
        if len(prompt) + len(response) > max_length:
            dropped += 1
            continue
        rows.append({"input_ids": prompt + response, "completion_mask": [0] * len(prompt) + [1] * len(response)})
        tokens += len(prompt) + len(response)
    if not rows:
        raise DataError(f"no example of {len(examples)} has a target of at most {max_length} tokens: raise sft.max_length")
    return rows, {"examples": len(rows), "dropped": dropped, "tokens": tokens}


def _build(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[dict[str, list[int]]],
    settings: SftSettings,
    seed: int,
    scratch: Path,
    report: Report | None,
) -> Any:
    from datasets import Dataset
    from trl import SFTConfig

    from harness.training.sft_trainer import SharedSFTTrainer

    steps = settings.epochs * math.ceil(len(rows) / settings.batch_size)
    passed = settings.micro_batch_size or settings.batch_size
    with warnings.catch_warnings():
        # TRL turns checkpointing on under a name that transformers calls deprecated, and only that name turns it off.
        warnings.filterwarnings("ignore", message="`gradient_checkpointing` is deprecated", category=FutureWarning)
        arguments = SFTConfig(
            output_dir=str(scratch),
            per_device_train_batch_size=passed,
            gradient_accumulation_steps=settings.batch_size // passed,
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
    )
