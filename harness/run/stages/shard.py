"""Shards: a part of the responses, or of the numbers, of a later stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from harness.errors import HarnessError, UnavailableError
from harness.models.generate import block_sampling
from harness.run.graph import Stage
from harness.run.records import ScoringShardPayload, ShardFacts, ShardPayload
from harness.run.stages.context import Context
from harness.run.stages.evaluate import answering, ask_evaluation
from harness.run.stages.groups import ask_groups
from harness.run.stages.parts import BatchShare, ShardEndsError
from harness.run.stages.reference import ask_reference
from harness.run.stages.services import Services, sample_blocks
from harness.store import ArtifactDraft

# By the kind of the whole stage: asks for its numbers.
ASKING: Mapping[str, Callable[[Stage, Services], None]] = {
    "groups": ask_groups,
    "reference": ask_reference,
    "evaluate": ask_evaluation,
}


def run_shard(stage: Stage, context: Context, draft: ArtifactDraft) -> None:
    """Draw a part of the responses of a later stage."""
    payload = ShardPayload.of(stage)
    policy, prompts = answering(stage, payload, context)
    sampling, drawn, tokens = payload.drawn, dict[str, float](), 0
    requests = [block_sampling(sampling, *block) for block in sample_blocks(sampling)] if payload.blocks else [sampling]
    for place, request in enumerate(requests):
        # Each block begins with another shard: a block of few batches has none for some.
        number = (payload.number + place) % payload.count
        facts = policy.draw_shard(draft, context.store.partial(stage.key), prompts, request, number, payload.count)
        drawn |= facts.drawn
        tokens += facts.tokens_generated
    draft.facts |= ShardFacts(drawn=drawn, tokens_generated=tokens).as_json()


def run_scoring_shard(stage: Stage, context: Context, draft: ArtifactDraft) -> None:
    """Compute a part of the numbers that a later stage asks for, as far as it asks without looking at one."""
    payload = ScoringShardPayload.of(stage)
    whole = Stage(payload.key, payload.kind, stage.title, payload.payload, stage.inputs)
    services = Services(replace(context, shards=stage.after), share=BatchShare(payload.number, payload.count))
    try:
        ASKING[payload.kind](whole, services)
    except (ShardEndsError, UnavailableError):
        pass
    except Exception as error:
        # Libraries refuse a number that is not known in words of their own, as numpy does by a TypeError. If it is a mistake
        # of the component, the whole stage makes it too.
        if isinstance(error, HarnessError) or error in services.failures:
            raise
    draft.facts |= ShardFacts(parts=services.parts, **services.ledger.facts()).as_json()
