"""Other tools' results as rows of a board, new or there already, compared like any other row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any

from harness.api.types import Imported, Metric, Score
from harness.board.board import Board, ExampleRow
from harness.board.build import build_board
from harness.board.compare import RowResult
from harness.board.entries import LARGEST
from harness.board.merge import Existing
from harness.errors import DataError

TRAINED = ("measured", "control", "null")


SHOWN_EXAMPLES = 40


DESCRIPTION = "Results of other tools, compared example by example."


COMPARED = ("versions", "shots", "limit", "chat_template", "documents", "opponents")  # of an import's facts


@dataclass(frozen=True)
class ImportRequest:
    """What a person asks for.

    Attributes:
        tool: the importer's name.
        files: what was read, for the provenance.
        labels: other names for rows: the tool's -> the board's.
        baseline: the row that all are compared with; the board's own, or the first, if None.
        allow_mixed_judges: compare rows although different judges marked them.
        examples: show prompts and answers; without, the board holds numbers and names of examples, and no text of the files.
    """

    tool: str
    files: Sequence[Path]
    created: str
    labels: Mapping[str, str] = field(default_factory=dict)
    baseline: str | None = None
    allow_mixed_judges: bool = False
    examples: bool = True


def import_rows(found: Sequence[Imported], request: ImportRequest, name: str, existing: Path | None = None) -> Board:
    """A board with the imported rows, and with those of the board in the folder `existing`.

    Raises:
        DataError: nothing was found; a value cannot be shown; a label is taken; the existing board has no scores per example.
    """
    if not found:
        raise DataError(f"{', '.join(map(str, request.files))}: nothing in there that {request.tool} reads")
    old = Existing.read(existing)
    _check_values(found, request)
    check_models([item for item in found if item.label not in request.labels], old.rows)
    named = named_apart([replace(item, label=request.labels.get(item.label, item.label)) for item in found], old.rows)
    rows = with_imported(old.rows, named, request.tool, request.files)
    baseline = request.baseline or (old.board.baseline if old.board else named[0].label)
    board = build_board(
        name=old.board.name if old.board else name,
        description=_description(old, rows),
        config=_config(old, request),
        baseline=baseline,
        rows=rows,
        metrics=_metrics(old, named),
        examples=_examples(old.board.example_rows if old.board else (), named if request.examples else ()),
        sharing=old.board.sharing if old.board else {},
        created=request.created,
        warnings=list(dict.fromkeys([*_still_said(old), *_said(named), *_version_warnings(rows, baseline)])),
        mixed_judges=request.allow_mixed_judges or old.mixed_judges,
        derived=old.derived,
    )
    return board.model_copy(update={"rows": tuple(old.with_costs(row) for row in board.rows)})


def _check_values(found: Iterable[Imported], request: ImportRequest) -> None:
    """Refuse numbers that no board can hold. Among values per example NaN and infinity are holes, which the board counts."""
    for item in found:
        for score in item.scores:
            hole = item.whole and not isfinite(score.value)
            if not (hole or abs(score.value) <= LARGEST):
                where = f"{', '.join(map(str, item.files or request.files))}: {score.metric} of {item.label} ({score.example})"
                raise DataError(f"{where} = {score.value:g}: it should be a finite number up to {LARGEST:g}")


def _metrics(old: Existing, found: Iterable[Imported]) -> dict[str, list[Metric]]:
    metrics = old.metrics
    for item in found:
        known = metrics.setdefault(item.evaluator, [])
        names = {metric.name for metric in known}
        known += [metric for metric in item.metrics if metric.name not in names]
    return metrics


def _examples(before: Iterable[ExampleRow], found: Iterable[Imported]) -> list[ExampleRow]:
    """The first answers of each evaluator, the rows' side by side."""
    shown = {example.id: example for example in before}
    for item in found:
        for name, (prompt, target, answer) in list(item.answers.items())[:SHOWN_EXAMPLES]:
            example = shown.get(name) or ExampleRow(name, prompt, target, {})
            shown[name] = replace(example, answers={**example.answers, item.label: answer})
    return list(shown.values())


def _description(old: Existing, rows: Iterable[RowResult]) -> str:
    """A board's own words, or who judged what."""
    if old.board and not old.board.description.startswith(DESCRIPTION):
        return old.board.description
    judges = {f"{name} by {judge['model']}" for row in rows for name, judge in row.provenance.get("judges", {}).items()}
    return f"{DESCRIPTION} Judged: {'; '.join(sorted(judges))}." if judges else DESCRIPTION


def _said(found: Iterable[Imported]) -> Iterator[str]:
    """What the importer says of the files, with the rows that it says it of."""
    labels: dict[str, list[str]] = {}
    for item in found:
        for warning in item.warnings:
            labels.setdefault(warning, []).append(item.label)
    for warning, rows in labels.items():
        yield f"{', '.join(rows)}: {warning}"


def _config(old: Existing, request: ImportRequest) -> dict[str, Any]:
    config = dict(old.board.config) if old.board else {}
    if request.allow_mixed_judges:
        config["judge"] = {**(config.get("judge") or {}), "allow_mixed_judges": True}
    return config


def _still_said(old: Existing) -> Iterator[str]:
    """The warnings of the board that is there, but for those that its rows with the new ones give again."""
    again = set(_version_warnings(old.rows, old.board.baseline)) if old.board else set()
    yield from (text for text in old.said() if text not in again)


def _version_warnings(rows: Sequence[RowResult], baseline: str) -> Iterator[str]:
    """Tasks that two rows took in different versions, with different shots, or with other documents."""
    base = next((row for row in rows if row.label == baseline), None)
    for row in rows if base else ():
        for evaluator in row.provenance.get("notes", {}) if row is not base else ():
            for fact in COMPARED:
                for (own, other), tasks in _differing(row, base, evaluator, fact).items():
                    said = f"{fact} {own} of {', '.join(tasks)} and {baseline} {other}"
                    yield f"{row.label} has {said}, by {evaluator}: their difference may be that of the task."


def _differing(row: RowResult, base: RowResult | None, evaluator: str, fact: str) -> dict[tuple[str, str], list[str]]:
    """What a row and the baseline have of a fact -> the tasks of which they differ in that way."""
    ours, theirs = (_fact(side, evaluator, fact) for side in (row, base))
    found: dict[tuple[str, str], list[str]] = {}
    for task in sorted(set(ours) & set(theirs)):
        # two rows that met only each other differ in this by what a pair is
        each_other = fact == "opponents" and base is not None and (ours[task], theirs[task]) == (base.label, row.label)
        if str(ours[task]) != str(theirs[task]) and not each_other:
            found.setdefault((_word(ours[task]), _word(theirs[task])), []).append(task)
    return found


def _word(value: Any) -> str:
    return {"None": "none", "True": "yes", "False": "no"}.get(str(value), str(value))


def _fact(row: RowResult | None, evaluator: str, fact: str) -> dict[str, Any]:
    """By task; what was noted once holds of all tasks that have a version."""
    notes = row.provenance.get("notes", {}).get(evaluator, {}) if row else {}
    found: dict[str, Any] = {}
    for noted in notes.values():
        if fact in noted:
            value = noted[fact]
            found |= value if isinstance(value, Mapping) else dict.fromkeys(noted.get("versions") or (), value)
    return found


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
