"""The report of `harness plan`: the graph of a comparison against the store, the data, and the cost of judges and GPUs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import disk_usage
from typing import TYPE_CHECKING

from pydantic import JsonValue

from harness.run.elsewhere import RowElsewhere, rows_elsewhere, served_problems
from harness.run.estimates.judge import JudgeEstimate, judge_estimates, missing_keys

if TYPE_CHECKING:
    from harness.board.entries import FamilyEntry
    from harness.config import Comparison
    from harness.run.estimates.cpu import CpuEstimate
    from harness.run.estimates.disk import DiskEstimate
    from harness.run.estimates.gpu import Gpu, GpuReport
    from harness.run.estimates.makespan import SpreadEstimate
    from harness.run.estimates.measured import Calibration
    from harness.run.graph import Graph, Stage
    from harness.run.stages.screening import Screening
    from harness.run.tuning import Search


ONE_SEED = (
    "One seed: seeds are not sampled, so the board will mark no difference as significant, and its intervals will be over "
    "prompts alone; give two seeds or more, such as seeds: [0, 1]."
)


@dataclass(frozen=True)
class RowEstimate:
    """The stages of a row over the seeds that it begins with, as if it ran alone.

    Attributes:
        trainings: its own, without the supervised fine-tuning that rows start from; 0 for a model from elsewhere.
        stages: all that it needs, with the rows that it is compared with by an evaluator; `waiting` of them are not in the
            store.
        gpu_hours: of all these stages; None unless `--gpu` asks for them.
    """

    label: str
    kind: str
    trainings: int
    stages: int
    waiting: int
    gpu_hours: float | None = None


def row_estimates(
    comparison: Comparison, graph: Graph, present: Collection[str], hours: Mapping[str, float] | None
) -> list[RowEstimate]:
    """Return what each row of a plan takes, in the config's order.

    Args:
        present: keys that the store holds.
        hours: stage -> GPU-hours; None where they are not estimated.
    """
    estimates = []
    for config in comparison.rows:
        plans = [row for row in graph.rows if row.label == config.label]
        needed = {key for row in plans for key in graph.needed_by(row)}
        estimates.append(
            RowEstimate(
                label=config.label,
                kind=config.kind,
                trainings=len({key for row in plans for key in row.training}),
                stages=len(needed),
                waiting=len(needed - set(present)),
                gpu_hours=None if hours is None else sum(hours.get(key, 0.0) for key in needed),
            )
        )
    return estimates


@dataclass(frozen=True)
class StatesEstimate:
    """The intermediate states of a plan's trainings.

    Attributes:
        states: of `trainings`, each trained on the way to its end.
        waiting: states that the store does not hold.
        again: trainings that the store holds and that are gone through again for states, up to the last of them.
        evaluations: of states, without those that rows need anyway.
    """

    states: int
    trainings: int
    waiting: int
    again: int
    evaluations: int

    def line(self) -> str:
        """Return one line for people."""
        text = (
            f"learning curves: {self.states} states of {self.trainings} trainings, {self.waiting} to make on the way, with "
            f"{self.evaluations} evaluations"
        )
        return text + (
            f"; {self.again} trainings that the store has are gone through again, up to the last state" * bool(self.again)
        )


def states_estimate(graph: Graph, present: Collection[str]) -> StatesEstimate | None:
    """Return the intermediate states of a plan; None where it has none.

    Args:
        present: keys that the store holds.
    """
    from harness.run.records import StatePayload

    training = {stage.key: StatePayload.of(stage).training for stage in graph if stage.kind == "state"}
    if not training:
        return None
    rows = {key for row in graph.rows for keys in row.evaluations.values() for key in keys}
    during = {key for row in graph.rows for state in row.states for key in state.evaluations.values()}
    waiting = training.keys() - set(present)
    return StatesEstimate(
        states=len(training),
        trainings=len(set(training.values())),
        waiting=len(waiting),
        again=len({training[key] for key in waiting} & set(present)),
        evaluations=len(during - rows),
    )


@dataclass(frozen=True)
class TrialsReport:
    """The search that runs before the board's rows.

    Attributes:
        rows: label -> its trials; 0 for a row that trains and keeps its own settings.
        trainings, stages: of the trials that are known before any ran: all of them, unless some depend on earlier ones.
        remaining: stages that the store does not hold.
        more: whether further trials depend on how these turn out.
        judges: what the trials would ask of judges.
        gpu_hours: None unless a GPU was asked for.
    """

    rows: dict[str, int]
    metric: str
    sampler: str
    trainings: int
    stages: int
    remaining: int
    more: bool = False
    judges: Sequence[JudgeEstimate] = ()
    gpu_hours: float | None = None

    def line(self) -> str:
        """Return the search for people."""
        counts = sorted({count for count in self.rows.values() if count})
        each = " or ".join(map(str, counts)) or "no"
        first = "of the first trials" if self.more else "in all"
        kept = [label for label, count in self.rows.items() if not count]
        default = f"; {', '.join(kept)} {'keeps its' if len(kept) == 1 else 'keep their'} settings" if kept else ""
        searched = f"{each} trials by {self.sampler} for each of {len(self.rows) - len(kept)} rows, chosen by {self.metric}"
        cost = f"{self.trainings:,} trainings and {self.stages:,} stages {first}, {self.remaining:,} to run"
        cost += f", {self.gpu_hours:,.1f} GPU-hours" if self.gpu_hours is not None else ""
        return (
            f"first, on the tuning split: {searched}: {cost}{default}; then the rows above, with the settings that were chosen"
        )


@dataclass(frozen=True)
class PlanReport:
    """A plan and its counts.

    Attributes:
        present: keys of stages that the store holds.
        requests: a stage's key -> how many rows need it.
        data: rows kept and left out, and why, with the prompts taken for equal; None where the hub is out of reach.
        gpu: None unless it was asked for.
        disk: bytes that remain to be written; None where the model's size is not known. `free` are free in the store's disk.
        cpu: the time on this machine's cores; None where it has GPUs, one was asked for, nothing is
            left to run, or torch is not installed.
        spread: over several workers or GPUs; None on one, and where there is nothing to say.
        keys: a message for each judge's key that the environment lacks, where that judge is still to be asked.
        most: the same with all the seeds and prompts that rows can have; None where the config adds none.
        elsewhere: the rows that train nothing, as they are models from elsewhere.
        states: the intermediate states that are evaluated; None where none are.
        rows: what each row takes.
        trials: the search that runs before `graph`, whose rows then have their chosen settings; None where there is none.
    """

    comparison: Comparison
    graph: Graph
    present: set[str]
    requests: Counter[str]
    data: Screening | None
    judges: Sequence[JudgeEstimate]
    gpu: GpuReport | None
    most: PlanReport | None = None
    elsewhere: Sequence[RowElsewhere] = ()
    states: StatesEstimate | None = None
    rows: Sequence[RowEstimate] = ()
    trials: TrialsReport | None = None
    cpu: CpuEstimate | None = None
    disk: DiskEstimate | None = None
    free: int = 0
    spread: SpreadEstimate | None = None
    keys: Sequence[str] = ()

    @property
    def lacking(self) -> list[str]:
        """Return everything that a run needs and this machine lacks: what the hub has, files, judges' keys."""
        return [*self.comparison.unreachable.values(), *self.comparison.missing.values(), *self.keys]

    def as_dict(self) -> dict[str, JsonValue]:
        """Return the report as JSON, for `--json`."""
        report: dict[str, JsonValue] = {
            "name": self.comparison.config.name,
            "stages": [self._stage(stage) for stage in self.graph],
            "rows": [asdict(row) for row in self.rows],
            "data": {**self.data.counts().as_json(), "pairs": [dict(pair) for pair in self.data.pairs]} if self.data else None,
            "judges": [asdict(item) for item in self.judges],
            "unreachable": dict(self.comparison.unreachable),
        }
        if self.comparison.unchecked:
            report["unchecked"] = dict(self.comparison.unchecked)
        if self.lacking:
            report["lacking"] = [*self.lacking]
        report["families"] = [family.model_dump(mode="json") for family in self.families]
        if self.warning_of_one_seed:
            report["one_seed"] = self.warning_of_one_seed
        if self.elsewhere:
            report["elsewhere"] = [asdict(row) for row in self.elsewhere]
        if self.states:
            report["states"] = asdict(self.states)
        if self.trials:
            report["tuning"] = asdict(self.trials)
        if self.gpu:
            report["gpu"] = self.gpu.as_dict()
        if self.disk:
            report["disk"] = self.disk.as_dict(self.free)
        if self.spread:
            report["spread"] = asdict(self.spread)
        if self.cpu:
            report["cpu"] = asdict(self.cpu)
        if self.most:
            config = self.comparison.config
            if config.adds_seeds:
                added, fewest, largest = "seeds", len(config.first_seeds), len(config.possible_seeds)
            else:
                added, fewest, largest = "prompts", config.evaluation.first_prompts, config.evaluation.most or 0
            report[added] = {
                "least": {**self._range(), added: fewest},
                "most": {**self.most._range(), added: largest},
            }
        return report

    @property
    def families(self) -> list[FamilyEntry]:
        """The tests that the board will correct together, if every row has every metric."""
        from harness.board.build import metric_entries
        from harness.board.entries import FamilyEntry

        config = self.comparison.config.model_dump(mode="json", by_alias=True)
        evaluators = self.comparison.evaluators.items()
        metrics = metric_entries({label: evaluator.metrics() for label, evaluator in evaluators}, (), config)
        compared = len(self.comparison.rows) - 1
        families = []
        for name, primary in (("primary metrics", True), ("other metrics", False)):
            keys = tuple(metric.key for metric in metrics if metric.primary == primary)
            if keys and compared:
                families.append(FamilyEntry(name=name, metrics=keys, tests=compared * len(keys)))
        return families

    def family_lines(self) -> list[str]:
        """Return the families in words, and the margins of practical equality."""
        section = self.comparison.config.statistics
        declared = section is not None and section.primary is not None
        origin = "declared in the config" if declared else "each evaluator's own: `statistics.primary` declares others"
        lines = []
        for family in self.families:
            primary = family.name == "primary metrics"
            metrics = f"{', '.join(family.metrics)} ({origin})" if primary else f"{len(family.metrics)} metrics"
            lines.append(f"{family.tests:,} tests of {family.name} are corrected together: {metrics}")
        if section is not None and section.equivalent_within:
            margins = ", ".join(f"{key} ±{margin:g}" for key, margin in section.equivalent_within.items())
            lines.append(f"practically equal within: {margins}")
        return lines

    @property
    def warning_of_one_seed(self) -> str | None:
        """A sentence where the board will say nothing of seeds; None where rows have several."""
        config = self.comparison.config
        return ONE_SEED if len(config.possible_seeds) == 1 else None

    def _range(self) -> dict[str, JsonValue]:
        """Return the cost in numbers, to stand beside that of the plan with the fewest or the most seeds or prompts."""
        dollars = [item.usd for item in self.judges]
        return {
            "trainings": self.graph.trainings,
            "stages": len(self.graph),
            "remaining": len(self.graph) - len(self.present),
            "judge_usd": None if None in dollars else sum(dollar or 0.0 for dollar in dollars),
            **({"gpu_hours": self.gpu.hours} if self.gpu else {}),
        }

    def _stage(self, stage: Stage) -> dict[str, JsonValue]:
        return {
            "key": stage.key,
            "kind": stage.kind,
            "title": stage.title,
            "rows": self.requests[stage.key],
            "in_store": stage.key in self.present,
            "inputs": dict(stage.inputs),
        }


