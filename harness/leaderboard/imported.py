"""Other tools' results as rows, beside those that are there already."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.leaderboard.result import RowResult
from harness.types import Imported, Score

TRAINED = ("measured", "control", "null")


def with_imported(rows: Sequence[RowResult], found: Sequence[Imported], tool: str, paths: Sequence[Path]) -> list[RowResult]:
    """The rows with the imported ones; results of one model for several evaluators are one row.

    An imported row gets a seed that no trained row has: it was not trained with it, and nothing is paired by it.
    """
    merged = {row.label: row for row in rows}
    seeds = {seed for row in rows if row.kind in TRAINED for runs in row.scores.values() for seed in runs}
    seed = next(number for number in range(len(seeds) + 1) if number not in seeds)
    files = [{"name": path.name, "sha256": _hash(path)} for path in paths if path.is_file()]
    for item in found:
        row = merged.get(item.label)
        there = _there(row, item)
        before = row.provenance if row else {}
        read = {"tool": tool, "evaluator": item.evaluator, "files": files}
        provenance = {
            "imported": [*before.get("imported", []), *([read] if read not in before.get("imported", []) else [])],
            **_with(before, "judges", _judged(before, item)),
            **_with(before, "notes", _noted(before, item, seed)),
        }
        merged[item.label] = RowResult(
            label=item.label,
            data=None,
            objective=None,
            rounds=0,
            kind="imported" if item.whole or (row and row.kind == "imported") else "published",
            scores={**(row.scores if row else {}), item.evaluator: {seed: (*there, *item.scores)}},
            costs={},
            budget={},
            provenance=provenance,
        )
    return list(merged.values())


def _there(row: RowResult | None, item: Imported) -> tuple[Score, ...]:
    """What a row has of the same evaluator: pairs beside single answers, say.

    Raises:
        DataError: the row is no import, or has values of the same examples.
    """
    if row is None:
        return ()
    there = tuple(score for scores in row.scores.get(item.evaluator, {}).values() for score in scores)
    again = {(score.example, score.metric) for score in there} & {(score.example, score.metric) for score in item.scores}
    if row.kind in TRAINED or again:
        what = "trained here" if row.kind in TRAINED else f"there with scores of {item.evaluator}"
        raise DataError(f"the row {item.label!r} is already {what}: give this one another name with --label")
    return there


def _judged(before: Mapping[str, Any], item: Imported) -> dict[str, Any]:
    known = before.get("judges", {}).get(item.evaluator, {}).get("versions", ())
    versions = sorted({*known, item.judge} - {""})
    return {item.evaluator: {"model": ", ".join(versions), "versions": versions}} if versions else {}


def _noted(before: Mapping[str, Any], item: Imported, seed: int) -> dict[str, Any]:
    """The facts, those of single answers and of pairs together."""
    known = before.get("notes", {}).get(item.evaluator, {}).get(str(seed), {})
    facts = {**known, **item.facts}
    both = [name for name in facts if isinstance(known.get(name), dict) and isinstance(item.facts.get(name), dict)]
    facts |= {name: {**known[name], **item.facts[name]} for name in both}
    return {item.evaluator: {str(seed): facts}} if facts else {}


def _with(before: Mapping[str, Any], name: str, more: Mapping[str, Any]) -> dict[str, Any]:
    whole = {**before.get(name, {}), **more}
    return {name: whole} if whole else {}


def _hash(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
