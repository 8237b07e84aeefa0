"""Whether a board says what its scores say: every statistic and hash made again, so that nobody has to be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from math import isclose
from pathlib import Path
from typing import Any

from harness.board.analysis import analyse
from harness.board.board import Board, MetricEntry, board_scores
from harness.board.build import row_entry
from harness.board.compare import Comparison, row_before_statistics
from harness.board.files import SCORES, Scores, digest
from harness.board.views.markdown import is_published

RELATIVE, ABSOLUTE = 1e-6, 1e-9  # matrix products differ in their last digits between machines


def verify(path: Path) -> list[str]:
    """Everything that does not hold, each in a sentence; nothing where the board holds.

    Means, intervals, differences, p-values, corrections, ranks, win shares, agreement and power are made again from
    `scores.parquet`; the hashes of the files beside the board are taken again.

    Raises:
        DataError: the board or its scores cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    board = Board.read(path)
    if is_published(board):  # there is nothing to make again
        return list(_files(board, folder, {board.examples}))
    scores = board_scores(path)
    problems = list(_files(board, folder, {board.examples, SCORES}))
    unknown = sorted(set(scores) - {row.method for row in board.rows})
    problems += [f"{SCORES} has scores of {label!r}, which is no row of the board" for label in unknown]
    rows = [row_before_statistics(entry, scores) for entry in board.rows]
    if board.baseline not in {row.label for row in rows}:
        return [*problems, f"the baseline {board.baseline!r} is no row of the board"]
    derived = {metric.key for metric in not_made_again(board, scores)}
    metrics = [metric for metric in board.metrics if metric.key not in derived]
    mixed = bool((board.config.get("judge") or {}).get("allow_mixed_judges"))
    comparison = Comparison(rows, metrics, board.baseline, mixed_judges=mixed)
    for entry, row in zip(board.rows, rows, strict=True):
        made = {key: score.model_dump(mode="json") for key, score in row_entry(comparison, row).scores.items()}
        said = {key: score.model_dump(mode="json") for key, score in entry.scores.items() if key not in derived}
        problems += _differ(said, made, f"{entry.method}: ")
    said_of_all = board.analysis.model_dump(mode="json") if board.analysis else {}
    problems += _differ(said_of_all, analyse(comparison)[0].model_dump(mode="json"), "analysis: ")
    families = [family.model_dump(mode="json") for family in comparison.correction.families]
    told = [family.model_dump(mode="json") for family in board.statistics.families or ()]
    return [*problems, *_differ(told, families, "statistics.families: ")]


def not_made_again(board: Board, scores: Scores) -> list[MetricEntry]:
    """Metrics that rows have on the board without any score per example: computed over all rows together, or made up."""
    scored = {
        f"{evaluator}/{score.metric}"
        for runs in scores.values()
        for evaluator, seeds in runs.items()
        for found in seeds.values()
        for score in found
    }
    shown = {key for row in board.rows for key in row.scores}
    return [metric for metric in board.metrics if metric.key in shown - scored]


def _files(board: Board, folder: Path, expected: set[str]) -> Iterator[str]:
    named = board.files or {}
    for name in sorted(expected | set(named)):
        if name not in (board.examples, SCORES):
            yield f"files names {name!r}, which is no file of a board"
        elif name not in named:
            yield f"{name} has no hash in board.json"
        elif not (folder / name).is_file():
            yield f"{name} is missing"
        elif digest((folder / name).read_bytes()) != named[name]:
            yield f"{name} is not the file that board.json was written with: its SHA-256 differs"


def _differ(said: Any, made: Any, where: str) -> list[str]:
    """Where two trees of plain values are not the same, numbers within rounding."""
    if isinstance(said, dict) and isinstance(made, dict):
        problems = []
        for key in sorted(set(said) | set(made)):
            if key not in made:
                problems.append(f"{where}{key} is on the board, and its scores do not give it")
            elif key not in said:
                problems.append(f"{where}{key} follows from the scores, and is not on the board")
            else:
                problems += _differ(said[key], made[key], f"{where}{key} ")
        return problems
    if isinstance(said, list) and isinstance(made, list) and len(said) == len(made):
        return [text for i, (a, b) in enumerate(zip(said, made, strict=True)) for text in _differ(a, b, f"{where}[{i}] ")]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (said, made))
    if numbers and isclose(said, made, rel_tol=RELATIVE, abs_tol=ABSOLUTE):
        return []
    return [] if said == made else [f"{where.rstrip()} is {said!r}, the scores give {made!r}"]
