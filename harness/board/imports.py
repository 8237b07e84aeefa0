"""Import results of other tools as rows of a new or an existing board, compared like any other row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from math import isfinite
from pathlib import Path

from harness.api.types import Imported, Metric, Score
from harness.board.board import Board, ExampleRow, board_scores
from harness.board.build import LoadedBoard, build_board
from harness.board.compare import RowResult
from harness.board.entries import LARGEST
from harness.board.facts import EvaluatorNotes, ImportedFiles, JudgeEntry, Provenance, SharingFacts
from harness.board.files import bounded
from harness.errors import DataError

DESCRIPTION = "Results of other tools, compared example by example."
COMPARED = ("versions", "shots", "limit", "chat_template", "documents", "opponents")  # of an import's facts


@dataclass(frozen=True)
class ImportRequest:
    """A request to import files of another tool.

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
    """Return a board with the imported rows, and with those of the board in the folder `existing`.

    Raises:
        DataError: nothing was found; a value cannot be shown; a label is taken; the existing board has no scores per example.
    """
    if not found:
        raise DataError(f"{', '.join(map(str, request.files))}: nothing in there that {request.tool} reads")
    old = None if existing is None else LoadedBoard(Board.read(existing), board_scores(existing), str(existing))
    old_rows = old.rows if old else []
    _check_values(found, request)
    check_models([item for item in found if item.label not in request.labels], old_rows)
    named = named_apart([replace(item, label=request.labels.get(item.label, item.label)) for item in found], old_rows)
    rows = with_imported(old_rows, named, request.tool, request.files)
    baseline = request.baseline or (old.board.baseline if old else named[0].label)
    warnings = [
        *(_lasting_warnings(old) if old else ()),
        *_importer_warnings(named),
        *_version_warnings(rows, baseline),
    ]
    board = build_board(
        name=old.board.name if old else name,
        description=_description(old, rows),
        config=_config(old, request),
        baseline=baseline,
        rows=rows,
        metrics=_metrics(old, named),
        examples=_examples(old.board.example_rows if old else (), named if request.examples else ()),
        sharing=old.board.sharing if old else SharingFacts(),
        created=request.created,
        warnings=list(dict.fromkeys(warnings)),
        mixed_judges=request.allow_mixed_judges or bool(old and old.board.mixed_judges),
        derived=old.derived if old else (),
    )
    if old is None:
        return board.sealed()
    board = board.model_copy(update={"rows": tuple(old.with_costs(row) for row in board.rows)})
    return board.sealed(old.board.evidence.runs if old.board.evidence else ())


def _check_values(found: Iterable[Imported], request: ImportRequest) -> None:
    """Refuse numbers that no board can hold. Among values per example NaN and infinity are holes, which the board counts."""
    for item in found:
        for score in item.scores:
            hole = item.whole and not isfinite(score.value)
            if not (hole or abs(score.value) <= LARGEST):
                where = f"{', '.join(map(str, item.files or request.files))}: {score.metric} of {item.label} ({score.example})"
                raise DataError(f"{where} = {score.value:g}: it should be a finite number up to {LARGEST:g}")


def _metrics(old: LoadedBoard | None, found: Iterable[Imported]) -> dict[str, list[Metric]]:
    """Return the metrics of the existing board and of the imports.

    Raises:
        DataError: the existing board has values of a metric that are no pseudo-values, where these are.
    """
    metrics = old.metrics if old else {}
    for item in found:
        known = metrics.setdefault(item.evaluator, [])
        names = {metric.name: metric for metric in known}
        for metric in item.metrics:
            if metric.name not in names:
                known.append(metric)
            elif names[metric.name].fit != metric.fit and old is not None:
                raise DataError(
                    f"{old.name}: its scores of {item.evaluator}/{metric.name} are of an earlier version, which had another "
                    "error: make that board again, then import"
                )
    return metrics


