"""Several boards as one: rows that answered the same prompts are compared again, paired, as if they had run together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.errors import DataError
from harness.board.build import build_board
from harness.board.disagreements import caveats, disagreements
from harness.board.files import digest
from harness.board.part import Part
from harness.board.pool import pooled_rows
from harness.board.result import RowResult
from harness.board.board import Board, ExampleRow
from harness.api.types import Metric


def merge(parts: Sequence[Part], *, name: str, created: str) -> Board:
    """One board with the rows of all, the baseline's seeds pooled, every difference and family of tests made anew.

    Raises:
        DataError: the boards differ in what makes their numbers comparable; the message names all of it.
    """
    measured = [part for part in parts if not part.published]
    if not measured:
        if len(parts) == 1:
            return parts[0].board
        raise DataError("published tables alone are never one comparison: give one of them, or a measured board too")
    first, printed = measured[0], [part for part in parts if part.published]
    metrics = _metrics(measured)
    _check_comparable(measured, printed, metrics)
    rows, warnings = pooled_rows([*measured, *printed], first.board.baseline)
    left_out = sorted({key for part in measured for key in part.derived})
    if left_out:
        warnings.append(f"Left out, since they are computed over all rows of one board: {', '.join(left_out)}.")
    return build_board(
        name=name,
        description=f"Merged from {', '.join(part.board.name for part in parts)}. {first.board.description}",
        config=_config(measured, name),
        baseline=first.board.baseline,
        rows=rows,
        metrics=metrics,
        examples=_examples(measured, rows),
        sharing={"merged": [_source(part) for part in parts]},
        created=created,
        warnings=[*warnings, *caveats(measured), *dict.fromkeys(text for part in measured for text in _carried(part))],
        mixed_judges=all(bool((part.board.config.get("judge") or {}).get("allow_mixed_judges")) for part in measured),
    )


def _check_comparable(measured: Sequence[Part], printed: Sequence[Part], metrics: Mapping[str, Sequence[Metric]]) -> None:
    """Of measured boards that they are one comparison, of published tables that there is something to show side by side."""
    first = measured[0]
    problems = [problem for part in measured[1:] for problem in disagreements(first, part)]
    if problems:
        raise DataError("these boards are not one comparison:\n" + "\n".join(f"  - {problem}" for problem in problems))
    shown = {f"{evaluator}/{metric.name}" for evaluator, listed in metrics.items() for metric in listed}
    for part in printed:
        if not shown & {metric.key for metric in part.board.metrics}:
            raise DataError(f"{part.name} has no metric of {first.name}: there is nothing to show side by side")


def _config(measured: Sequence[Part], name: str) -> dict[str, Any]:
    """The first board's, with the methods of all."""
    config = dict(measured[0].board.config) | {"name": name}
    if all("methods" in part.board.config for part in measured):
        config["methods"] = [entry for part in measured for entry in part.board.config["methods"]]
    return config


def _metrics(parts: Sequence[Part]) -> dict[str, list[Metric]]:
    """Per evaluator, those that have scores per example; the first board's order and choice of primary ones."""
    found: dict[str, list[Metric]] = {}
    for part in parts:
        derived = part.derived
        for entry in part.board.metrics:
            evaluator, _, name = entry.key.partition("/")
            listed = found.setdefault(evaluator, [])
            if entry.key not in derived and name not in {metric.name for metric in listed}:
                listed.append(Metric(name, entry.description, entry.higher_is_better, entry.primary))
    return {evaluator: listed for evaluator, listed in found.items() if listed}


def _examples(parts: Sequence[Part], rows: Sequence[RowResult]) -> list[ExampleRow]:
    """By id; the answers of a row that was renamed stand under its new name."""
    found: dict[str, ExampleRow] = {}
    labels = {row.label for row in rows}
    for part in parts:
        for example in part.board.example_rows:
            old = found.get(example.id)
            answers: dict[str, str] = dict(old.answers) if old else {}
            for label, text in example.answers.items():
                renamed = f"{label} ({part.board.name})"
                answers.setdefault(renamed if label in answers and renamed in labels else label, text)
            found[example.id] = replace(old or example, answers=answers)
    return list(found.values())


def _source(part: Part) -> dict[str, Any]:
    board = part.board
    content = digest(board.to_json().encode("utf-8"))
    return {"name": board.name, "created": board.created, "sha256": content, "rows": len(board.rows)}


def _carried(part: Part) -> Iterator[str]:
    """What a board said of its own rows before the statistics, which are made anew."""
    labels = [row.method for row in part.board.rows]
    for warning in part.board.warnings:
        if any(warning.startswith(f"{label}, seed") for label in labels):
            yield warning
