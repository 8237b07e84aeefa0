"""A row before its statistics: what a run, another board or another tool's files bring to a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.board.entries import Kind, RowEntry
from harness.board.files import Scores
from harness.api.types import Cost, Score


@dataclass(frozen=True)
class RowResult:
    """What one row of the comparison brought home.

    Attributes:
        label: unique in the board.
        scores: evaluator → seed → scores.
        costs: per seed.
        budget: what it really used: prompts, pairs, updates, tokens.
        failed: why there are no scores; None where it ran.
        curves: per seed the training log, one mapping of numbers per logged step.
    """

    label: str
    data: str | None
    objective: str | None
    rounds: int
    kind: Kind
    scores: Mapping[str, Mapping[int, Sequence[Score]]]
    costs: Mapping[int, Cost]
    budget: Mapping[str, float]
    provenance: Mapping[str, Any]
    failed: str | None = None
    curves: Mapping[int, Sequence[Mapping[str, float]]] = field(default_factory=dict)


def row_before_statistics(entry: RowEntry, scores: Scores) -> RowResult:
    """The row as it was before its statistics."""
    return RowResult(
        label=entry.method,
        data=entry.data,
        objective=entry.objective,
        rounds=entry.rounds,
        kind=entry.kind,
        scores=scores.get(entry.method, {}),
        costs={seed: Cost() for seed in entry.seeds},
        budget={},
        provenance=entry.provenance,
        failed=entry.failed,
    )