def _examples(before: Iterable[ExampleRow], found: Iterable[Imported]) -> list[ExampleRow]:
    """Return the examples of each evaluator, with the answers of all rows side by side, as many as a board has room for."""
    shown = {example.id: example for example in before}
    for item in found:
        for name, (prompt, target, answer) in item.answers.items():
            example = shown.get(name) or ExampleRow(name, prompt, target, {})
            shown[name] = replace(example, answers={**example.answers, item.label: answer})
    return bounded(shown.values())


def _description(old: LoadedBoard | None, rows: Iterable[RowResult]) -> str:
    """Return the board's own description, or which judge marked for which evaluator."""
    if old and not old.board.description.startswith(DESCRIPTION):
        return old.board.description
    judges = {f"{name} by {judge.model}" for row in rows for name, judge in row.provenance.judges.items()}
    return f"{DESCRIPTION} Judged: {'; '.join(sorted(judges))}." if judges else DESCRIPTION


def _importer_warnings(found: Iterable[Imported]) -> Iterator[str]:
    """Yield the importer's warnings, each prefixed with the rows it applies to."""
    labels: dict[str, list[str]] = {}
    for item in found:
        for warning in item.warnings:
            labels.setdefault(warning, []).append(item.label)
    for warning, rows in labels.items():
        yield f"{', '.join(rows)}: {warning}"


def _config(old: LoadedBoard | None, request: ImportRequest) -> dict[str, object]:
    config = dict(old.board.config) if old else {}
    if request.allow_mixed_judges:
        config["judge"] = {**(config.get("judge") or {}), "allow_mixed_judges": True}
    return config


def _lasting_warnings(old: LoadedBoard) -> Iterator[str]:
    """Yield the warnings of the existing board without those that its rows give again together with the new ones."""
    again = set(_version_warnings(old.rows, old.board.baseline))
    yield from (text for text in old.lasting_warnings if text not in again)


def _version_warnings(rows: Sequence[RowResult], baseline: str) -> Iterator[str]:
    """Warn about tasks that a row and the baseline took in different versions, with other few-shot counts or documents."""
    base = next((row for row in rows if row.label == baseline), None)
    for row in rows if base else ():
        for evaluator in row.provenance.notes if row is not base else ():
            for fact in COMPARED:
                for (value, base_value), tasks in _differing(row, base, evaluator, fact).items():
                    sentence = f"{fact} {value} of {', '.join(tasks)} and {baseline} {base_value}"
                    yield f"{row.label} has {sentence}, by {evaluator}: their difference may be that of the task."


def _differing(row: RowResult, base: RowResult | None, evaluator: str, fact: str) -> dict[tuple[str, str], list[str]]:
    """Return (the row's value, the baseline's value) of a fact -> the tasks on which they differ so."""
    ours, theirs = (_fact(side, evaluator, fact) for side in (row, base))
    tasks: dict[tuple[str, str], list[str]] = {}
    for task in sorted(set(ours) & set(theirs)):
        # two rows that met only each other differ in this by what a pair is
        each_other = fact == "opponents" and base is not None and (ours[task], theirs[task]) == (base.label, row.label)
        if str(ours[task]) != str(theirs[task]) and not each_other:
            tasks.setdefault((_word(ours[task]), _word(theirs[task])), []).append(task)
    return tasks


def _word(value: object) -> str:
    return {"None": "none", "True": "yes", "False": "no"}.get(str(value), str(value))


def _fact(row: RowResult | None, evaluator: str, fact: str) -> dict[str, object]:
    """Return a fact by task; one that was noted once holds for all tasks with a version."""
    notes = row.provenance.notes.get(evaluator, {}) if row else {}
    by_task: dict[str, object] = {}
    for noted in notes.values():
        if fact in noted:
            value = noted[fact]
            by_task |= value if isinstance(value, Mapping) else dict.fromkeys(noted.versions or (), value)
    return by_task


