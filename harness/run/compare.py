"""One comparison, from a config to a board."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from harness.api.registry import Registry
from harness.board.build import Board, build_board
from harness.board.views.page import write_all
from harness.config import Comparison, prepare_evaluators, resolve
from harness.config.problems import quoted
from harness.config.schema import raise_all
from harness.errors import InterruptedRunError, Problem, StageError, StoreWriteError
from harness.models.judge.settings import judge_of
from harness.run.costs import measure_sharing
from harness.run.executors.events import Executor, Outcome, Together
from harness.run.executors.journal import Journal
from harness.run.executors.local import LocalExecutor
from harness.run.graph import Graph
from harness.run.observers import Observers, check_trackers
from harness.run.plan import plan
from harness.run.results import Run, collect_examples, copy_files, data_facts, pair_strengths, row_result, run_warnings
from harness.run.stages.benchmarks import overlap_warnings
from harness.run.stages.screening import fewer_than_asked, screened, split_problems
from harness.store import Store
from harness.store.collect import need
from harness.store.environment import versions
from harness.store.locks import run_lock
from harness.store.mirror import Mirror
from harness.store.roots import Root


@dataclass(frozen=True)
class Means:
    """What a comparison runs with; nothing here changes a result.

    Attributes:
        executor: makes the executor from a number of workers, what they need, and a folder for their logs.
        mirror: URL of a store elsewhere, behind the one on disk.
        log: where event lines go beside the run's folder.
        tracking: names of the experiment trackers that take part.
    """

    executor: Callable[[int, Mapping[str, Any], Path], Executor] = LocalExecutor
    mirror: str | None = None
    log: Sequence[TextIO] = ()
    tracking: tuple[str, ...] = ()


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
    means: Means | None = None,
    interactive: bool = False,
    command: str = "",
    where: str = "the configuration",
    variables: Mapping[str, str] | None = None,
) -> RunResult:
    """Run a comparison and write its board to `folder`.

    Args:
        raw: the config as a mapping, overrides applied.
        store: where artifacts are kept and found.
        workers: processes, or stages at a time; each computes on one thread, or on a GPU.
        means: what else it runs with; worker processes on this machine if absent.
        interactive: whether observers may draw.
        command: what a person typed, for the provenance.
        variables: the environment, in which the judges' keys are looked for before anything runs; workers inherit it.

    Raises:
        ConfigError: before any compute, with every problem.
        HarnessError: another run writes to `folder`.
        StageError: no row could be finished.
        StoreWriteError: the disk is full, or the store or `folder` read-only.
        InterruptedRunError: it was asked to end, and did.
    """
    registry, means = Registry.load(), means or Means()
    check_trackers(means.tracking, registry)
    comparison = resolve(raw, registry, where)
    graph, observers = plan(comparison), Observers(registry)
    kept = Store(store, Mirror(means.mirror) if means.mirror else None)
    _check_means(comparison, graph, kept, variables, where)
    _check_data(comparison, graph, kept, where)
    _make(folder)
    settings = {**_settings(comparison, graph), "store": str(kept.root), "mirror": means.mirror}
    journal = Journal(folder, comparison.config.name, means.log)
    with run_lock(folder), kept.swept(), journal.told():
        need(kept, Root.of(comparison.config.name, folder, graph.stages.keys()))
        present = {stage.key for stage in graph if kept.holds(stage.key)}  # of these nothing is collected any more
        executor = means.executor(workers, settings, folder / "logs")
        journal.begin(graph, present)
        name, tracking = comparison.config.name, means.tracking
        with observers.watching(name, graph, present, interactive=interactive, folder=folder, tracking=tracking):
            outcome = executor.run(graph, present, Together((journal, observers)))
            if outcome.stopped:
                raise InterruptedRunError(
                    "the run was asked to end: what was finished is kept, and the same command goes on from there"
                )
            board = _publish(Run(comparison, graph, kept, outcome), folder, command, observers)
    return RunResult(board, folder, outcome)


def _check_means(comparison: Comparison, graph: Graph, store: Store, variables: Mapping[str, str] | None, where: str) -> None:
    """See that judges can be asked, and let evaluators download what they read, where something is left for them to do.

    Raises:
        ConfigError: a key is missing, or a download failed.
    """
    if variables is not None:
        raise_all(_missing_keys(graph, store, variables), where)
    left = {name for row in graph.rows for name, key in row.evaluations.items() if not store.place(key).exists()}
    raise_all(prepare_evaluators(comparison, left), where)


def _check_data(comparison: Comparison, graph: Graph, store: Store, where: str) -> None:
    """See that every split that is used has examples, by the artifact of the rows if it is there, else by the rows.

    Raises:
        ConfigError: one has too few.
        DataError: the rows cannot be read.
    """
    key = next(stage.key for stage in graph if stage.kind == "source")
    if store.holds(key):
        facts = store.open(key).facts
        raise_all(split_problems(comparison, facts["screening"], facts["usable"]), where)
    elif (rows := screened(comparison)) is not None:
        raise_all(split_problems(comparison, rows[1].as_dict(), rows[1].usable), where)


def _settings(comparison: Comparison, graph: Graph) -> dict[str, Any]:
    """What workers need beside the store to make their context."""
    return {
        "checkpoints": graph.checkpoints,
        "checkpoint_minutes": comparison.config.run.checkpoint_minutes,
        "judges": graph.judges,
        "run": uuid.uuid4().hex,
    }


def _publish(run: Run, folder: Path, command: str, observers: Observers) -> Board:
    """Write the board, and note what it needs of the store.

    Raises:
        StageError: there is nothing to compare with.
        StoreWriteError: it cannot be written.
    """
    board = _assemble(run, command, observers)
    try:
        write_all(board, board.example_rows, folder)
        copy_files(run, folder)
    except OSError as error:
        raise StoreWriteError(f"the board cannot be written to {folder} ({error.strerror}): run it again with --out") from error
    need(run.store, Root.of(board.name, folder, run.graph.stages.keys()))
    observers.call("harness_board_ready", board=board.model_dump(mode="json", by_alias=True), folder=folder)
    return board


def _make(folder: Path) -> None:
    """The run's folder.

    Raises:
        StoreWriteError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreWriteError(f"{folder} cannot be written ({error.strerror}): choose another folder with --out") from error


