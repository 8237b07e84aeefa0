"""Supervised fine-tuning of the shared starting point by TRL's `SFTTrainer`. Imports transformers, as `trainer` does."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from harness.api.types import Example
from harness.errors import DataError
from harness.models.tokenization import ChatTemplate
from harness.training.batch import tokenize_target
from harness.training.checkpoints import Checkpoints, train_resumably
from harness.training.layouts.choose import choose_layout
from harness.training.layouts.layout import Layout
from harness.training.settings import SftSettings, resolve_precision
from harness.training.trainer import Report, StepCallback, Watch, recompute_layers, shared_arguments

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.training.sft_trainer import SftTrainer


ROUTED = "SFT ran on padded rows: a mixture of experts adds a loss of its router, which TRL's pass alone knows"


class SftRow(TypedDict):
    """An example for TRL.

    Attributes:
        input_ids: of prompt and target, [T].
        completion_mask: 1 on the target's tokens, 0 on the prompt's, [T].
        id: of the prompt.
    """

    input_ids: list[int]
    completion_mask: list[int]
    id: str


@dataclass(frozen=True)
class FineTuned:
    """The results of supervised fine-tuning beside the weights.

    Attributes:
        history: one row per step: step, loss, learning_rate, gradient_norm.
        counts: examples, dropped, tokens (per epoch).
        rows: of a pass at the end; fewer than the settings ask for where memory ran out.
        layout: by which rows were laid out; empty where TRL did it.
        layout_warning: why they were padded though they need not be; empty where they were not.
    """

    history: list[dict[str, float]]
    counts: dict[str, int]
    rows: int
    layout: str = ""
    layout_warning: str = ""


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
    watch: Watch | None = None,
) -> FineTuned:
    """Train `model` in place on the examples' targets.

    The loss is TRL's: the mean over all response tokens of a batch. Examples longer than `max_length` are dropped whole. Rows
    are laid out as `settings.layout` says, `auto` as TRL does it: a plan names the other.

    Args:
        watch: takes the rows of the history as they are made.

    Raises:
        DataError: no example has a target that fits.
        StageError: the loss or its gradient stopped being a number, which names step and prompts; or an example does not fit
            in memory.
    """
    rows, counts = _tokenize(ChatTemplate(tokenizer), examples, settings.max_length)
    # A mixture of experts may add a loss of its router to that of the tokens, which TRL's pass knows.
    routed = settings.layout == "packed" and getattr(model.config, "output_router_logits", False)
    layout = choose_layout(model, work="SFT") if settings.layout == "packed" and not routed else None
    if settings.gradient_checkpointing:
        recompute_layers(model)
    trainer = _build(model, tokenizer, rows, settings, layout, seed, scratch, report, checkpoints)
    if watch is not None:
        from harness.training.sft_trainer import WatchCallback

        trainer.add_callback(WatchCallback(watch))

    def restore(notes: Mapping[str, object]) -> None:
        from harness.training.sft_trainer import SftProgress

        trainer.restore(SftProgress.model_validate(notes))

    train_resumably(trainer, checkpoints, lambda: trainer.progress.model_dump(), restore)
    warning = layout.warning if layout else ROUTED if routed else ""
    return FineTuned(trainer.history, counts, trainer.step.passes.size, layout.name if layout else "", warning)


def _device() -> str:
    """Return the kind of device that is trained on, where the model may have no weights yet (`sharded_load`)."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _tokenize(template: ChatTemplate, examples: Sequence[Example], max_length: int) -> tuple[list[SftRow], dict[str, int]]:
    """Return rows for SFTTrainer, tokenised by the same code as all other text here, and `FineTuned.counts`."""
    rows, dropped, tokens = list[SftRow](), 0, 0
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
    rows: list[SftRow],
    settings: SftSettings,
    layout: Layout | None,
    seed: int,
    scratch: Path,
    report: Report | None,
    checkpoints: Checkpoints | None,
) -> SftTrainer:
    from datasets import Dataset
    from trl import SFTConfig

    from harness.training.sft_step import SftStep
    from harness.training.sft_trainer import SftTrainer

    steps = settings.epochs * math.ceil(len(rows) / settings.batch_size)
    with warnings.catch_warnings():
        # TRL turns checkpointing on under a name that transformers calls deprecated, and only that name turns it off.
        warnings.filterwarnings("ignore", message="`gradient_checkpointing` is deprecated", category=FutureWarning)
        arguments = SFTConfig(
            output_dir=str(scratch),
            per_device_train_batch_size=settings.batch_size,  # which `SftStep` cuts into passes
            num_train_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            seed=seed,
            data_seed=seed,
            max_length=None,
            packing=False,
            completion_only_loss=True,
            gradient_checkpointing=False,
            average_tokens_across_devices=False,  # every process counts the whole batch's tokens
            # A layout computes under autocast by itself.
            bf16=layout is None and resolve_precision(settings.precision, _device()) == "bfloat16",
            train_sampling_strategy="group_by_length",
            **shared_arguments(settings, steps),
        )
    return SftTrainer(
        step=SftStep(settings, checkpoints, layout),
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[StepCallback(report, lambda row: None)],
    )
