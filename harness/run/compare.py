"""Run one comparison, from a config to a board. Read `compare` from top to bottom: it is the spine of the harness."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from harness.api.registry import Registry
from harness.api.types import Dataset
from harness.board.across import join_models
from harness.board.build import Board, RowResult, build_board, look
from harness.board.facts import SharingFacts
from harness.board.sequential import SeedsDesign
from harness.board.views.page import write_all
from harness.config import Comparison, prepare_evaluators, resolve_each
from harness.config.problems import ABSENT, quoted
from harness.config.schema import RunSection, raise_all
from harness.errors import ConfigError, InterruptedRunError, Problem, StageError, StoreWriteError, TimeOverError
from harness.run.costs import measure_sharing
from harness.run.elsewhere import served_problems
from harness.run.estimates.disk import DiskEstimate, check_disk, disk_estimate
from harness.run.estimates.judge import missing_keys
from harness.run.evidence import stages_evidence
from harness.run.executors.events import EventFanout, Executor, Outcome
from harness.run.executors.journal import Journal
from harness.run.executors.local import LocalExecutor
from harness.run.folders import OtherBoard, board_folder, note_run, update_index
from harness.run.graph import Graph, joined
from harness.run.kept_models import KeptModels, missing_models, stages_in_store
from harness.run.observers import Display, Observers, check_trackers
from harness.run.plan import Planner, largest_plan
from harness.run.records import ScreeningCounts, SourceFacts
from harness.run.results import (
    Run,
    collect_examples,
    copy_files,
    judge_repeatability,
    prompts_so_far,
    row_result,
    run_warnings,
    screening_counts,
)
from harness.run.shards import with_shards
from harness.run.stages.benchmarks import overlap_warnings
from harness.run.stages.context import read_dataset
from harness.run.stages.screening import fewer_than_asked, row_source_problems, screened, split_problems
from harness.run.strengths import pair_strengths
from harness.run.tuning import Search, TuningResult
from harness.store import Store
from harness.store.atomic import sweep_unfinished
from harness.store.collect import need
from harness.store.environment import versions
from harness.store.locks import run_lock
from harness.store.mirror import Mirror
from harness.store.roots import Root

STOPPED = "the run was asked to stop: finished stages are kept, and the same command continues from them"


@dataclass(frozen=True)
class RunOptions:
    """How a comparison runs. Nothing here changes a result.

    Attributes:
        executor: makes the executor from a number of workers, the settings that workers need, and a folder for their logs.
        mirror: URL of a store elsewhere, behind the one on disk.
        log: streams for event lines, beside the file in the run's folder.
        tracking: names of the experiment trackers that take part.
        display: how progress is shown.
        other_board: what to do where the folder holds the board of another comparison.
        begun: called with the run's folder when its journal begins.
    """

    executor: Callable[[int, Mapping[str, Any], Path], Executor] = LocalExecutor
    mirror: str | None = None
    log: Sequence[TextIO] = ()
    tracking: tuple[str, ...] = ()
    display: Display = "none"
    other_board: OtherBoard = "refuse"
    begun: Callable[[Path], None] | None = None


@dataclass(frozen=True)
class RunResult:
    """The result of a run: the board, the folder with its files (not always the wanted one), and how the stages ended."""

    board: Board
    folder: Path
    outcome: Outcome


def compare(
    raw: Mapping[str, Any],
    *,
    folder: Path,
    store: Path,
    workers: int,
    options: RunOptions | None = None,
    command: str = "",
    where: str = "the configuration",
    variables: Mapping[str, str] | None = None,
) -> RunResult:
    """Run a comparison and write its board to `folder`.

    Args:
        raw: the config as a mapping, overrides applied.
        store: the folder of artifacts; what it holds is not made again.
        workers: processes, or stages at a time; each computes on one thread, or on a GPU.
        options: how it runs; worker processes on this machine if absent.
        command: the command line that a person typed, for the provenance.
        where: the config's name in error messages.
        variables: the environment, in which the judges' keys are looked for before anything runs; workers inherit it.

    Raises:
        ConfigError: before any compute, with every problem.
        HarnessError: another run writes to `folder`, or it holds the board of another comparison.
        StageError: no row could be finished.
        StoreWriteError: the disk is full, or the store or `folder` read-only.
        InterruptedRunError: the run was asked to end, and did.
        TimeOverError: `run.max_hours` are over.
    """
    began = time.time()
    # From the config to the graph: every name is resolved and every key fixed before anything runs.
    registry, options = Registry.load(), options or RunOptions()
    check_trackers(options.tracking, registry)
    # One comparison, or one for each starting model; stages that they have in common are one, since their keys are equal.
    comparisons = resolve_each(raw, registry, where)
    planners = [_planned(comparison) for comparison in comparisons]
    comparison, graph = comparisons[0], joined({each.comparison.start: each.graph for each in planners})
    folder = board_folder(folder, comparisons, raw, options.other_board)
    # With `tuning`, trials run first, and the board's rows, here with their defaults, are planned again when these are chosen.
    search = Search.of(comparison)

    # Whatever can be refused is refused now: hours later it would cost them.
    artifacts = Store(store, Mirror(options.mirror) if options.mirror else None)
    for each in planners:
        _check(each.comparison, each.graph, search, artifacts, variables, where)
    _make_folder(folder)
    _check_room(planners, search, artifacts, workers)

    journal = Journal(folder, comparison.config.name, options.log)
    run = _Execution(comparison.config.name, folder, artifacts, Observers(registry), journal, comparison.config.run, began)
    first = graph if search is None else search.graph
    with run.going(first, comparison, graph, workers, options, noted=(raw, command)):
        choice = None
        if search is not None:
            choice = _settle(search, run)
            comparison, planners = choice.comparison, [_planned(choice.comparison)]
            graph = planners[0].graph
            run.need(_possible_stages(comparison, graph) | search.graph.stages.keys())
            _check_evaluators(comparison, graph, artifacts, variables, where)
            run.add(graph, (graph.stages.keys() - search.graph.stages.keys()) | run.outcome.forget(graph.stages.keys()))
            run.outcome.forget(choice.passed_over(graph))
        # Where the config adds seeds or prompts until rows are decided, the scores so far say which rows get more.
        while not run.outcome.stopped and (labels := _open_rows(Run(comparison, graph, artifacts, run.outcome))):
            if comparison.config.adds_seeds:
                fresh = planners[0].add(1 + max(row.seed for row in graph.rows), labels)
            else:
                fresh = planners[0].add_prompts(labels)
            _check_evaluators(comparison, graph, artifacts, variables, where)
            run.add(graph, fresh)
        if run.outcome.stopped:
            raise run.ending()
        runs = [Run(each.comparison, each.graph, artifacts, run.outcome) for each in planners]
        board = _publish(runs, graph, folder, command, run.observers, choice)
        assert run.models is not None
        run.models.finish([graph] if search is None else [graph, search.graph])
    return RunResult(board, folder, run.outcome)


def tune(
    raw: Mapping[str, Any],
    *,
    folder: Path,
    store: Path,
    workers: int,
    options: RunOptions | None = None,
    where: str = "the configuration",
    variables: Mapping[str, str] | None = None,
) -> TuningResult:
    """Run the search of a comparison alone, and return the settings that it chose; nothing is evaluated on held-out prompts.

    Args, errors: as of `compare`, which goes on from here without computing a trial again.

    Raises:
        ConfigError: the config has no `tuning` section.
    """
    began = time.time()
    registry, options = Registry.load(), options or RunOptions()
    check_trackers(options.tracking, registry)
    comparison = resolve_each(raw, registry, where)[0]  # of several starting models no search is resolved
    search = Search.of(comparison)
    if search is None:
        fix = "there is nothing to search: add this section, as in `tuning: {trials: 8}`"
        raise ConfigError([Problem("tuning", ABSENT, fix)], where)
    graph = _planned(comparison).graph
    artifacts = Store(store, Mirror(options.mirror) if options.mirror else None)
    _check(comparison, graph, search, artifacts, variables, where)
    _make_folder(folder)
    _check_room([], search, artifacts, workers)
    journal = Journal(folder, comparison.config.name, options.log)
    run = _Execution(comparison.config.name, folder, artifacts, Observers(registry), journal, comparison.config.run, began)
    with run.going(search.graph, comparison, graph, workers, options):
        return _settle(search, run)


def _planned(comparison: Comparison) -> Planner:
    """Return the plan of a comparison's rows with their first seeds."""
    planner = Planner(comparison)
    for seed in comparison.config.first_seeds:
        planner.add(seed)
    return planner