def with_imported(rows: Sequence[RowResult], found: Sequence[Imported], tool: str, paths: Sequence[Path]) -> list[RowResult]:
    """Return the rows with the imported ones; results of one model for several evaluators are one row.

    An imported row gets a seed that no trained row has: it was not trained with it, and nothing is paired by it.
    """
    merged = {row.label: row for row in rows}
    seeds = {seed for row in rows if row.is_evaluated_here for runs in row.scores.values() for seed in runs}
    seed = next(number for number in range(len(seeds) + 1) if number not in seeds)
    hashed = cache(_hash)
    for item in found:
        row = merged.get(item.label)
        before = _scores_before(row, item)
        files = [{"name": path.name, "sha256": hashed(path)} for path in dict.fromkeys(item.files or paths) if path.is_file()]
        read = ImportedFiles(tool=tool, evaluator=item.evaluator, files=files)
        merged[item.label] = RowResult(
            label=item.label,
            data=None,
            objective=None,
            rounds=0,
            kind="imported" if item.whole else "published",
            scores={**(row.scores if row else {}), item.evaluator: {seed: (*before, *item.scores)}},
            costs={},
            budget={},
            provenance=_provenance(row.provenance if row else Provenance(), item, read, seed),
        )
    return list(merged.values())


def named_apart(found: Sequence[Imported], rows: Sequence[RowResult]) -> list[Imported]:
    """Rename results without values per example where a row with such values has the same name."""
    taken = {item.label for item in found if item.whole} | {row.label for row in rows if row.is_imported}
    return [
        replace(item, label=f"{item.label} (figures)") if not item.whole and item.label in taken else item for item in found
    ]


def check_models(found: Sequence[Imported], rows: Sequence[RowResult]) -> None:
    """Refuse to make one row of two models whose short names are the same.

    Raises:
        DataError: names the row, with the fix.
    """
    known = {
        (row.label, evaluator): {note.model_hash for note in notes.values() if note.model_hash is not None}
        for row in rows
        for evaluator, notes in row.provenance.notes.items()
    }
    for item in found:
        hashes = known.get((item.label, item.evaluator), set())
        if hashes and item.facts.get("model_hash", "") not in {*hashes, ""}:
            fix = f"--label '{item.label}=ANOTHER NAME', or '{item.label}={item.label}' if it is the same one elsewhere"
            raise DataError(f"the row {item.label!r} is another model, whose path ends alike: give this one {fix}")


def _scores_before(row: RowResult | None, item: Imported) -> tuple[Score, ...]:
    """Return the scores that a row has from the same evaluator already: pairs beside single answers, say.

    Raises:
        DataError: the row is no import, has values of the same examples, or has none where these have.
    """
    if row is None:
        return ()
    scores = tuple(score for run in row.scores.get(item.evaluator, {}).values() for score in run)
    again = {(score.example, score.metric) for score in scores} & {(score.example, score.metric) for score in item.scores}
    mixed = item.whole == row.is_published
    if row.is_evaluated_here or again or mixed:
        without = "without" if item.whole else "with"
        imported = f"there {without} values per example" if mixed else f"there with scores of {item.evaluator}"
        what = "evaluated here" if row.is_evaluated_here else imported
        raise DataError(f"the row {item.label!r} is already {what}: give this one another name with --label")
    return scores


def _provenance(before: Provenance, item: Imported, read: ImportedFiles, seed: int) -> Provenance:
    """Return a row's provenance with an import: the files, the judge, and the facts that the importer read."""
    evaluator = item.evaluator
    facts: dict[str, object] = {"imported": [*before.imported, *([read] if read not in before.imported else [])]}
    known = before.judges.get(evaluator, JudgeEntry())
    judges, notes = dict(before.judges), dict(before.notes)
    if versions := sorted({*known.versions, item.judge} - {""}):
        judges[evaluator] = JudgeEntry(model=", ".join(versions), versions=versions)
    if note := _note(before.notes.get(evaluator, {}).get(str(seed), EvaluatorNotes()), item):
        notes[evaluator] = {str(seed): note}
    return Provenance.read(facts | ({"judges": judges} if judges else {}) | ({"notes": notes} if notes else {}))


def _note(known: EvaluatorNotes, item: Imported) -> EvaluatorNotes:
    """Return the facts of single answers and of pairs together."""
    facts = {**known, **item.facts}
    for name, value in item.facts.items():
        before = known.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            facts[name] = {**before, **value}
    return EvaluatorNotes.read(facts)


def _hash(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
