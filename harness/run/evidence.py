"""Write and read the evidence of a run's stages: from the store into a board's evidence, and from there as if from a store."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from harness.api.types import Score
from harness.board.by_model import SEPARATOR
from harness.board.evidence import MANIFEST_FIELDS, PlanEvidence, StageEvidence, StagesEvidence
from harness.errors import DataError
from harness.run.executors.events import Outcome
from harness.run.graph import VERSIONS, Graph, RowPlan, Stage, StatePlan
from harness.run.records import Facts
from harness.run.results import FinishedStages, Run
from harness.run.stages.evaluate import score_fields
from harness.store import MANIFEST, Artifact, canonical, key_of
from harness.store.environment import cpu_kind

HISTORY, SCORE_LINES = "history.jsonl", "scores.jsonl"


def stages_evidence(runs: Sequence[Run], graph: Graph) -> StagesEvidence:
    """Return the evidence of all stages that a board was made of.

    Args:
        runs: one for each starting model.
        graph: the stages of all of them, and of trials where settings were searched.
    """
    store, outcome = runs[0].store, runs[0].outcome
    stages: dict[str, StageEvidence] = {}
    for key, stage in graph.stages.items():
        asked = {"kind": stage.kind, "title": stage.title, "payload": dict(stage.payload), "inputs": dict(stage.inputs)}
        if not store.holds(key):
            stages[key] = StageEvidence(**asked)
            continue
        artifact = store.open(key)
        stages[key] = _stage(artifact, asked, key in outcome.ran)
        for used in Facts.of(artifact).used:  # what it asked for beside its inputs
            if used not in stages and used not in graph.stages and store.holds(used):
                stages[used] = _stage(store.open(used), {}, False)
    of_rows = [_plan(row, run.comparison.start) for run in runs for row in run.graph.rows]
    # Told by their stages: under several starting models a row has another label in the common graph.
    of_board = {frozenset(run.graph.needed_by(row)) for run in runs for row in run.graph.rows}
    trials = [_plan(row, None, trial=True) for row in graph.rows if frozenset(graph.needed_by(row)) not in of_board]
    return StagesEvidence(
        environment=dict(graph.environment),
        versions=dict(VERSIONS),
        stages=stages,
        plans=(*trials, *of_rows),
        cpu=cpu_kind(),
        failed={key: reason for key, reason in outcome.failed.items() if key in graph.stages},
    )


def _stage(artifact: Artifact, asked: Mapping[str, Any], ran: bool) -> StageEvidence:
    manifest = artifact.read_json(MANIFEST)
    files = manifest["files"]
    history = tuple(artifact.read_lines(HISTORY)) if HISTORY in files else None
    scores = [Score(*fields) for fields in artifact.read_lines(SCORE_LINES)] if SCORE_LINES in files else None
    integers = sorted({score.metric for score in scores or () if isinstance(score.value, int)})
    if scores is not None and hash_of_scores(scores, integers) != files[SCORE_LINES]:
        scores, integers = None, []  # a metric with both kinds of numbers: its file cannot be written again
    return StageEvidence(
        **asked,
        manifest={name: manifest[name] for name in MANIFEST_FIELDS if name in manifest},
        ran=ran,
        history=history,
        scores=None if scores is None else len(scores),
        integers=tuple(integers),
    )


def hash_of_scores(scores: Sequence[Score], integers: Collection[str]) -> str:
    """Return the SHA-256 of the file that an evaluation wrote these scores to.

    Args:
        integers: metrics whose values it wrote as integers.
    """
    digest = hashlib.sha256()
    for score in scores:
        value = int(score.value) if score.metric in integers else float(score.value)
        digest.update(f"{canonical(score_fields(replace(score, value=value)))}\n".encode())
    return digest.hexdigest()


def hash_of_lines(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return the SHA-256 of the file that a stage wrote these lines to."""
    return hashlib.sha256("".join(f"{canonical(line)}\n" for line in lines).encode()).hexdigest()