@dataclass
class _Execution:
    """The run of a graph that grows: with further trials, with the rows that they settled, and with further seeds.

    Attributes:
        section: the config's `run`.
        began: the time (seconds since the epoch) from which its `max_hours` count.
        executor, models: set while the run is going.
        shards: stages that only this run needs.
        outcome: of all stages so far.
    """

    name: str
    folder: Path
    store: Store
    observers: Observers
    journal: Journal
    section: RunSection
    began: float
    executor: Executor | None = None
    models: KeptModels | None = None
    needed: Set[str] = frozenset()
    shards: Set[str] = frozenset()
    outcome: Outcome = field(default_factory=Outcome)

    @contextmanager
    def going(
        self,
        graph: Graph,
        comparison: Comparison,
        board: Graph,
        workers: int,
        options: RunOptions,
        *,
        noted: tuple[Mapping[str, Any], str] | None = None,
    ) -> Iterator[None]:
        """Hold the run's folder, announce the run of a graph, and however the block ends, that it has ended.

        Args:
            graph: the stages that run first.
            board: of the board's rows.
            noted: the config and the command to note in the folder, for boards of what is finished so far.
        """
        settings = {
            **_worker_settings(comparison, board),
            "store": str(self.store.root),
            "ends_at": self.ends_at,
            "models_first": comparison.config.run.keep_models != "all",
            "mirror": options.mirror,
        }
        # The folder is locked so that two runs never write one board; `swept` removes what killed runs left half-written.
        with run_lock(self.folder), self.store.swept(), self.journal.told():
            sweep_unfinished(self.folder, deep=True)
            sweep_unfinished(self.folder.parent)  # the index of runs
            # The root comes before the look at the store: from here on `collect` removes nothing that this run counts on.
            root = Root.of(self.name, self.folder, _possible_stages(comparison, board) | graph.stages.keys())
            self.need(set(root.keys))
            present = stages_in_store(graph, self.store.holds, self.store.dropped)
            present -= missing_models(comparison.config.run, board, self.store.dropped)
            present = stages_in_store(graph, present.__contains__, self.store.dropped)
            self.models = KeptModels.of(comparison, self.store, root)
            self.executor = options.executor(workers, settings, self.folder / "logs")
            cut, present = self._cut(graph, present)
            if noted is not None:
                note_run(self.folder, noted[0], self.store.root, noted[1])
            self.journal.begin(cut, present)
            if options.begun is not None:
                options.begun(self.folder)
            watching, display, tracking = self.observers.watching, options.display, options.tracking
            with watching(self.name, cut, present, display=display, workers=workers, folder=self.folder, tracking=tracking):
                self._run(graph, cut, present)
                yield
            self.need(self.needed - self.shards)

    @property
    def ends_at(self) -> float | None:
        return None if self.section.max_hours is None else self.began + 3600 * self.section.max_hours

    def ending(self) -> InterruptedRunError:
        """Return the error of a run that stopped before all was done."""
        if self.ends_at is None or time.time() < self.ends_at:
            return InterruptedRunError(STOPPED)
        return TimeOverError(
            f"run.max_hours = {self.section.max_hours:g} are over, and {len(self.outcome.ran):,} stages were finished in them: "
            "all work is kept, and the same command continues from it"
        )

    def need(self, keys: Set[str]) -> None:
        """Keep these artifacts from `collect`."""
        self.needed = keys
        need(self.store, Root.of(self.name, self.folder, keys))

    def add(self, graph: Graph, fresh: Set[str]) -> None:
        """Run the stages of a graph that were added to it; no other stage runs again, not even one that failed.

        Nothing runs, and nothing is announced, once the run was asked to stop.
        """
        if self.outcome.stopped:
            return
        stages = [stage for stage in graph if stage.key in fresh]
        held = {stage.key for stage in stages if self.store.holds(stage.key)}
        others = graph.stages.keys() - fresh
        present = stages_in_store(graph, (others | held).__contains__, self.store.dropped)
        again = [graph.stages[key] for key in others - present]  # models that the new stages need, and that were dropped
        cut, present = self._cut(graph, present)
        shards = cut.stages.keys() - graph.stages.keys()
        added, cached = [*stages, *again, *(cut.stages[key] for key in shards)], (held | shards) & present
        self.journal.extend(cut, added, cached)
        self.observers.extended(cut, added, cached)
        self._run(graph, cut, present)

    def _cut(self, graph: Graph, present: set[str]) -> tuple[Graph, set[str]]:
        """Return the graph with stages cut into shards, and the stages of it that need not run."""
        assert self.executor is not None
        wanted = self.section.shards
        cut = with_shards(graph, present, wanted, self.executor.width() if wanted == "auto" else 1)
        if shards := cut.stages.keys() - graph.stages.keys():
            self.shards = {*self.shards, *shards}
            self.need({*self.needed, *shards})
        return cut, present | {key for key in shards if self.store.holds(key)}

    def _run(self, graph: Graph, cut: Graph, present: set[str]) -> None:
        """Run a graph, cut into shards; how these ended is no part of the outcome, since their stages go on without them."""
        assert self.executor is not None and self.models is not None
        self.models.watch(cut, present)
        outcome = self.executor.run(cut, present, EventFanout((self.journal, self.observers, self.models)))
        self.outcome.add(outcome.of(graph))


