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

    The model is the one that the round starts from, in the precision that the round trains in, without any adapter. Of the
    mismatched view, the responses are those of the group's partner.
    """
    from harness.training.precision import autocast

    groups = read_groups(context.store.open(stage.inputs["groups"]))
    view = stage.payload["view"]
    answers = partners(groups) if view == MISMATCHED else groups
    prompts = [group.prompt for group in groups]
    if stage.payload["objective"]:
        objective: Objective = context.component("objective", stage.payload["objective"])
        prompts = [objective.views()[view](prompt) for prompt in prompts]
    precision = stage.payload.get("precision", "float32")
    model, tokenizer = context.load(stage.inputs["model"], float32=True)
    template = ChatTemplate(tokenizer)
    bundles = [
        Bundle(
            tuple(template.prompt_ids(prompt)),
            tuple(tuple(template.response_ids(response)) for response in (group.chosen, *group.rejected)),
        )
        for prompt, group in zip(prompts, answers, strict=True)
    ]
    layout = choose_layout(model)
    with autocast(model, precision):
        draft.write_lines("logps.jsonl", score_bundles(model, bundles, layout))
    draft.facts["tokens_scored"] = sum(row.tokens for bundle in bundles for row in bundle.rows())
