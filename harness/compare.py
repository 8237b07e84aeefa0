"""One comparison, from a config to a board."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.environment import versions
from harness.errors import StageError
from harness.execute.events import Outcome
from harness.execute.local import LocalExecutor
from harness.leaderboard.board import Board, build_board
from harness.leaderboard.page import write_all
from harness.observers import Observers
from harness.plan import plan
from harness.registry import Registry
from harness.resolve import resolve
from harness.rows import Run, collect_examples, row_result, run_warnings
from harness.sharing import measure_sharing
from harness.store import Store


@dataclass(frozen=True)
class RunResult:
    """What a run leaves: the board, where its files are, and how its stages ended."""

    board: Board
    folder: Path
    outcome: Outcome


def compare(
    raw: Mapping[str, Any],
    *,
    folder: Path,
    store: Path,
    workers: int,
    interactive: bool = False,
    command: str = "",
    where: str = "the configuration",
) -> RunResult:
    """Run a comparison and write its board to `folder`.

    Args:
        raw: the config as a mapping, overrides applied.
        store: where artifacts are kept and found.
        workers: processes; each computes on one thread.
        interactive: whether observers may draw.
        command: what a person typed, for the provenance.

    Raises:
        ConfigError: before any compute, with every problem.
        StageError: no row could be finished.
    """
    registry = Registry.load()
    comparison = resolve(raw, registry, where)
    graph, kept, observers = plan(comparison), Store(store), Observers(registry)
    kept.sweep()
    executor = LocalExecutor(workers, {"store": str(kept.root), "checkpoints": graph.checkpoints}, folder / "logs")
    present = {stage.key for stage in graph if kept.holds(stage.key)}
    observers.call(
        "harness_run_started",
        name=comparison.config.name,
        weights={stage.key: stage.weight for stage in graph if stage.key not in present},
        cached=len(present),
        interactive=interactive,
    )
    try:
        run = Run(comparison, graph, kept, executor.run(graph, present, observers))
    finally:
        observers.call("harness_run_finished")
    board = _assemble(run, command, observers)
    write_all(board, board.example_rows, folder)
    observers.call("harness_board_ready", board=board.model_dump(mode="json", by_alias=True), folder=folder)
    return RunResult(board, folder, run.outcome)


def _assemble(run: Run, command: str, observers: Observers) -> Board:
    """The board from what the store holds.

    Raises:
        StageError: the baseline failed; there is nothing to compare with.
    """
    config = run.comparison.config
    rows = [row_result(variant, run) for variant in run.comparison.variants]
    baseline = next(row for row in rows if row.label == config.baseline)
    if baseline.failed:
        raise StageError(f"the baseline {baseline.label!r} failed, so there is nothing to compare with: {baseline.failed}")
    warnings = [f"observer {name} failed and was left out: {reason}" for name, reason in observers.failures.items()]
    return build_board(
        name=config.name,
        description=config.description,
        config=config.model_dump(mode="json", by_alias=True),
        baseline=config.baseline,
        rows=rows,
        metrics={evaluator.name: evaluator.metrics() for evaluator in run.comparison.evaluators},
        examples=collect_examples(run),
        sharing={
            **measure_sharing(run.graph, run.store, run.outcome.ran).as_dict(),
            "command": command,
            "versions": versions(),
        },
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        warnings=[*warnings, *run_warnings(run, rows)],
    )