def _check(
    comparison: Comparison,
    graph: Graph,
    search: Search | None,
    store: Store,
    variables: Mapping[str, str] | None,
    where: str,
) -> None:
    """Check evaluators and data of the board's rows and, where there are any, of the first trials."""
    for checked, stages in [(comparison, graph), *([(search.on_tuning_split(), search.graph)] if search else [])]:
        _check_evaluators(checked, stages, store, variables, where)
        _check_data(checked, stages, store, where)


def _check_room(planners: Sequence[Planner], search: Search | None, store: Store, workers: int) -> None:
    """Check that what the rows and the first trials will write fits into the store.

    Raises:
        StoreWriteError: it does not.
    """
    planned = [(each.comparison, each.graph) for each in planners]
    planned += [(search.on_tuning_split(), search.graph)] if search else []
    need, counted = DiskEstimate(), set[str]()
    for comparison, graph in planned:
        held = stages_in_store(graph, lambda key: store.place(key).exists(), store.dropped)
        need += disk_estimate(comparison, graph, held | counted, workers) or DiskEstimate()
        counted |= graph.stages.keys()
    check_disk(need, store.root)


def _possible_stages(comparison: Comparison, graph: Graph) -> set[str]:
    """Return the keys of a plan's stages, those of all the seeds and prompts that rows can get among them."""
    return set((largest_plan(comparison) if comparison.config.grows else graph).stages)