def plan_report(
    comparison: Comparison,
    folder: Path,
    gpu: Gpu | None,
    lengths: tuple[float, float] | None,
    where: str = "the configuration",
    variables: Mapping[str, str] | None = None,
    cores: int = 0,
    workers: int = 0,
    calibration: Calibration | None = None,
) -> PlanReport:
    """Plan a comparison against the store in `folder`, which need not exist.

    Args:
        cores: that would run stages; 0 where GPUs would, whose time is estimated by `gpu` alone.
        workers: stages at a time; as many as `cores` if 0.
        calibration: where this machine's measured rates are; rules of thumb if None.
        variables: the environment; where it is given, the servers of served rows that are still to be asked are looked for.

    Raises:
        ConfigError: a split that is used has too few examples, or a served row's server is down or serves another model.
        DataError: the source's rows cannot be read.
    """
    from harness.config.schema import raise_all
    from harness.run.estimates.cpu import cpu_estimate
    from harness.run.estimates.disk import DiskEstimate, disk_estimate
    from harness.run.estimates.gpu import Lengths, gpu_report, measured_lengths
    from harness.run.estimates.makespan import spread_estimate
    from harness.run.kept_models import stages_in_store
    from harness.run.plan import largest_plan, plan
    from harness.run.stages.benchmarks import overlap, read_benchmarks, trained_on
    from harness.run.stages.screening import row_source_problems, screened, split_problems
    from harness.run.tuning import Search
    from harness.store import MANIFEST, Store

    kept = Store(folder) if folder.exists() else None

    def is_held(key: str) -> bool:
        return kept is not None and (kept.place(key) / MANIFEST).exists()

    def in_store(graph: Graph) -> set[str]:
        return stages_in_store(graph, is_held, kept.dropped) if kept is not None else set()

    least, search = plan(comparison), Search.of(comparison)
    if variables is not None:
        raise_all(served_problems(comparison, least, is_held, variables), where)
    rows = screened(comparison)
    loaded, screening = None, None
    if rows is not None:
        loaded, screening = rows
        if not screening.benchmarks:  # else counted where they were left out
            benchmarks = read_benchmarks(comparison.evaluators.values(), comparison.source)
            screening.benchmarks = overlap(benchmarks, trained_on(comparison, loaded))
        problems = split_problems(comparison, screening.counts(), screening.usable)
        if search is not None:
            problems += split_problems(search.on_tuning_split(), screening.counts(), screening.usable)
        raise_all([*problems, *row_source_problems(comparison, loaded)], where)
    evaluation, config = comparison.config.evaluation, comparison.config

    rates = None
    if calibration is not None and "model" not in comparison.unchecked:
        rates = calibration.rates(
            comparison, gpu, lambda: Lengths(*lengths, "given") if lengths else measured_lengths(comparison, loaded)
        )
    if rates is not None and gpu is not None:
        gpu = rates.calibrate(gpu)
    trials = None
    if search is not None:
        stages, alike = search.graph, search.on_tuning_split()
        present = in_store(stages)
        asked = judge_estimates(alike, stages, present, loaded["tuning"]) if loaded else []
        hours = gpu_report(alike, stages, present, gpu, loaded, lengths).hours if gpu else None
        trials = _trials(search, len(stages) - len(present), asked, hours)

    def report(graph: Graph, most: PlanReport | None = None) -> PlanReport:
        present = in_store(graph)
        disk = disk_estimate(comparison, graph, present, workers or cores)
        if search is not None and disk is not None:
            counted = in_store(search.graph) | graph.stages.keys()
            disk += disk_estimate(search.on_tuning_split(), search.graph, counted, workers or cores) or DiskEstimate()
        requests: Counter[str] = Counter(key for row in graph.rows for key in graph.needed_by(row))
        judges = judge_estimates(comparison, graph, present, loaded[evaluation.split]) if loaded else []
        estimate = gpu_report(comparison, graph, present, gpu, loaded, lengths) if gpu else None
        elsewhere = rows_elsewhere(comparison, graph, is_held)
        shown = gpu is None and cores and len(present) < len(graph) and "model" not in comparison.unchecked
        keys = missing_keys(graph, is_held, variables) if variables is not None else []
        # A GPU by name is one of as many as the largest training asks for, or as there are here.
        several = max([0 if cores else workers, *(stage.devices for stage in graph)]) if gpu else workers
        hours = estimate.by_stage if estimate else None
        spread = spread_estimate(graph, present, config.run.shards, several or 1, hours)
        return PlanReport(
            comparison=comparison,
            graph=graph,
            present=present,
            requests=requests,
            data=screening,
            judges=judges,
            gpu=estimate,
            most=most,
            elsewhere=elsewhere,
            states=states_estimate(graph, present),
            rows=row_estimates(comparison, graph, present, hours),
            trials=trials,
            cpu=cpu_estimate(comparison, graph, present, loaded, cores, rates) if shown else None,
            disk=disk,
            spread=spread,
            free=disk_usage(next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())).free,
            keys=[f"{key.field} = {key.value!r}: {key.fix}" for key in keys],
        )

    return report(least, report(largest_plan(comparison)) if config.grows else None)


def reports_of_models(reports: Sequence[PlanReport]) -> dict[str, JsonValue]:
    """Return the reports of several starting models by label, and the counts of their stages together, each counted once."""
    keys = {key for report in reports for key in report.graph.stages}
    present = {key for report in reports for key in report.present}
    return {
        "name": reports[0].comparison.config.name,
        "models": {report.comparison.start or "": report.as_dict() for report in reports},
        "together": {"stages": len(keys), "remaining": len(keys - present)},
    }


def _trials(search: Search, remaining: int, judges: Sequence[JudgeEstimate], gpu_hours: float | None) -> TrialsReport:
    tuning = search.tuning
    return TrialsReport(
        rows={series: search.count(entry) if entry.default is None else 0 for series, entry in tuning.entries.items()},
        metric=f"{tuning.evaluator}/{tuning.metric}",
        sampler=tuning.section.sampler,
        trainings=search.graph.trainings,
        stages=len(search.graph),
        remaining=remaining,
        more=search.depends,
        judges=judges,
        gpu_hours=gpu_hours,
    )
