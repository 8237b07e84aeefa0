"""Verify a board: compute every statistic and hash again from its scores and files, so that nobody has to be trusted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isclose
from pathlib import Path
from typing import Any

from harness.board.across import compare_models
from harness.board.analysis import analyse
from harness.board.board import Board, board_scores, board_states
from harness.board.build import LoadedBoard, row_entry
from harness.board.compare import Statistics
from harness.board.declared import Declared
from harness.board.entries import COMPUTED_AGAIN, METHODS, MetricEntry
from harness.board.files import SCORES, STATES, Scores, States, digest
from harness.board.learning import learning_curves
from harness.board.sequential import design_of
from harness.board.tuning import tuning_problems

SAME_IN_ALL_METHODS = {"mean", "n", "per_seed", "seeds", "higher_is_better"}
EARLIER = (
    "Its intervals and tests come from an earlier version of the statistics and were not computed again; "
    "means, counts and files were."
)
RELATIVE, ABSOLUTE = 1e-6, 1e-9  # matrix products differ in their last digits between machines


def verify(path: Path) -> list[str]:
    """Return everything about a board that does not hold, a sentence each; nothing where the board holds.

    Means, intervals, differences, p-values, corrections, ranks, win shares, agreement and power are computed again from
    `scores.parquet`, learning curves from `states.parquet`, and the hashes of the files beside the board again from their
    bytes. Of a board that was made with earlier methods only what all methods compute alike is: means, counts and hashes;
    `earlier_methods` says so.

    Raises:
        DataError: the board or its scores cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    board = Board.read(path)
    if board.is_published:  # printed numbers: there is nothing to compute again
        return list(_files(board, folder, {board.examples}))
    scores = board_scores(path)
    states = board_states(path)
    with_curves = any(row.states for row in board.rows)
    problems = list(_files(board, folder, {board.examples, SCORES, *([STATES] if with_curves else [])}))
    unknown = sorted(set(scores) - {row.method for row in board.rows})
    problems += [f"{SCORES} has scores of {label!r}, which is no row of the board" for label in unknown]
    if not board.models:
        return [*problems, *_recomputed(board, scores, states)]
    for label, of_model in board.by_model.items():
        problems += [
            f"{label}: {problem}"
            for problem in _recomputed(of_model, board.scores_of(label, scores), board.states_of(label, states))
        ]
    return [*problems, *_across(board, scores)]


def _across(board: Board, scores: Scores) -> list[str]:
    """Return what differs in the comparison of several starting models."""
    loaded = {
        label: LoadedBoard(of_model, board.scores_of(label, scores), label).rows for label, of_model in board.by_model.items()
    }
    if any(board.baseline not in {row.label for row in rows} for rows in loaded.values()):
        return []  # said of the model already
    computed = compare_models(loaded, board.metrics, board.baseline, mixed_judges=board.mixed_judges)[0]
    shown = board.across.model_dump(mode="json") if board.across else {}
    return _differ(shown, computed.model_dump(mode="json"), "across: ")