def _settle(search: Search, run: _Execution) -> TuningResult:
    """Run the trials that are left, and choose every row's settings. The held-out split is in no stage until this returns.

    Raises:
        InterruptedRunError: the run was asked to stop, or its time is over, so nothing can be chosen yet.
        StageError: every trial of the baseline failed.
    """
    # Trials that depend on earlier ones are asked for in batches; the first batch ran already.
    while not run.outcome.stopped and (fresh := search.ask(run.store, run.outcome)):
        run.need(search.graph.stages.keys())
        run.add(search.graph, fresh)
    if run.outcome.stopped:
        raise run.ending()
    return search.finish(run.store, run.outcome)


def _open_rows(run: Run) -> frozenset[str]:
    """Return the rows that get another seed or more prompts; none where the config adds none, or the baseline failed.

    A model from elsewhere has no seeds to be decided by: it gets the prompts that the baseline gets.
    """
    config = run.comparison.config
    if not config.grows:
        return frozenset()
    prompts = prompts_so_far(run)
    written = config.model_dump(mode="json", by_alias=True)
    design = prompts or SeedsDesign.of(written)
    assert design is not None  # `grows`
    rows = [row_result(row, run) for row in run.comparison.rows]
    metrics = {label: evaluator.metrics() for label, evaluator in run.comparison.evaluators.items()}
    labels = look(design, config.baseline, rows, metrics, written).open
    elsewhere = {row.label for row in run.comparison.rows if row.is_as_it_is}
    return labels | elsewhere if prompts and config.baseline in labels else labels


