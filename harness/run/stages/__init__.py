"""The runner of each kind of stage. A runner reads its inputs from the store and writes one artifact."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

from harness.run.graph import TRAININGS, Stage
from harness.run.records import StatePayload
from harness.run.stages.context import Context
from harness.run.stages.devices import devices_of, run_on_devices, visible
from harness.run.stages.evaluate import run_answers, run_evaluate
from harness.run.stages.groups import run_groups
from harness.run.stages.reference import run_reference
from harness.run.stages.shard import run_scoring_shard, run_shard
from harness.run.stages.start import run_scratch, run_sft, run_source
from harness.run.stages.train import run_state, run_train
from harness.store import ArtifactDraft

RUNNERS: Mapping[str, Callable[[Stage, Context, ArtifactDraft], None]] = {
    "source": run_source,
    "scratch": run_scratch,
    "sft": run_sft,
    "groups": run_groups,
    "reference": run_reference,
    "train": run_train,
    "state": run_state,
    "answers": run_answers,
    "evaluate": run_evaluate,
    "shard": run_shard,
    "scoring_shard": run_scoring_shard,
}


def run_stage(stage: Stage, context: Context) -> None:
    """Make a stage's artifact unless the store holds it. Two processes that want the same one make it once."""
    with context.store.claim(stage.key), _training_claim(stage, context):
        if context.store.holds(stage.key) and not context.store.open(stage.key).dropped:
            return
        gpus = () if stage.kind in TRAININGS else context.gpus
        with context.store.draft(stage.kind, stage.key) as draft, visible(gpus):
            try:
                (run_on_devices if devices_of(stage) else RUNNERS[stage.kind])(stage, context, draft)
            finally:
                context.engine.stop()


def _training_claim(stage: Stage, context: Context) -> AbstractContextManager[None]:
    """Return a claim on the training that a state belongs to, since both write the training's checkpoints."""
    return context.store.claim(StatePayload.of(stage).training) if stage.kind == "state" else nullcontext()
