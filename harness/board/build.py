"""Build a board from the results of rows, and load one with its scores to compare its rows again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

import numpy as np

from harness.api.types import Cost, Metric, Score
from harness.board.analysis import analyse
from harness.board.board import Board, ExampleRow, StatisticsEntry, board_scores, board_states
from harness.board.compare import DRAWS, FLIPS, LEVEL, RowResult, RowState, Statistics, readings
from harness.board.declared import Declared
from harness.board.entries import (
    METHODS,
    CostEntry,
    Delta,
    MetricEntry,
    RepeatabilityEntry,
    RowEntry,
    ScoreEntry,
    StateEntry,
    WinsEntry,
    first_duplicate,
)
from harness.board.evidence import BuildRecord
from harness.board.facts import Provenance, SharingFacts
from harness.board.files import SCORES, STATES, Scores, States, digest
from harness.board.learning import learning_curves
from harness.board.published import is_published_table, published_board
from harness.board.sequential import Decisions, Design, PromptsDesign, SeedsDesign, decisions
from harness.board.statistics import Values, seeds_t_test, standardised, wins
from harness.board.tuning import choice_spread, tuning_warnings, with_choice
from harness.board.views.text import plain, signed
from harness.errors import DataError, did_you_mean
from harness.version import __version__

FIXED_TEST = (
    "the larger of two two-sided p-values: the sign-flip permutation test over questions, which takes the trained "
    "models as given, and Student's t with the standard error over seeds and questions (what seeds do is "
    "taken from all rows)"
)
SEQUENTIAL_TEST = (
    "Student's t with the standard error over seeds and questions, at the levels that α-spending functions leave each "
    "look after seeds or prompts were added (Lan & DeMets 1983), with the variance between seeds taken from all rows and with "
    "the row's own; p holds at whichever look the row stopped"
)
# Warnings that the statistics gave, in words or numbers that a later version gives otherwise.
OF_STATISTICS = re.compile(
    r"^The null row .* differs from the baseline|yet smaller than what a change of seeds alone could show|"
    r"^No row comes first on "
)
# Warnings that comparing the rows again gives in other words than earlier versions did: one for each row and metric.
REWORDED = re.compile(r" is compared on \d+ of \d+ examples of |: \S+ reported no finite value of it\.$")
CURVE_POINTS = 200  # kept per seed; a board is read by people


__all__ = ["Board", "Derived", "ExampleRow", "RowResult", "build_board"]


@dataclass(frozen=True)
class Derived:
    """A metric of an earlier board without values per example and tests, such as its strengths; `scores` by label."""

    metric: MetricEntry
    scores: Mapping[str, ScoreEntry]


def build_board(
    *,
    name: str,
    description: str,
    config: Mapping[str, object],
    baseline: str,
    rows: Sequence[RowResult],
    metrics: Mapping[str, Sequence[Metric]],
    examples: Sequence[ExampleRow],
    sharing: Mapping[str, object],
    created: str,
    warnings: Sequence[str],
    commit: str | None = None,
    mixed_judges: bool = False,
    derived: Sequence[Derived] = (),
    trainings: tuple[int, int] | None = None,
    prompts: PromptsDesign | None = None,
    judges: Sequence[RepeatabilityEntry] = (),
) -> Board:
    """Compare every row with the baseline and put the best first.

    Args:
        metrics: per evaluator name; the first primary one decides the order, the others that of rows without it.
        commit: of the harness that ran, where known.
        derived: metrics without values per example, added to the rows they name.
        mixed_judges: compare rows although different judges, or versions of one, marked them.
        judges: how repeatable the verdicts of evaluators are whose judge was asked again.
        trainings: that ran, and that a fixed design would take, where `config` adds seeds only where they decide.
        prompts: what rows got more prompts by, where that decided.

    Raises:
        DataError: two rows share a label, or no row is called `baseline`.
    """
    _check_labels(rows, baseline)
    entries, declared = metric_entries(metrics, rows, config), Declared.of(config)
    design, margins = SeedsDesign.of(config) or prompts, declared.equivalent_within
    statistics = Statistics(rows, entries, baseline, mixed_judges=mixed_judges, design=design, equivalent_within=margins)
    board = Board(
        name=plain(name),
        description=plain(description),
        created=created,
        harness={"version": __version__} | ({"commit": commit} if commit else {}),
        config=plain(config),
        baseline=plain(baseline),
        metrics=(*entries, *(item.metric for item in derived)),
        rows=(),
        statistics=_methods(statistics, trainings, declared).model_copy(update={"judges": tuple(judges) or None}),
        sharing=SharingFacts.read(sharing),
    )
    curves = learning_curves(rows, entries)
    entered = [_with_derived(_with_states(row_entry(statistics, row), row, curves), derived) for row in rows]
    best_first = ordered(entered, board.primary, baseline if prompts else None)
    noted = (*declared.warnings(entries), *statistics.warnings)
    texts = (*warnings, *noted, *_noise_warnings(best_first, board.primary), *tuning_warnings(best_first))
    board = board.model_copy(
        update={
            "rows": best_first,
            "warnings": tuple(plain(text) for text in texts),
            "analysis": analyse(statistics, board.config),
        }
    ).with_examples(examples)
    board = board.with_scores({row.label: row.scores for row in rows if not row.failed})
    board = board.with_states(states_by_position(rows)) if curves else board
    record = BuildRecord(
        order=tuple(plain(row.label) for row in rows),
        metrics=tuple(f"{evaluator}/{metric.name}" for evaluator, listed in metrics.items() for metric in listed),
        derived=tuple(item.metric.key for item in derived),
        warnings=tuple(plain(text) for text in warnings),
        empty={plain(row.label): empty for row in rows if (empty := _seeds_without_scores(row))},
        mixed_judges=mixed_judges,
    )
    return board.noting({"": record})


def _seeds_without_scores(row: RowResult) -> dict[str, tuple[int, ...]]:
    """Return evaluator -> the seeds at which it ran and gave nothing, which a file of scores cannot hold."""
    empty = {name: tuple(seed for seed, scores in runs.items() if not scores) for name, runs in row.scores.items()}
    return {name: seeds for name, seeds in empty.items() if seeds and not row.failed}


def _with_states(entry: RowEntry, row: RowResult, curves: Mapping[str, tuple[StateEntry, ...]]) -> RowEntry:
    """Return a row's entry with its learning curve, or why it has none; as it is on a board without any."""
    if not curves:
        return entry
    states = curves.get(row.label)
    return entry.model_copy(update={"states": states, "without_states": None if states else row.without_states})


