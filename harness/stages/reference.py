"""Log-probabilities of a round's responses under its reference: once per unique sequence, kept for every objective."""

from __future__ import annotations

from harness.graph import Stage
from harness.interfaces import Objective
from harness.models.prompts import ChatTemplate
from harness.stages.context import Context, read_groups
from harness.store import Draft
from harness.training.batch import MISMATCHED, partners
from harness.training.layouts.choose import choose_layout
from harness.training.layouts.layout import Bundle, score_bundles


def run_reference(stage: Stage, context: Context, draft: Draft) -> None:
    """One row per group: the chosen response's log-probability, then each rejected one's. Nats.

    Of the mismatched view, the responses are those of the group's partner.
    """
    groups = read_groups(context.store.open(stage.inputs["groups"]))
    view = stage.payload["view"]
    answers = partners(groups) if view == MISMATCHED else groups
    prompts = [group.prompt for group in groups]
    if stage.payload["objective"]:
        objective: Objective = context.component("objective", stage.payload["objective"])
        prompts = [objective.views()[view](prompt) for prompt in prompts]
    model, tokenizer = context.load(stage.inputs["model"])
    template = ChatTemplate(tokenizer)
    bundles = [
        Bundle(
            tuple(template.prompt_ids(prompt)),
            tuple(tuple(template.response_ids(response)) for response in (group.chosen, *group.rejected)),
        )
        for prompt, group in zip(prompts, answers, strict=True)
    ]
    draft.write_lines("logps.jsonl", score_bundles(model, bundles, choose_layout(model)))
    draft.facts["tokens_scored"] = sum(row.tokens for bundle in bundles for row in bundle.rows())
