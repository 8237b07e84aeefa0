"""A data builder's round: prompts in, groups out."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from harness.errors import StageError
from harness.graph import Stage
from harness.interfaces import Source
from harness.stages.context import Context, group_row, read_dataset
from harness.stages.judging import judge_facts, stage_judge
from harness.stages.services import BuilderServices, PolicyServices, Services
from harness.store import Draft
from harness.types import Group


def run_groups(stage: Stage, context: Context, draft: Draft) -> None:
    """Build a round's groups; `facts` tell how many, from how many prompts, and why some gave none."""
    payload = stage.payload
    builder = context.component("data", payload["builder"])
    first, last = payload["examples"]
    examples = read_dataset(context.store.open(stage.inputs["source"]))["train"]
    if len(examples) < last:
        raise StageError(
            f"budget.prompts asks for {last} training prompts and the source has {len(examples)}: lower it, or load more"
        )
    services, judge = Services(context), stage_judge(stage, context)
    backend = context.component("backend", payload["backend"])
    task = BuilderServices(
        services=services,
        examples=examples[first:last],
        round=payload["round"],
        rng=random.Random(f"groups {payload['seed']} {payload['round']} {builder.name}"),
        source=source_of(stage, context),
        start=PolicyServices(services, stage.inputs["start"], backend),
        current=PolicyServices(services, stage.inputs["policy"], backend),
        seed=payload["seed"],
        max_tokens=payload["max_tokens"],
        asked=judge,
    )
    groups = list(builder.build(task))
    if not groups:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in task.dropped.items()) or "no reason counted"
        raise StageError(f"data builder {builder.name!r} made no group from {len(task.examples)} prompts ({reasons})")
    draft.write_lines("groups.jsonl", [group_row(group) for group in groups])
    draft.facts.update({**services.ledger.facts(), **judge_facts(stage, judge)})
    draft.facts.update(_summary(groups))
    draft.facts.update({"prompts": len(task.examples), "dropped": task.dropped})


def source_of(stage: Stage, context: Context) -> Source:
    """The source component behind a stage's `source` input."""
    description: dict[str, Any] = context.store.open(stage.inputs["source"]).read_json("source.json")
    source: Source = context.component("source", description)
    return source


def _summary(groups: Sequence[Group]) -> dict[str, Any]:
    names = sorted({name for group in groups for name in group.info})
    means = {}
    for name in names:
        values = [group.info[name] for group in groups if name in group.info]
        means[name] = sum(values) / len(values)
    return {"groups": len(groups), "pairs": sum(len(group.rejected) for group in groups), "means": means}
