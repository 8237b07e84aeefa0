"""The shared beginning: the source's rows, a starting model, its supervised fine-tuning."""

from __future__ import annotations

from dataclasses import asdict

from harness.api.interfaces import Source
from harness.api.types import Dataset, Message
from harness.config.schema import Limits
from harness.errors import DataError
from harness.models.tokenization import ChatTemplate
from harness.run.graph import Stage
from harness.run.records import (
    Description,
    ScratchInputs,
    ScratchPayload,
    SftFacts,
    SftInputs,
    SftPayload,
    SourceFacts,
    SourceInputs,
    SourcePayload,
)
from harness.run.stages.benchmarks import all_read, read_benchmarks
from harness.run.stages.context import Context, read_dataset
from harness.run.stages.screening import screen
from harness.run.stages.train import Start, checkpoints_of
from harness.store import ArtifactDraft
from harness.training.ranks import Ranks


def run_source(stage: Stage, context: Context, draft: ArtifactDraft, evaluated: Dataset | None = None) -> None:
    """Load the source and leave out the rows that must not be used; one JSON-lines file per split.

    Args:
        evaluated: the dataset of the stage's input of that name; read from the store if None.
    """
    payload, inputs = SourcePayload.of(stage), SourceInputs.of(stage)
    # The fingerprint is of the rows, which the store now holds: later stages need the component whatever became of its files.
    description = Description(**payload.source.model_dump(exclude={"fingerprint"}, exclude_unset=True))
    limits = Limits.model_validate(payload.limits) if payload.limits else None
    template = ChatTemplate(context.load_tokenizer(inputs.model)) if limits and inputs.model else None
    source: Source = context.component("source", description)
    evaluators = [context.component("evaluator", evaluator) for evaluator in payload.benchmarks]
    if inputs.evaluated and evaluated is None:
        evaluated = read_dataset(context.store.open(inputs.evaluated))
    dataset, report = screen(source.load(), limits, template, all_read(read_benchmarks(evaluators, source)), evaluated)
    facts = SourceFacts(
        splits={name: len(examples) for name, examples in dataset.splits.items()},
        dropped=dict(dataset.dropped),
        screening=report.counts(),
        usable=report.usable,
    )
    draft.facts |= facts.as_json()
    draft.write_json("source.json", description.as_json())
    for name, examples in dataset.splits.items():
        draft.write_lines(f"{name}.jsonl", [asdict(example) for example in examples])


def run_scratch(stage: Stage, context: Context, draft: ArtifactDraft) -> None:
    """Make a tokenizer and a small model from the training text."""
    from harness.models.scratch import ScratchModel, train_from_scratch

    recipe = ScratchModel.model_validate(ScratchPayload.of(stage).recipe)
    dialogues = training_dialogues(read_dataset(context.store.open(ScratchInputs.of(stage).source)))
    draft.facts |= train_from_scratch(recipe, dialogues, draft.folder / "model", context.report)


def training_dialogues(dataset: Dataset) -> list[tuple[Message, ...]]:
    """Return every dialogue of the `sft` and `train` splits, each once: the text of a model made from nothing.

    Raises:
        DataError: no example of them has a response.
    """
    dialogues = dict.fromkeys(
        (*example.prompt.messages, Message("assistant", text))
        for example in (*dataset["sft"], *dataset["train"])
        for text in (example.target, *example.ranked)
        if text
    )
    if not dialogues:
        raise DataError("model.scratch needs a source with targets or ranked responses in its training splits")
    return list(dialogues)


def run_sft(stage: Stage, context: Context, draft: ArtifactDraft) -> None:
    """Fine-tune the starting checkpoint on the source's targets."""
    from harness.training.settings import SftSettings
    from harness.training.sft import fine_tune

    payload, inputs = SftPayload.of(stage), SftInputs.of(stage)
    settings = SftSettings.model_validate(payload.settings)
    examples = read_dataset(context.store.open(inputs.source))["sft"]
    start = Start(inputs.model, payload.seed, context, settings)
    policy, tokenizer = start.for_shards()
    checkpoints = checkpoints_of(stage, context)
    with context.scratch() as folder:
        tuned = fine_tune(
            policy,
            tokenizer,
            examples,
            settings,
            seed=payload.seed,
            scratch=folder,
            report=context.report,
            checkpoints=checkpoints,
            watch=context.live.points,
        )
    stored = start.save(policy, tokenizer, draft)
    if not Ranks.here().first:
        return
    draft.earlier_seconds = checkpoints.earlier_seconds
    draft.write_lines("history.jsonl", tuned.history)
    facts = SftFacts(
        examples=tuned.counts["examples"],
        dropped=tuned.counts["dropped"],
        tokens=tuned.counts["tokens"],
        tokens_trained=tuned.counts["tokens"] * settings.epochs,
        memory_warning=sft_memory_warning(settings.micro_batch_size or settings.batch_size, tuned.rows),
        **stored,
        **({"layout": tuned.layout, "layout_warning": tuned.layout_warning} if tuned.layout or tuned.layout_warning else {}),
    )
    draft.facts |= facts.as_json()


def sft_memory_warning(asked: int, used: int) -> str:
    """Return the board's warning where memory ran out; empty where it did not."""
    if used == asked:
        return ""
    return f"memory ran out in SFT, so passes were cut to {used} examples instead of {asked}; loss and gradient are the same"