def _check_evaluators(
    comparison: Comparison, graph: Graph, store: Store, variables: Mapping[str, str] | None, where: str
) -> None:
    """Check that judges and served rows can be asked, and let evaluators download data, where they have anything left to do.

    Raises:
        ConfigError: a key is missing, a served row's server is down or serves another model, or a download failed.
    """
    if variables is not None:
        raise_all(missing_keys(graph, store.holds, variables), where)
        raise_all(served_problems(comparison, graph, store.holds, variables), where)
    asked = [evaluations.items() for row in graph.rows for evaluations in row.all_evaluations]
    waiting = {name for items in asked for name, keys in items for key in keys if not store.place(key).exists()}
    raise_all(prepare_evaluators(comparison, waiting), where)


def _check_data(comparison: Comparison, graph: Graph, store: Store, where: str) -> None:
    """Check that every split that is used has examples: by the artifact of the rows if the store has it, else by the rows.

    Raises:
        ConfigError: one has too few.
        DataError: the rows cannot be read.
    """
    key = next(stage.key for stage in graph if stage.kind == "source")
    dataset: Dataset | None = None
    if store.holds(key):
        facts = SourceFacts.of(store.open(key))
        if facts.screening is not None:
            raise_all(split_problems(comparison, facts.screening, facts.usable), where)
    elif (rows := screened(comparison)) is not None:
        dataset = rows[0]
        raise_all(split_problems(comparison, rows[1].counts(), rows[1].usable), where)
    if any(stage.kind == "source" and not store.holds(stage.key) for stage in graph if stage.key != key):
        dataset = dataset or read_dataset(store.open(key))
        raise_all(row_source_problems(comparison, dataset), where)


def _make_folder(folder: Path) -> None:
    """Make the run's folder.

    Raises:
        StoreWriteError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreWriteError(f"{folder} cannot be written ({error.strerror}): choose another folder with --out") from error


def _worker_settings(comparison: Comparison, graph: Graph) -> Mapping[str, Any]:
    """Return the settings from which workers make their context, beside the store's."""
    return {
        "checkpoints": graph.checkpoints,
        "checkpoint_minutes": comparison.config.run.checkpoint_minutes,
        "judges": graph.judges,
        "run": uuid.uuid4().hex,
    }


def _publish(
    runs: Sequence[Run], graph: Graph, folder: Path, command: str, observers: Observers, choice: TuningResult | None
) -> Board:
    """Write the board, and note in the store which artifacts it is made of.

    Args:
        runs: one for each starting model.
        graph: the stages of all of them.
        choice: of the rows' settings, where the config searched them.

    Raises:
        StageError: there is nothing to compare with.
        StoreWriteError: it cannot be written.
    """
    made_of = graph if choice is None else choice.with_trials(graph)
    board = assemble(runs, graph, command, observers.failures, choice).sealed([stages_evidence(runs, made_of)])
    try:
        write_all(board, board.example_rows, folder)
        for run in runs:
            copy_files(run, folder)
        update_index(folder)
    except OSError as error:
        raise StoreWriteError(f"the board cannot be written to {folder} ({error.strerror}): run it again with --out") from error
    need(runs[0].store, Root.of(board.name, folder, made_of.stages.keys()))
    observers.call("harness_board_ready", board=board.model_dump(mode="json", by_alias=True), folder=folder)
    return board


def assemble(
    runs: Sequence[Run], graph: Graph, command: str, observer_failures: Mapping[str, str], choice: TuningResult | None = None
) -> Board:
    """Build the board from the store, of one starting model or several.

    Args:
        graph: of all models.
        observer_failures: observer -> why it was left out of the run.
        choice: of the rows' settings, where the config searched them.

    Raises:
        StageError: the baseline failed; there is nothing to compare with.
    """
    if len(runs) == 1:
        return _assemble(runs[0], command, observer_failures, choice)[0]
    return _assemble_models(runs, graph, command, observer_failures)


