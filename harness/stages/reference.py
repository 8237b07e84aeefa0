"""Log-probabilities of a round's responses under its reference: once per unique sequence, kept for every objective."""

from __future__ import annotations

from harness.graph import Stage
from harness.interfaces import Objective
from harness.models.logps import Row, score
from harness.models.prompts import ChatTemplate
from harness.stages.context import Context, read_groups
from harness.store import Draft


def run_reference(stage: Stage, context: Context, draft: Draft) -> None:
    """One row per group: the chosen response's log-probability, then each rejected one's. Nats."""
    groups = read_groups(context.store.open(stage.inputs["groups"]))
    view = stage.payload["view"]
    if view:
        objective: Objective = context.component("objective", stage.payload["objective"])
        change = objective.views()[view]
        prompts = [change(group.prompt) for group in groups]
    else:
        prompts = [group.prompt for group in groups]
    model, tokenizer = context.load(stage.inputs["model"])
    template = ChatTemplate(tokenizer)
    rows: list[Row] = []
    for prompt, group in zip(prompts, groups, strict=True):
        opening = tuple(template.prompt_ids(prompt))
        rows += [Row(opening, tuple(template.response_ids(response))) for response in (group.chosen, *group.rejected)]
    values = iter(score(model, rows))
    draft.write_lines("logps.jsonl", [[next(values) for _ in (group.chosen, *group.rejected)] for group in groups])
    draft.facts["tokens_scored"] = sum(row.tokens for row in rows)