def _missing_keys(graph: Graph, store: Store, variables: Mapping[str, str]) -> list[Problem]:
    """Keys of judges that are still to be asked, and that the environment does not hold."""
    judged = [stage for stage in graph if "judge" in stage.payload and not store.holds(stage.key)]
    asking = [judge_of(graph.judges, stage.payload) for stage in judged]
    names = sorted({judge.api_key_env for judge in asking if judge.api_key_env})
    fix = "this environment variable is not set: put the judge's key into it, or write null for a server without keys"
    return [Problem("judge.api_key_env", name, fix) for name in names if not variables.get(name)]


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
    derived, apart = pair_strengths(run, rows)
    warnings = [f"observer {name} failed and was left out: {reason}" for name, reason in observers.failures.items()]
    warnings += [f"{evaluator.name}: {text}" for evaluator in run.comparison.evaluators for text in evaluator.cautions()]
    data = data_facts(run)
    warnings += fewer_than_asked(run.comparison, data.get("data", {}))
    dropped = config.evaluation.contaminated == "drop"
    warnings += map(quoted, overlap_warnings(data.get("data", {}).get("benchmarks", {}), dropped))
    here = run.store.mirror.failed if run.store.mirror is not None else None
    if left_out := here or run.outcome.mirror:
        warnings.append(quoted(left_out))
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
            **data,
            "versions": versions(),
        },
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        warnings=[*warnings, *apart, *run_warnings(run, rows)],
        derived=derived,
        mixed_judges=any(judge.allow_mixed_judges for judge in run.comparison.judges.values()),
    )