def states_by_position(rows: Sequence[RowResult]) -> States:
    """Return the scores per example of the rows' intermediate states."""
    states: dict[float, dict[str, Mapping[str, Mapping[int, Sequence[Score]]]]] = {}
    for row in rows:
        for state in row.states if not row.failed else ():
            states.setdefault(state.position, {})[row.label] = state.scores
    return states


def metric_entries(
    metrics: Mapping[str, Sequence[Metric]], rows: Sequence[RowResult], config: Mapping[str, object]
) -> tuple[MetricEntry, ...]:
    """Return all metrics that the evaluators name, without optional ones that no row has a score of.

    Those that the config declares primary come first, and are then the only primary ones.
    """
    optional = {f"{name}/{metric.name}" for name, listed in metrics.items() for metric in listed if metric.optional}
    scored = {
        f"{name}/{score.metric}"
        for row in rows
        for name, runs in row.scores.items()
        if any(key.startswith(f"{name}/") for key in optional)
        for scores in runs.values()
        for score in scores
    }
    entries = tuple(
        MetricEntry(
            key=f"{evaluator}/{metric.name}",
            description=metric.description,
            higher_is_better=metric.higher_is_better,
            primary=metric.primary,
            bounds=None if metric.bounds == (None, None) else metric.bounds,
            fit=metric.fit,
        )
        for evaluator, listed in metrics.items()
        for metric in listed
        if f"{evaluator}/{metric.name}" not in optional - scored
    )
    return Declared.of(config).applied(entries)


def _with_derived(row: RowEntry, derived: Sequence[Derived]) -> RowEntry:
    scores = {item.metric.key: item.scores[row.method] for item in derived if row.method in item.scores}
    return row.model_copy(update={"scores": {**row.scores, **scores}})


def _check_labels(rows: Sequence[RowResult], baseline: str) -> None:
    labels = [row.label for row in rows]
    if (label := first_duplicate(labels)) is not None:
        raise DataError(f"two rows of the board are called {label!r}: give each its own label")
    if baseline not in labels:
        raise DataError(f"the baseline {baseline!r} is not a row of the board: {did_you_mean(baseline, labels)}")


