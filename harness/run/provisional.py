"""A provisional board: the rows that a run has finished so far, while it runs or after it was stopped.

The run's folder holds `run.json` from its first second: the config and the store's place. Planned again, the config gives the
same keys, so the store tells which rows are complete. Nothing is computed and no file of the run is touched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from harness.api.registry import Registry
from harness.board.board import Board
from harness.board.files import BOARD
from harness.config import resolve_each
from harness.errors import HarnessError
from harness.run.compare import assemble
from harness.run.executors.events import Outcome
from harness.run.executors.journal import RUNNING, STATUS, read_status
from harness.run.folders import RUN, read_run
from harness.run.graph import Graph, RowPlan, joined
from harness.run.plan import Planner
from harness.run.results import Run
from harness.store import Store

PAGE = "provisional.html"


def has_unfinished_run(folder: Path) -> bool:
    """Return whether the last run in a folder has not written its board: it runs, or it was stopped or failed before."""
    if not (folder / STATUS).is_file():
        return False
    return read_status(folder)["state"] != "finished" and not _board_is_newer(folder)


def _board_is_newer(folder: Path) -> bool:
    """Return whether the board was written after the run's last sign of life, as an import or a copy writes it."""
    board, status = folder / BOARD, folder / STATUS
    running = read_status(folder)["state"] == RUNNING
    return not running and board.is_file() and board.stat().st_mtime > status.stat().st_mtime


def provisional_board(folder: Path) -> Board:
    """Build the board of the rows that are finished at one seed or more. Its first warning says what is missing.

    Raises:
        HarnessError: the folder does not say what runs, or the baseline is not finished at any seed.
        ConfigError: the config cannot be resolved any more, for example as its data was moved.
    """
    noted = read_run(folder)
    status = read_status(folder)
    comparisons = resolve_each(noted.config, Registry.load(), str(folder / RUN), offline=True)
    if unreachable := next((reason for each in comparisons for reason in each.unreachable.values()), None):
        raise HarnessError(f"{unreachable}: without it the finished rows cannot be told")
    if unchecked := next((reason for each in comparisons for reason in each.unchecked.values()), None):
        raise HarnessError(f"{unchecked}; a run without a board is told by the keys of its stages, which hold library versions")
    config, store = comparisons[0].config, Store(Path(noted.store))
    progress = f"{status['done']} of {status['stages']} stages done, {status['state']}"
    if any(comparison.tuning for comparison in comparisons):
        raise HarnessError(
            f"{folder}: a comparison with `tuning` has no provisional board, since rows get their settings when its search "
            f"ends: wait for the run, or start it again ({progress})"
        )
    runs, missing = list[Run](), list[str]()
    for comparison in comparisons:
        planner = Planner(comparison)
        for seed in config.possible_seeds:
            planner.add(seed)
        graph = planner.graph
        finished = [row for row in graph.rows if all(store.holds(key) for key in graph.needed_by(row))]
        seeds = Counter(row.label for row in finished)
        missing.append(_missing(seeds, [row.label for row in comparison.rows], len(config.first_seeds), comparison.start))
        if config.baseline in seeds:
            part = replace(comparison, rows=tuple(row for row in comparison.rows if row.label in seeds))
            runs.append(Run(part, _only(graph, finished), store, Outcome()))
    if not runs:
        raise HarnessError(f"{folder}: the baseline {config.baseline!r} is not finished at any seed yet ({progress})")
    absent = " ".join(filter(None, missing)) or "Every row is finished; the board is not written yet."
    sentence = f"Provisional ({progress}): only what is finished is compared. {absent}"
    board = assemble(runs, joined({run.comparison.start: run.graph for run in runs}), noted.command, {})
    description = f"{sentence} {board.description}".strip()
    update = {"name": f"{board.name} (provisional)", "description": description, "warnings": (sentence, *board.warnings)}
    return board.model_copy(update=update).with_examples(board.example_rows)


def _only(graph: Graph, rows: list[RowPlan]) -> Graph:
    return Graph(graph.environment, graph.stages, rows, graph.checkpoints, graph.judges)


def _missing(finished: Mapping[str, int], labels: list[str], seeds: int, start: str | None) -> str:
    """Return which rows of a starting model are not finished, or are at some seeds only; "" if all are."""
    absent = [label for label in labels if label not in finished]
    partial = [f"{label} ({finished[label]} of {seeds} seeds)" for label in labels if 0 < finished.get(label, 0) < seeds]
    of_model = f" of {start}" if start else ""
    parts = [
        f"Not finished{of_model}: {', '.join(absent)}." if absent else "",
        f"In part{of_model}: {', '.join(partial)}." if partial else "",
    ]
    return " ".join(part for part in parts if part)
