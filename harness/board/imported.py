"""Other tools' results as rows, beside those that are there already."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.board.result import RowResult
from harness.api.types import Imported, Score

TRAINED = ("measured", "control", "null")


def with_imported(rows: Sequence[RowResult], found: Sequence[Imported], tool: str, paths: Sequence[Path]) -> list[RowResult]:
    """The rows with the imported ones; results of one model for several evaluators are one row.

    An imported row gets a seed that no trained row has: it was not trained with it, and nothing is paired by it.
    """
    merged = {row.label: row for row in rows}
    seeds = {seed for row in rows if row.kind in TRAINED for runs in row.scores.values() for seed in runs}
    seed = next(number for number in range(len(seeds) + 1) if number not in seeds)
    hashed = cache(_hash)
    for item in found:
        row = merged.get(item.label)
        there = _there(row, item)
        before = row.provenance if row else {}
        files = [{"name": path.name, "sha256": hashed(path)} for path in dict.fromkeys(item.files or paths) if path.is_file()]
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
            kind="imported" if item.whole else "published",
            scores={**(row.scores if row else {}), item.evaluator: {seed: (*there, *item.scores)}},
            costs={},
            budget={},
            provenance=provenance,
        )
    return list(merged.values())


def named_apart(found: Sequence[Imported], rows: Sequence[RowResult]) -> list[Imported]:
    """Numbers without values per example under a name of their own, where a row with such values has theirs."""
    taken = {item.label for item in found if item.whole} | {row.label for row in rows if row.kind == "imported"}
    apart = [not item.whole and item.label in taken for item in found]
    return [replace(item, label=f"{item.label} (figures)") if own else item for item, own in zip(found, apart, strict=True)]


def check_models(found: Sequence[Imported], rows: Sequence[RowResult]) -> None:
    """Refuse to make one row of two models whose short names are the same.

    Raises:
        DataError: names the row, with the fix.
    """
    known = {(row.label, name): _models(notes) for row in rows for name, notes in row.provenance.get("notes", {}).items()}
    for item in found:
        there = known.get((item.label, item.evaluator), set())
        if there and item.facts.get("model_hash", "") not in {*there, ""}:
            fix = f"--label '{item.label}=ANOTHER NAME', or '{item.label}={item.label}' if it is the same one elsewhere"
            raise DataError(f"the row {item.label!r} is another model, whose path ends alike: give this one {fix}")


def _models(notes: Mapping[str, Any]) -> set[str]:
    return {facts["model_hash"] for facts in notes.values() if "model_hash" in facts}


def _there(row: RowResult | None, item: Imported) -> tuple[Score, ...]:
    """What a row has of the same evaluator: pairs beside single answers, say.

    Raises:
        DataError: the row is no import, has values of the same examples, or has none where these have.
    """
    if row is None:
        return ()
    there = tuple(score for scores in row.scores.get(item.evaluator, {}).values() for score in scores)
    again = {(score.example, score.metric) for score in there} & {(score.example, score.metric) for score in item.scores}
    mixed = item.whole == (row.kind == "published")
    if row.kind in TRAINED or again or mixed:
        without = "without" if item.whole else "with"
        imported = f"there {without} values per example" if mixed else f"there with scores of {item.evaluator}"
        what = "trained here" if row.kind in TRAINED else imported
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
