"""Other tools' results as rows of a board, new or there already, compared like any other row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.leaderboard.board import Derived, build_board
from harness.leaderboard.comparison import RowResult
from harness.leaderboard.files import Scores
from harness.leaderboard.schema import Board, ExampleRow, RowEntry, board_scores
from harness.leaderboard.verify import not_made_again, row_before_statistics
from harness.types import Imported, Metric, Score

SHOWN_EXAMPLES = 40
DESCRIPTION = "Results of other tools, compared example by example."
TRAINED = ("measured", "control", "null")
COMPARED = ("versions", "shots", "opponents")  # of an import's facts


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
        DataError: nothing was found; a label is taken; the existing board has no scores per example.
    """
    if not found:
        raise DataError(f"{', '.join(map(str, request.files))}: nothing in there that {request.tool} reads")
    old = _Old.read(existing)
    named = [replace(item, label=request.labels.get(item.label, item.label)) for item in found]
    rows = _merged(old.rows, named, request)
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
        warnings=list(dict.fromkeys([*old.said(), *_said(named), *_version_warnings(rows, baseline)])),
        mixed_judges=request.allow_mixed_judges or old.mixed_judges,
        derived=old.derived,
    )
    return board.model_copy(update={"rows": tuple(old.with_costs(row) for row in board.rows)})


@dataclass(frozen=True)
class _Old:
    """A board that is there already, taken apart; empty where there is none."""

    board: Board | None = None
    scores: Scores = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path | None) -> _Old:
        return cls() if folder is None else cls(Board.read(folder), board_scores(folder))

    @property
    def rows(self) -> list[RowResult]:
        return [row_before_statistics(entry, self.scores) for entry in self.board.rows] if self.board else []

    @property
    def mixed_judges(self) -> bool:
        return bool(self.board and (self.board.config.get("judge") or {}).get("allow_mixed_judges"))

    @property
    def derived(self) -> list[Derived]:
        """Metrics over all its rows together, which scores per example do not give."""
        if self.board is None:
            return []
        return [
            Derived(metric, {row.method: row.scores[metric.key] for row in self.board.rows if metric.key in row.scores})
            for metric in not_made_again(self.board, self.scores)
        ]

    @property
    def metrics(self) -> dict[str, list[Metric]]:
        """By evaluator; of those that are made from scores."""
        found: dict[str, list[Metric]] = {}
        over_rows = {item.metric.key for item in self.derived}
        for entry in self.board.metrics if self.board else ():
            evaluator, _, name = entry.key.partition("/")
            if entry.key not in over_rows:
                metric = Metric(name, entry.description, entry.higher_is_better, entry.primary)
                found.setdefault(evaluator, []).append(metric)
        return found

    def said(self) -> list[str]:
        """Its warnings but for those that comparing its rows gives, which are given again."""
        if self.board is None:
            return []
        again = build_board(
            name=self.board.name, description="", config={}, baseline=self.board.baseline, rows=self.rows,
            metrics=self.metrics, examples=(), sharing={}, created="", warnings=(), mixed_judges=self.mixed_judges,
        )  # fmt: skip
        return [text for text in self.board.warnings if text not in again.warnings]

    def with_costs(self, row: RowEntry) -> RowEntry:
        """A row with what its scores do not say: costs, budget and curves of before."""
        before = self.board.row(row.method) if self.board else None
        if before is None:
            return row
        kept = {"cost": before.cost, "budget": before.budget, "curves": before.curves, "seeds": before.seeds}
        return row.model_copy(update=kept if row.kind == before.kind else {})


def _merged(rows: Sequence[RowResult], found: Sequence[Imported], request: ImportRequest) -> list[RowResult]:
    """The rows with the imported ones; results of one model for several evaluators are one row.

    An imported row gets a seed that no trained row has: it was not trained with it, and nothing is paired by it.
    """
    merged = {row.label: row for row in rows}
    seeds = {seed for row in rows if row.kind in TRAINED for runs in row.scores.values() for seed in runs}
    seed = next(number for number in range(len(seeds) + 1) if number not in seeds)
    files = [{"name": path.name, "sha256": _hash(path)} for path in request.files if path.is_file()]
    for item in found:
        row = merged.get(item.label)
        there = _there(row, item)
        before = row.provenance if row else {}
        read = {"tool": request.tool, "evaluator": item.evaluator, "files": files}
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


def _metrics(old: _Old, found: Iterable[Imported]) -> dict[str, list[Metric]]:
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


def _description(old: _Old, rows: Iterable[RowResult]) -> str:
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


def _config(old: _Old, request: ImportRequest) -> dict[str, Any]:
    config = dict(old.board.config) if old.board else {}
    if request.allow_mixed_judges:
        config["judge"] = {**(config.get("judge") or {}), "allow_mixed_judges": True}
    return config


def _version_warnings(rows: Sequence[RowResult], baseline: str) -> Iterator[str]:
    """Tasks that two rows took in different versions, or with different shots."""
    base = next((row for row in rows if row.label == baseline), None)
    for row in rows if base else ():
        for evaluator in row.provenance.get("notes", {}) if row is not base else ():
            for fact in COMPARED:
                ours, theirs = (_fact(side, evaluator, fact) for side in (row, base))
                for task in sorted(set(ours) & set(theirs)):
                    if str(ours[task]) != str(theirs[task]):
                        said = f"{fact} {ours[task]} of {task} and {baseline} {theirs[task]}"
                        yield f"{row.label} has {said}, by {evaluator}: their difference may be that of the task."


def _fact(row: RowResult | None, evaluator: str, fact: str) -> dict[str, Any]:
    notes = row.provenance.get("notes", {}).get(evaluator, {}) if row else {}
    return {task: value for noted in notes.values() for task, value in (noted.get(fact) or {}).items()}


def _hash(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