def _recomputed(board: Board, scores: Scores, states: States) -> list[str]:
    """Return what differs in the statistics of rows that have one starting model."""
    problems = list[str]()
    rows = LoadedBoard(board, scores, board.name, states).rows
    if board.baseline not in {row.label for row in rows}:
        return [*problems, f"the baseline {board.baseline!r} is no row of the board"]
    derived = {metric.key for metric in board.unscored_metrics(scores)}
    metrics = [metric for metric in board.metrics if metric.key not in derived]
    design = design_of(board.config, board.statistics.sequential_prompts)
    declared = Declared.of(board.config)
    statistics = Statistics(
        rows,
        metrics,
        board.baseline,
        mixed_judges=board.mixed_judges,
        design=design,
        equivalent_within=declared.equivalent_within,
    )
    if board.methods >= METHODS:
        problems += _undeclared(board, declared, metrics)
    for entry, row in zip(board.rows, rows, strict=True):
        computed = {key: score.model_dump(mode="json") for key, score in row_entry(statistics, row).scores.items()}
        shown = {key: score.model_dump(mode="json") for key, score in entry.scores.items() if key not in derived}
        if board.methods < COMPUTED_AGAIN:
            shown, computed = _means(shown), _means(computed)
        problems += [*_differ(shown, computed, f"{entry.method}: "), *tuning_problems(entry)]
    if board.methods < COMPUTED_AGAIN:
        return problems
    curves = learning_curves(rows, metrics)
    for entry in board.rows:
        shown_states = [state.model_dump(mode="json") for state in entry.states or ()]
        states_again = [state.model_dump(mode="json") for state in curves.get(entry.method, ())]
        problems += _differ(shown_states, states_again, f"{entry.method}: states ")
    analysis = board.analysis.model_dump(mode="json") if board.analysis else {}
    again = analyse(statistics, board.config).model_dump(mode="json")
    if board.methods < METHODS:
        again.pop("first_place", None)
    if "raters" not in analysis:
        again.pop("raters", None)  # a board from before they were computed
    problems += _differ(analysis, again, "analysis: ")
    families = [family.model_dump(mode="json") for family in statistics.correction.families]
    shown_families = [family.model_dump(mode="json") for family in board.statistics.families or ()]
    problems += _differ(shown_families, families, "statistics.families: ")
    decided = statistics.decisions
    pairs = (
        ("sequential", board.statistics.sequential, decided.seeds_entry(None) if decided else None),
        ("sequential_prompts", board.statistics.sequential_prompts, decided.prompts_entry() if decided else None),
    )
    for name, shown_looks, looked in pairs:
        # Which trainings ran is no matter of scores.
        written, given = (
            {} if entry is None else entry.model_dump(mode="json", exclude={"trainings", "trainings_fixed"})
            for entry in (shown_looks, looked)
        )
        problems += _differ(written, given, f"statistics.{name}: ")
    return problems


def _undeclared(board: Board, declared: Declared, metrics: Sequence[MetricEntry]) -> Iterator[str]:
    """Yield what the board says of families and margins that its config does not declare."""
    if declared.applied(metrics) != tuple(metrics):
        yield "metrics: the primary ones, or their order, are not those that the config's `statistics` declares"
    shown = bool(board.statistics.declared), board.statistics.equivalent_within or {}
    if shown != (declared.primary is not None, dict(declared.equivalent_within)):
        yield "statistics: `declared` or `equivalent_within` are not what the config's `statistics` declares"


def earlier_methods(board: Board) -> str | None:
    """Return a sentence on what was not computed again, where the board was made with earlier methods."""
    return EARLIER if board.methods < COMPUTED_AGAIN and not board.is_published else None


def _means(scores: dict[str, Any]) -> dict[str, Any]:
    """Return of each score what all methods compute alike, its difference included."""

    def kept(entry: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in entry.items() if name in SAME_IN_ALL_METHODS}

    return {key: kept(score) | ({"delta": kept(score["delta"])} if score.get("delta") else {}) for key, score in scores.items()}


def _files(board: Board, folder: Path, expected: set[str]) -> Iterator[str]:
    named = board.files or {}
    for name in sorted(expected | set(named)):
        if name not in (board.examples, SCORES, STATES):
            yield f"files names {name!r}, which is no file of a board"
        elif name not in named:
            yield f"{name} has no hash in board.json"
        elif not (folder / name).is_file():
            yield f"{name} is missing"
        elif digest((folder / name).read_bytes()) != named[name]:
            yield f"{name} is not the file that board.json was written with: its SHA-256 differs"


def _differ(shown: Any, computed: Any, where: str) -> list[str]:
    """Return the places where two trees of plain values differ, numbers beyond rounding."""
    if isinstance(shown, dict) and isinstance(computed, dict):
        problems = []
        for key in sorted(set(shown) | set(computed)):
            if key not in computed:
                problems.append(f"{where}{key} is on the board, and its scores do not give it")
            elif key not in shown:
                problems.append(f"{where}{key} follows from the scores, and is not on the board")
            else:
                problems += _differ(shown[key], computed[key], f"{where}{key} ")
        return problems
    if isinstance(shown, list) and isinstance(computed, list) and len(shown) == len(computed):
        return [text for i, (a, b) in enumerate(zip(shown, computed, strict=True)) for text in _differ(a, b, f"{where}[{i}] ")]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (shown, computed))
    if numbers and isclose(shown, computed, rel_tol=RELATIVE, abs_tol=ABSOLUTE):
        return []
    return [] if shown == computed else [f"{where.rstrip()} is {shown!r}, the scores give {computed!r}"]