def ordered(rows: Sequence[RowEntry], primary: Sequence[MetricEntry], baseline: str | None = None) -> tuple[RowEntry, ...]:
    """Sort by the first primary metric, best first; rows without it by the first they have; failed rows last; ties as given.

    Args:
        baseline: where rows have different prompts, so that their differences from it are compared in place of their means.
    """
    base = next((row for row in rows if row.method == baseline), None)

    def mean(row: RowEntry, key: str) -> float:
        delta, against = row.delta(key), base.scores.get(key) if base else None
        return row.scores[key].mean if delta is None or against is None else against.mean + delta.mean

    def place(row: RowEntry) -> tuple[bool, int, float]:
        for number, metric in enumerate(primary):
            if metric.key in row.scores:
                better = mean(row, metric.key)
                return (row.failed is not None, number, better if metric.higher_is_better is False else -better)
        return (row.failed is not None, len(primary), 0.0)

    return tuple(sorted(rows, key=place))


def _noise_warnings(rows: Sequence[RowEntry], primary: Sequence[MetricEntry]) -> list[str]:
    """Warn where a null row, the baseline with other seeds, differs from it: small differences of other rows mean nothing."""
    warnings = []
    for row in rows:
        for metric in primary if row.is_null else ():
            delta = row.delta(metric.key)
            if delta is not None and (delta.low > 0 or delta.high < 0):
                warnings.append(
                    f"The null row {row.method} differs from the baseline on {metric.key} by {signed(delta.mean)} "
                    f"({signed(delta.low)} to {signed(delta.high)}) although only its seeds differ: "
                    "take no difference of that size seriously, and add seeds."
                )
    return warnings


def _methods(statistics: Statistics, trainings: tuple[int, int] | None, declared: Declared) -> StatisticsEntry:
    families, decided = statistics.correction.families, statistics.decisions
    return StatisticsEntry(
        methods=METHODS,
        interval="Student's t over seeds and questions, which the seeds share, after Hall's transformation; Wilson's score "
        "interval for means between two bounds; differences are paired by example, and by the value of the seed where both "
        "rows have it",
        test=(FIXED_TEST if decided is None else SEQUENTIAL_TEST) + "; "
        "a difference counts only where the test with the variance between the row's own seeds rejects too, at 3.5%, its "
        "interval excludes 0, and seeds were sampled",
        correction="Holm over all rows and primary metrics; the other metrics are a second family",
        draws=DRAWS,
        flips=FLIPS,
        level=LEVEL,
        families=families or None,
        sequential=None if decided is None else decided.seeds_entry(trainings),
        sequential_prompts=None if decided is None else decided.prompts_entry(),
        declared=True if declared.primary else None,
        equivalent_within=dict(declared.equivalent_within) or None,
    )


def look(
    design: Design,
    baseline: str,
    rows: Sequence[RowResult],
    metrics: Mapping[str, Sequence[Metric]],
    config: Mapping[str, object] | None = None,
) -> Decisions:
    """Return what the scores so far decide, and the rows that get another seed or more prompts.

    Args:
        config: as JSON, for the primary metrics that it declares; each evaluator's own if None.
    """
    entries = metric_entries(metrics, rows, config or {})
    values = {row.label: {} if row.failed else readings(row, entries)[0] for row in rows}
    return decisions(design, values, {row.label: row for row in rows}, entries, baseline)


def row_entry(statistics: Statistics, row: RowResult) -> RowEntry:
    """Return the board's entry of one row, with all its scores and differences."""
    seeds = row.seeds
    return RowEntry(
        method=plain(row.label),
        data=row.data,
        objective=row.objective,
        rounds=row.rounds,
        kind=row.kind,
        seeds=seeds,
        scores={} if row.failed else dict(_scores(statistics, row, seeds)),
        cost=mean_cost(row.costs),
        budget={key: float(value) for key, value in row.budget.items() if isfinite(value)},
        provenance=row.provenance,
        curves={str(seed): thinned(points) for seed, points in sorted(row.curves.items())},
        failed=None if row.failed is None else plain(row.failed) or "no reason given",
        tuning=row.tuning,
    )


