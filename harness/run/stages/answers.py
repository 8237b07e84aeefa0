"""A policy's answers to the evaluated prompts, once for all evaluators."""

from __future__ import annotations

from harness.run.graph import Stage
from harness.run.stages.context import Context, read_dataset
from harness.run.stages.services import PolicyServices, Services
from harness.store import Draft
from harness.api.types import Example, Sampling, SplitName


def run_answers(stage: Stage, context: Context, draft: Draft) -> None:
    """Draw the answers that an evaluator said it will ask for."""
    sampling = Sampling(**stage.payload["sampling"])
    examples = evaluated_examples(stage, context)
    backend = context.component("backend", stage.payload["backend"])
    policy = PolicyServices(Services(context), stage.inputs["model"], backend)
    prompts = [example.prompt for example in examples]
    draft.facts["tokens_generated"] = policy.draw(draft, context.store.partial(stage.key), prompts, sampling, "answer")


def evaluated_examples(stage: Stage, context: Context) -> tuple[Example, ...]:
    """The examples of the split that a stage evaluates."""
    split: SplitName = stage.payload["split"]
    return read_dataset(context.store.open(stage.inputs["source"]))[split][: stage.payload["prompts"]]