def _assemble_models(runs: Sequence[Run], graph: Graph, command: str, observer_failures: Mapping[str, str]) -> Board:
    """Build the board of several starting models; one whose baseline failed is left out, with a warning.

    Raises:
        StageError: the baseline failed under every model.
    """
    boards, rows, failures = dict[str, Board](), dict[str, list[RowResult]](), dict[str, str]()
    for run in runs:
        label = run.comparison.start or ""
        try:
            boards[label], rows[label] = _assemble(run, command, observer_failures, None)
        except StageError as error:
            failures[label] = str(error)
    if not boards:
        raise StageError("; ".join(f"{label}: {reason}" for label, reason in failures.items()))
    first = next(iter(boards.values()))
    measured = measure_sharing(graph, runs[0].store, runs[0].outcome.ran).as_dict()
    board = join_models(boards, rows, SharingFacts.read({**first.sharing, **measured}))
    left_out = tuple(f"The starting model {label} is left out: {quoted(reason)}" for label, reason in failures.items())
    if not left_out or board.evidence is None:
        return board
    return board.model_copy(update={"warnings": (*left_out, *board.warnings)}).noting(board.evidence.builds, left_out)


def _assemble(
    run: Run, command: str, observer_failures: Mapping[str, str], choice: TuningResult | None
) -> tuple[Board, list[RowResult]]:
    """Build the board from the store; return it with the rows that it compares.

    Args:
        observer_failures: observer -> why it was left out of the run.

    Raises:
        StageError: the baseline failed; there is nothing to compare with.
    """
    config, evaluators = run.comparison.config, run.comparison.evaluators
    rows = [row_result(row, run) for row in run.comparison.rows]
    rows = rows if choice is None else choice.on_board(rows)
    baseline = next(row for row in rows if row.label == config.baseline)
    if baseline.failed:
        raise StageError(f"the baseline {baseline.label!r} failed, so there is nothing to compare with: {baseline.failed}")
    strengths = pair_strengths(run, rows)
    rows, counts = [strengths.added_to(row) for row in rows], screening_counts(run)
    board = build_board(
        name=config.name,
        description=config.description,
        config=config.model_dump(mode="json", by_alias=True),
        baseline=config.baseline,
        rows=rows,
        metrics=strengths.added_metrics(evaluators),
        examples=collect_examples(run),
        sharing={
            **measure_sharing(
                run.graph if choice is None else choice.with_trials(run.graph), run.store, run.outcome.ran
            ).as_dict(),
            "command": command,
            **({"data": counts.as_json()} if counts else {}),
            "versions": versions(),
        },
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        warnings=[
            *(f"observer {name} failed and was left out: {reason}" for name, reason in observer_failures.items()),
            *(f"{label}: {text}" for label, evaluator in evaluators.items() for text in evaluator.cautions()),
            *(_data_warnings(run.comparison, counts) if counts else ()),
            *_mirror_warnings(run),
            *strengths.warnings,
            *run_warnings(run),
        ],
        judges=judge_repeatability(run),
        trainings=(run.graph.trainings, largest_plan(run.comparison).trainings) if config.adds_seeds else None,
        prompts=prompts_so_far(run),
        mixed_judges=any(judge.allow_mixed_judges for judge in run.comparison.judges.values()),
    )
    return board, rows


def _data_warnings(comparison: Comparison, counts: ScreeningCounts) -> list[str]:
    """Return warnings of too few examples, and of benchmarks' questions in the training data."""
    dropped = comparison.config.evaluation.contaminated == "drop"
    return [*fewer_than_asked(comparison, counts), *map(quoted, overlap_warnings(counts.benchmarks, dropped))]


def _mirror_warnings(run: Run) -> list[str]:
    """Return why the mirror was left out, by this process or by a worker."""
    reason = (run.store.mirror.failed if run.store.mirror is not None else None) or run.outcome.mirror
    return [quoted(reason)] if reason else []