def _scores(statistics: Statistics, row: RowResult, seeds: tuple[int, ...]) -> Iterator[tuple[str, ScoreEntry]]:
    for metric in statistics.metrics:
        values = statistics.values[row.label].get(metric.key)
        if values is None:
            continue
        filled = _per_seed(values)
        interval = statistics.intervals[row.label, metric.key]
        aggregate = row.is_published  # one number per seed: it has no examples to resample
        score = ScoreEntry(
            mean=interval.mean,
            low=None if aggregate else interval.low,
            high=None if aggregate else interval.high,
            n=interval.n,
            per_seed=tuple(filled.values()),
            seeds=None if tuple(filled) == seeds else tuple(filled),
            higher_is_better=metric.higher_is_better,
            delta=_delta(statistics, row, metric),
        )
        yield metric.key, score


def _delta(statistics: Statistics, row: RowResult, metric: MetricEntry) -> Delta | None:
    cell = row.label, metric.key
    gap = statistics.differences.get(cell)
    if gap is None:
        return None
    of_examples = metric.fit is None  # else a single example's pseudo-value says nothing of it
    baseline = next(other for other in statistics.rows if other.label == statistics.baseline)
    choice = with_choice(gap.mean, gap.low, gap.high, choice_spread(metric.key, row.tuning, baseline.tuning))
    better = wins(gap.per_example if metric.higher_is_better is not False else -gap.per_example)
    return Delta(
        mean=gap.mean,
        low=gap.low,
        high=gap.high,
        p=gap.p,
        p_adjusted=statistics.correction.adjusted[cell],
        one_seed=True if min(len(gap.row_seeds), len(gap.baseline_seeds)) < 2 else None,
        p_flips=gap.p_flips,
        p_design=gap.p_seeds_and_questions,
        p_own=gap.p_own,
        p_seeds=seeds_t_test(gap.row_seeds, gap.baseline_seeds),
        q=statistics.correction.discovery[cell],
        effect=standardised(gap.per_example) if of_examples else None,
        wins=WinsEntry(won=better.won, tied=better.tied, lost=better.lost) if of_examples else None,
        detectable=statistics.detectable(cell),
        n=gap.n,
        seeds=gap.seeds,
        other_data=True if _has_other_data(row, statistics) else None,
        choice_low=choice[0] if choice else None,
        choice_high=choice[1] if choice else None,
        p_equivalent=statistics.equivalence.get(cell),
    )


def _has_other_data(row: RowResult, statistics: Statistics) -> bool:
    """Return whether a row was trained on another source than the baseline, as far as both name theirs."""
    baseline = next(other for other in statistics.rows if other.label == statistics.baseline)
    sources = [Provenance.read(one.provenance).trained_on for one in (row, baseline)]
    return None not in sources and sources[0] != sources[1]


def _per_seed(values: Values) -> dict[int, float]:
    """Return by seed the mean over examples with a value; seeds without any are left out."""
    means = {}
    for seed, cells in zip(values.seeds, values.values, strict=True):
        finite = cells[np.isfinite(cells)]
        if len(finite):
            means[seed] = float(finite.mean())
    return means


def mean_cost(costs: Mapping[int, Cost]) -> CostEntry:
    """Return the mean cost of a seed; absent rather than 0 where a row has no data, training or judge of its own."""
    runs, means = list(costs.values()), {}
    if any(cost.seconds or cost.tokens_trained or cost.tokens_generated for cost in runs):
        names = ("seconds", "tokens_trained", "tokens_generated")
        means = {name: sum(getattr(cost, name) for cost in runs) / len(runs) for name in names}
    if any(cost.judge_tokens for cost in runs):
        means["judge_tokens"] = sum(cost.judge_tokens for cost in runs) / len(runs)
        dollars = [cost.usd for cost in runs if cost.usd is not None]
        if len(dollars) == len(runs):
            means["usd"] = sum(dollars) / len(runs)
    return CostEntry(**means)


