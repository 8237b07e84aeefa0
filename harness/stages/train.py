"""One round of one method: groups and reference in, a model out."""

from __future__ import annotations

from dataclasses import replace

from harness.graph import Stage
from harness.interfaces import Objective
from harness.models.prompts import ChatTemplate
from harness.stages.context import Context, read_groups, save_checkpoint
from harness.store import Draft
from harness.training.batch import TokenGroup, tokenize
from harness.training.layouts.choose import choose_layout
from harness.training.settings import TrainingSettings

REFERENCE = "reference:"


def run_train(stage: Stage, context: Context, draft: Draft) -> None:
    """Train; the artifact is the model, its history, and what the training really used."""
    from harness.training.trainer import train

    objective: Objective = context.component("objective", stage.payload["objective"])
    settings = TrainingSettings(**stage.payload["settings"])
    groups = read_groups(context.store.open(stage.inputs["groups"]))
    model, tokenizer = context.load(stage.inputs["model"])
    tokenized = _with_reference(tokenize(groups, ChatTemplate(tokenizer), objective), stage, context)
    tokenized = [group for group in tokenized if group.pairs or not objective.needs_rejected]
    layout = choose_layout(model, settings.layout)
    with context.scratch() as folder:
        history = train(
            model,
            tokenized,
            objective,
            settings,
            seed=stage.payload["seed"],
            scratch=folder,
            report=context.report,
            layout=layout,
        )
    save_checkpoint(model, tokenizer, draft.folder / "model")
    draft.write_lines("history.jsonl", history)
    draft.facts.update(
        {
            "prompts": len(tokenized),
            "pairs": sum(group.pairs for group in tokenized) * settings.epochs,
            "updates": len(history),
            "tokens_trained": sum(group.tokens for group in tokenized) * settings.epochs,
            "layout": layout.name,
            "layout_warning": layout.warning,
        }
    )


def _with_reference(groups: list[TokenGroup], stage: Stage, context: Context) -> list[TokenGroup]:
    """The groups with every stored reference view filled in."""
    stored = {
        name.removeprefix(REFERENCE): [tuple(row) for row in context.store.open(key).read_lines("logps.jsonl")]
        for name, key in stage.inputs.items()
        if name.startswith(REFERENCE)
    }
    return [
        replace(group, reference={view: rows[index] for view, rows in stored.items()}) for index, group in enumerate(groups)
    ]
