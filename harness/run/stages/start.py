"""The shared beginning: the source's rows, a starting model, its supervised fine-tuning."""

from __future__ import annotations

from harness.api.interfaces import Source
from harness.api.types import Dataset, Message
from harness.config.schema import Limits
from harness.errors import DataError
from harness.models.prompts import ChatTemplate
from harness.run.graph import Stage
from harness.run.stages.benchmarks import all_read, read_benchmarks
from harness.run.stages.context import Context, example_row, read_dataset
from harness.run.stages.screening import screen
from harness.run.stages.train import Start, checkpoints_of
from harness.store import ArtifactDraft
from harness.training.ranks import Ranks


def run_source(stage: Stage, context: Context, draft: ArtifactDraft) -> None:
    """Load the source and leave out what must not be used; one JSON-lines file per split."""
    description = dict(stage.payload["source"])
    description.pop("fingerprint")
    limits = Limits(**stage.payload["limits"]) if stage.payload.get("limits") else None
    template = ChatTemplate(context.load_tokenizer(stage.inputs["model"])) if limits else None
    source: Source = context.component("source", description)
    evaluators = [context.component("evaluator", evaluator) for evaluator in stage.payload.get("benchmarks", ())]
    dataset, report = screen(source.load(), limits, template, all_read(read_benchmarks(evaluators, source)))
    draft.facts["splits"] = {name: len(examples) for name, examples in dataset.splits.items()}
    draft.facts["dropped"] = dict(dataset.dropped)
    draft.facts["screening"] = report.as_dict()
    draft.facts["usable"] = report.usable
    draft.write_json("source.json", description)
    for name, examples in dataset.splits.items():
        draft.write_lines(f"{name}.jsonl", [example_row(example) for example in examples])


def run_scratch(stage: Stage, context: Context, draft: ArtifactDraft) -> None:
    """A tokenizer and a small model from the training text."""
    from harness.models.scratch import ScratchModel, train_from_scratch

    dialogues = training_dialogues(read_dataset(context.store.open(stage.inputs["source"])))
    facts = train_from_scratch(ScratchModel(**stage.payload["recipe"]), dialogues, draft.folder / "model", context.report)
    draft.facts.update(facts)


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
    """Supervised fine-tuning of the starting checkpoint."""
    from harness.training.settings import SftSettings
    from harness.training.sft import fine_tune

    settings, seed = SftSettings(**stage.payload["settings"]), stage.payload["seed"]
    examples = read_dataset(context.store.open(stage.inputs["source"]))["sft"]
    start = Start(stage, context, settings)
    policy, tokenizer = start.policy()
    checkpoints = checkpoints_of(stage, context)
    with context.scratch() as folder:
        tuned = fine_tune(
            policy, tokenizer, examples, settings, seed=seed, scratch=folder, report=context.report, checkpoints=checkpoints
        )
    start.save(policy, tokenizer, draft)
    if not Ranks.here().first:
        return
    draft.earlier_seconds = checkpoints.earlier_seconds
    draft.write_lines("history.jsonl", tuned.history)
    draft.facts.update(tuned.counts)
    draft.facts["tokens_trained"] = tuned.counts["tokens"] * settings.epochs
    draft.facts["memory_warning"] = sft_memory_warning(settings.micro_batch_size or settings.batch_size, tuned.rows)


def sft_memory_warning(asked: int, used: int) -> str:
    """What the board says where memory ran out; empty where it did not."""
    if used == asked:
        return ""
    return f"memory ran out in SFT, so passes were cut to {used} examples instead of {asked}; loss and gradient are the same"