def thinned(points: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Return evenly spaced points of a training's log, the last among them, without numbers that are not finite."""
    keep = np.unique(np.linspace(0, len(points) - 1, min(len(points), CURVE_POINTS)).round().astype(int))
    return [{key: float(value) for key, value in points[index].items() if isfinite(value)} for index in keep]


REPORTED = "reported"  # the example of a number that a paper printed


@dataclass(frozen=True)
class LoadedBoard:
    """A board with its scores per example, so that its rows can be compared again, alone or with others.

    Attributes:
        name: of the board in messages.
    """

    board: Board
    scores: Scores
    name: str
    states: States = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> LoadedBoard:
        """Read a board with the scores beside it, or a published table, whose printed means become scores of one example.

        Raises:
            DataError: it cannot be read, or its scores are missing or not those it was written with.
        """
        board = published_board(path) if is_published_table(path) else Board.read(path)
        if board.models:
            labels = ", ".join(entry.label for entry in board.models)
            raise DataError(
                f"{path} is a board of several starting models ({labels}): give boards of one, as the config makes with one "
                "`model`; its stages are in the store"
            )
        if board.is_published:
            return cls(board, _printed_scores(board), board.name)
        scores, states = board_scores(path), board_states(path) if STATES in (board.files or {}) else {}
        for name in (SCORES, *([STATES] if states else [])):
            beside = (path if path.is_dir() else path.parent) / name
            if (board.files or {}).get(name) != digest(beside.read_bytes()):
                raise DataError(
                    f"{beside} is not the file that its board.json was written with: `harness verify` says what is wrong"
                )
        return cls(board, scores, str(path), states)

    @property
    def rows(self) -> list[RowResult]:
        """The rows before their statistics. A row's cost is known as a mean over its seeds, and stays that."""
        return [self._row(entry) for entry in self.board.rows]

    def _row(self, entry: RowEntry) -> RowResult:
        cost = entry.cost
        mean = Cost(
            cost.seconds or 0.0,
            cost.tokens_trained or 0,  # type: ignore[arg-type]
            cost.tokens_generated or 0,  # type: ignore[arg-type]
            cost.judge_tokens or 0,  # type: ignore[arg-type]
            cost.usd,
        )
        return RowResult(
            label=entry.method,
            data=entry.data,
            objective=entry.objective,
            rounds=entry.rounds,
            kind=entry.kind,
            scores=self.scores.get(entry.method, {}),
            costs=dict.fromkeys(entry.seeds, mean),
            budget=entry.budget,
            provenance=entry.provenance,
            failed=entry.failed,
            curves={int(seed): points for seed, points in entry.curves.items()},
            states=[
                RowState(state.position, state.round, state.share, self.states.get(state.position, {}).get(entry.method, {}))
                for state in entry.states or ()
            ],
            without_states=entry.without_states,
            tuning=entry.tuning,
        )

    @property
    def metrics(self) -> dict[str, list[Metric]]:
        """The metrics with scores per example, by evaluator."""
        metrics: dict[str, list[Metric]] = {}
        over_rows = {item.metric.key for item in self.derived}
        for entry in self.board.metrics:
            evaluator, _, name = entry.key.partition("/")
            if entry.key not in over_rows:
                bounds = entry.bounds or (None, None)
                described = name, entry.description, entry.higher_is_better, entry.primary
                metric = Metric(*described, fit=entry.fit, bounds=bounds)
                metrics.setdefault(evaluator, []).append(metric)
        return metrics

    @property
    def derived(self) -> list[Derived]:
        """The metrics that rows have without scores per example."""
        return [
            Derived(metric, {row.method: row.scores[metric.key] for row in self.board.rows if metric.key in row.scores})
            for metric in self.board.unscored_metrics(self.scores)
        ]

    @property
    def lasting_warnings(self) -> list[str]:
        """Its warnings without those that comparing its rows again gives again."""
        board = self.board
        config = {"statistics": board.config["statistics"]} if "statistics" in board.config else {}
        again = build_board(
            name=board.name, description="", config=config, baseline=board.baseline, rows=self.rows, metrics=self.metrics,
            examples=(), sharing={}, created="", warnings=(), mixed_judges=board.mixed_judges,
            prompts=PromptsDesign.of(board.statistics.sequential_prompts),
        )  # fmt: skip
        earlier = board.methods < METHODS
        return [
            text
            for text in board.warnings
            if text not in again.warnings and not (earlier and OF_STATISTICS.search(text)) and not REWORDED.search(text)
        ]

    def with_costs(self, row: RowEntry) -> RowEntry:
        """Return a row with the costs, budget, curves and seeds that this board has of it, which scores do not hold."""
        before = self.board.row(row.method)
        if before is None or row.kind != before.kind:
            return row
        kept = {"cost": before.cost, "budget": before.budget, "curves": before.curves, "seeds": before.seeds}
        return row.model_copy(update=kept)


def _printed_scores(board: Board) -> Scores:
    scores: dict[str, dict[str, dict[int, list[Score]]]] = {}
    for row in board.rows:
        for key, score in row.scores.items():
            evaluator, _, metric = key.partition("/")
            runs = scores.setdefault(row.method, {}).setdefault(evaluator, {0: []})
            runs[0].append(Score(REPORTED, metric, score.mean))
    return scores
