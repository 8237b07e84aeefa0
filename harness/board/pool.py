"""Rows of several boards as those of one: the same row's seeds are pooled, and other rows of its label are renamed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from harness.errors import DataError
from harness.board.part import Part
from harness.board.result import RowResult
from harness.board.board import RowEntry
from harness.api.types import Score


def pooled_rows(parts: Sequence[Part], baseline: str) -> tuple[list[RowResult], list[str]]:
    """Rows of one recipe and label pooled over their seeds; of another recipe under a name with the board's.

    Raises:
        DataError: the baseline has other scores of one seed on two boards.
    """
    found: dict[str, tuple[RowResult, str]] = {}
    warnings: list[str] = []
    for part in parts:
        for row in part.rows():
            if part.published:  # many papers have a row called DPO, and none of them is this board's
                row = replace(row, label=f"{row.label} ({part.board.name})")
            if row.label not in found:
                found[row.label] = (row, part.name)
                continue
            kept, where = found[row.label]
            clash = _clash(kept, row)
            if clash is None:
                found[row.label] = (_pooled(kept, row), where)
                if set(kept.costs) ^ set(row.costs):
                    warnings.append(f"{row.label}: seeds of {where} and {part.name} are pooled.")
            elif row.label == baseline and row.kind != "published":
                raise DataError(f"the baseline {row.label!r} is not the same on {where} and {part.name}: {clash}")
            else:
                label = f"{row.label} ({part.board.name})"
                number = 2
                while label in found:
                    label, number = f"{row.label} ({part.board.name} {number})", number + 1
                found[label] = (replace(row, label=label), part.name)
                warnings.append(f"{row.label} of {part.name} stands as {label!r}: {clash}.")
    return [row for row, _ in found.values()], warnings


def _clash(one: RowResult, other: RowResult) -> str | None:
    """Why two rows of one label are not one row."""
    if one.kind != other.kind or recipe(one) != recipe(other):
        return "it was made in another way"
    if one.failed or other.failed:
        return "it failed on one of the boards"
    for evaluator in set(one.scores) & set(other.scores):
        for seed in set(one.scores[evaluator]) & set(other.scores[evaluator]):
            if sorted(map(_line, one.scores[evaluator][seed])) != sorted(map(_line, other.scores[evaluator][seed])):
                return f"seed {seed} has other scores of {evaluator}"
    return None


def _line(score: Score) -> tuple[Any, ...]:
    return score.example, score.metric, score.sample, score.value


def _pooled(one: RowResult, other: RowResult) -> RowResult:
    scores = {
        evaluator: {**other.scores.get(evaluator, {}), **one.scores.get(evaluator, {})}
        for evaluator in {**one.scores, **other.scores}
    }
    models = {**other.provenance.get("models", {}), **one.provenance.get("models", {})}
    return replace(
        one,
        scores=scores,
        costs={**other.costs, **one.costs},
        curves={**other.curves, **one.curves},
        provenance={**other.provenance, **one.provenance, **({"models": models} if models else {})},
    )


def recipe(row: RowResult | RowEntry | None) -> Any:
    """What a row was made by, whatever its seeds."""
    if row is None:
        return None
    kept = ("method", "model", "rounds", "seed_offset", "backend", "source", "table")
    return row.data, row.objective, row.rounds, {key: row.provenance[key] for key in kept if key in row.provenance}
