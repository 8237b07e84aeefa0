"""The judge of a stage: an evaluation's, or a data builder's."""

from __future__ import annotations

from typing import Any

from harness.errors import StageError
from harness.run.graph import Stage
from harness.models.judge.judge import Judge
from harness.models.judge.settings import judge_of
from harness.run.stages.context import Context


def stage_judge(stage: Stage, context: Context) -> Judge | None:
    """The judge that was planned; None where none was.

    Raises:
        StageError: the settings at hand are of another judge than the one planned.
    """
    if "judge" not in stage.payload:
        return None
    settings = judge_of(context.judges, stage.payload)
    if settings.identity != stage.payload["judge"]:
        raise StageError(f"the judge changed from {stage.payload['judge']} to {settings.identity}: plan again")
    if settings.reading != stage.payload["reading"]:
        raise StageError(f"judges' answers are read by {settings.reading} and not by {stage.payload['reading']}: plan again")
    key = context.secret(settings.api_key_env) if settings.api_key_env else None
    return Judge(settings, context.store, context.run, key, context.report)


def judge_facts(stage: Stage, judge: Judge | None) -> dict[str, Any]:
    """Who judged and what that took, for the artifact."""
    return {} if judge is None else {"judge": {**stage.payload["judge"], **judge.tally.facts()}}