def _plan(row: RowPlan, start: str | None, *, trial: bool = False) -> PlanEvidence:
    label = row.label if start is None else f"{start}{SEPARATOR}{row.label}"
    return PlanEvidence(
        row=None if trial else label,
        label=row.label,
        seed=row.seed,
        model=row.model,
        groups=row.groups,
        training=row.training,
        evaluations={name: tuple(keys) for name, keys in row.evaluations.items()},
        start=row.start,
        training_seed=row.training_seed,
        states=tuple((state.model, state.round, state.share, state.position, dict(state.evaluations)) for state in row.states),
    )


@dataclass(frozen=True)
class RecordedArtifact(Artifact):
    """An artifact of which there are its manifest and the lines of its log, and no file."""

    history: Sequence[Mapping[str, Any]] = ()

    def read_lines(self, name: str) -> Iterator[Any]:
        """Yield the lines of the log.

        Raises:
            DataError: another file is asked for.
        """
        if name != HISTORY:
            raise DataError(f"the evidence of {self.key} has no {name}")
        yield from self.history


@dataclass(frozen=True)
class RecordedRun(FinishedStages):
    """The stages of a run as a board's evidence has them; its plans are the rows on the board, under their labels there."""

    graph: Graph
    store: RecordedStages
    outcome: Outcome
    evidence: StagesEvidence = field(repr=False)

    @classmethod
    def of(cls, evidence: StagesEvidence) -> Self:
        """Read the evidence; its keys are checked by `wrong_keys`."""
        stages = {
            key: Stage(key, stage.kind, stage.title, stage.payload or {}, stage.inputs)
            for key, stage in evidence.stages.items()
            if stage.payload is not None
        }
        rows = [_row(plan, plan.row) for plan in evidence.plans if plan.row is not None]
        return cls(
            Graph(evidence.environment, stages, rows),
            RecordedStages(evidence.stages),
            Outcome(failed=dict(evidence.failed)),
            evidence,
        )

    @cached_property
    def with_trials(self) -> Graph:
        """The graph with the trials of a search beside the rows, each row once for each starting model."""
        return Graph(self.graph.environment, self.graph.stages, [_row(plan, plan.label) for plan in self.evidence.plans])

    @property
    def ran(self) -> set[str]:
        """Keys of the stages that were made in the run."""
        return {key for key, stage in self.evidence.stages.items() if stage.ran}

    def wrong_keys(self) -> Iterator[str]:
        """Yield the stages whose key is not the hash of what they were asked."""
        environment, versions = self.evidence.environment, self.evidence.versions
        for key, stage in self.graph.stages.items():
            asked = dict(stage.payload), dict(stage.inputs), None if stage.kind == "source" else environment
            if key_of(stage.kind, versions.get(stage.kind, 0), *asked) != key:
                yield key


def _row(plan: PlanEvidence, label: str) -> RowPlan:
    states = tuple(StatePlan(*state) for state in plan.states)
    return RowPlan(
        label, plan.seed, plan.model, plan.groups, plan.training, plan.evaluations, plan.start, plan.training_seed, states
    )


class RecordedStages:
    """Reads artifacts from evidence, as a store reads them from its disk."""

    def __init__(self, stages: Mapping[str, StageEvidence]) -> None:
        self.stages = stages

    def holds(self, key: str) -> bool:
        """Return whether the evidence has the artifact's manifest."""
        return key in self.stages and bool(self.stages[key].manifest)

    def open(self, key: str) -> RecordedArtifact:
        """Return the artifact.

        Raises:
            DataError: there is none, or its manifest is no manifest.
        """
        if not self.holds(key):
            raise DataError(f"the evidence has no manifest of stage {key}")
        stage = self.stages[key]
        kind, facts, seconds = (stage.manifest.get(name) for name in ("kind", "facts", "seconds"))
        if not isinstance(kind, str) or not isinstance(facts, dict) or not isinstance(seconds, int | float):
            raise DataError(
                f"the manifest of stage {key} is none: kind, facts and seconds should be a text, a mapping, a number"
            )
        changed, history = stage.manifest.get("changed") is True, stage.history or ()
        return RecordedArtifact(key, kind, Path(), facts, float(seconds), changed=changed, history=history)
