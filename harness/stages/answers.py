"""A policy's answers to the evaluated prompts, once for all evaluators."""

from __future__ import annotations

from harness.graph import Stage
from harness.stages.context import Context, answer_rows, read_dataset
from harness.stages.services import PolicyServices, Services
from harness.store import Draft
from harness.types import Example, Sampling, SplitName


def run_answers(stage: Stage, context: Context, draft: Draft) -> None:
    """Draw the answers that an evaluator said it will ask for."""
    sampling = Sampling(**stage.payload["sampling"])
    examples = evaluated_examples(stage, context)
    backend = context.component("backend", stage.payload["backend"])
    policy = PolicyServices(Services(context), stage.inputs["model"], backend)
    responses = policy.generate(
        [example.prompt for example in examples],
        sampling,
        report=lambda done, total: context.report(done, total, f"answer {done:,} of {total:,}"),
    )
    draft.write_lines("answers.jsonl", answer_rows(responses))
    draft.facts["tokens_generated"] = sum(response.tokens or 0 for row in responses for response in row)


def evaluated_examples(stage: Stage, context: Context) -> tuple[Example, ...]:
    """The examples of the split that a stage evaluates."""
    split: SplitName = stage.payload["split"]
    return read_dataset(context.store.open(stage.inputs["source"]))[split][: stage.payload["prompts"]]
