"""Search the settings of rows: trials as rows of a comparison on the tuning split, and the choice between them.

Nothing here keeps a state of its own: which trials come next follows from the config and from the scores in the store, so a
killed search goes on with the same trials, whatever the number of workers. Optuna draws the settings.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.api.types import Cost
from harness.board.build import mean_cost
from harness.board.compare import RowResult
from harness.board.entries import SelectionEntry, SpaceEntry, TrialEntry, TuningEntry
from harness.board.facts import Provenance
from harness.board.tuning import best_trial, expected_best, selection
from harness.board.views.text import plain
from harness.config import Comparison, RowConfig
from harness.config.schema import Budget
from harness.config.spaces import MOST_TRIALS
from harness.config.strict_yaml import RawConfig
from harness.config.sweep import with_settings
from harness.config.tuning import Dimension, Settings, TunedEntry, Tuning
from harness.errors import ConfigError, StageError
from harness.models.judge.settings import BUILDERS
from harness.run.executors.events import Outcome
from harness.run.graph import Graph
from harness.run.plan import Planner
from harness.run.results import Run, row_result
from harness.store import Store

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study

BATCH = 4  # trials of a row that are asked for together where a trial depends on earlier ones
SHARES = (0.25, 0.5, 1.0)  # of the budget, at which halving trains


@dataclass
class Trial:
    """One attempt at an entry's settings.

    Attributes:
        number: counted from 0.
        rows: share of the budget -> the row that is trained on it; empty where the settings do not go together, for the reason
            in `problem`. The last share is the trial's own.
    """

    number: int
    settings: Settings
    rows: dict[float, RowConfig]
    problem: str = ""

    @property
    def share(self) -> float:
        """The largest share of the budget that it was trained on."""
        return max(self.rows, default=1.0)

    @property
    def row(self) -> RowConfig | None:
        """The row at that share."""
        return self.rows.get(self.share)


@dataclass
class Search:
    """The trials of all tuned entries of a comparison.

    Attributes:
        graph: the stages of all trials asked for so far, all on the tuning split.
        trials: series -> its trials.
    """

    comparison: Comparison
    tuning: Tuning
    graph: Graph = field(default_factory=Graph)
    trials: dict[str, list[Trial]] = field(default_factory=dict)

    @classmethod
    def of(cls, comparison: Comparison) -> Search | None:
        """Return the search of a comparison, its first trials asked for; None where its config has no `tuning` section."""
        if comparison.tuning is None:
            return None
        search = cls(comparison, comparison.tuning)
        search.ask()
        return search

    def ask(self, store: Store | None = None, outcome: Outcome | None = None) -> set[str]:
        """Add the next trials to the graph; call it until it adds none.

        Args:
            store: with what earlier trials made; None before any ran.

        Returns:
            the keys of the stages that the graph did not have.
        """
        before = set(self.graph.stages)
        run = None if store is None or outcome is None else self._run(store, outcome)
        for series, entry in self.tuning.searched.items():
            known = self.trials.setdefault(series, [])
            upto = self._upto(entry, run)
            if len(known) < upto:
                known += self._next(entry, [] if run is None else self._first_scores(series, run), upto)
            elif run is not None and self.tuning.section.pruner == "halving":
                self._promote(entry, run)
        planner = Planner(self.on_tuning_split())
        for seed in self.tuning.section.seeds:
            planner.add(seed)
        self.graph = planner.graph
        return self.graph.stages.keys() - before

    @property
    def depends(self) -> bool:
        """Whether some trials depend on how earlier ones turn out."""
        section = self.tuning.section
        return section.sampler == "tpe" or section.pruner != "none" or not isinstance(section.trials, int)

    def count(self, entry: TunedEntry) -> int:
        """Return how many trials an entry gets; a grid has no more than its combinations. Of a budget, the first alone."""
        trials = self.tuning.section.trials
        if not isinstance(trials, int):
            return 1
        if self.tuning.section.sampler != "grid":
            return trials
        return min(trials, math.prod(len(dimension.space.choices) for dimension in entry.space.values()))

    def _upto(self, entry: TunedEntry, run: Run | None) -> int:
        """Return how many trials an entry has after the next batch."""
        known, trials = self.trials[entry.series], self.tuning.section.trials
        if isinstance(trials, int):
            count = self.count(entry)
            return min(count, len(known) + BATCH) if self.tuning.section.sampler == "tpe" else count
        if run is None or not known:
            return max(1, len(known))
        # A budget: the first trial tells what one takes; as many follow as the rest pays for, were they alike.
        spent = [_amount(self._cost(trial, run), trials.unit) for trial in known]
        if not any(spent):
            return max(len(known), BATCH)  # all failed so far: a few more, and no more
        left = trials.amount - sum(spent)
        more = min(MOST_TRIALS - len(known), int(left // max(fmean(spent), 1e-9)))
        return len(known) + max(0, more if self.tuning.section.sampler != "tpe" else min(more, BATCH))

    def _next(self, entry: TunedEntry, scores: Sequence[float | None], upto: int) -> list[Trial]:
        """Return the next trials of an entry.

        Args:
            scores: of the trials so far, which those of TPE depend on.
        """
        known = self.trials[entry.series]
        dependent = self.tuning.section.sampler == "tpe"
        drawn = draw(
            entry.space,
            self.tuning.section.sampler,
            upto,
            seed=self.tuning.section.seeds[0],
            earlier=[(trial.settings, score) for trial, score in zip(known, scores, strict=True)] if dependent else [],
            higher_is_better=self.tuning.higher_is_better,
        )
        return [self._trial(entry, number, settings) for number, settings in enumerate(drawn) if number >= len(known)]

    def _trial(self, entry: TunedEntry, number: int, settings: Settings) -> Trial:
        try:
            row = self.tuning.with_settings(entry.row, settings)
        except ConfigError as error:
            return Trial(number, settings, {}, "; ".join(problem.fix for problem in error.problems) or str(error))
        share = SHARES[0] if self.tuning.section.pruner == "halving" else 1.0
        return Trial(number, settings, {share: on_share(row, number, share)})

    def _promote(self, entry: TunedEntry, run: Run) -> None:
        """Let the better half of the trials at the largest share so far train anew on the next one."""
        trials = self.trials[entry.series]
        reached = max((trial.share for trial in trials if trial.rows), default=1.0)
        if reached == 1.0:
            return
        scores = {
            trial.number: self._score(self._result(trial, run)) for trial in trials if trial.rows and trial.share == reached
        }
        sign = -1 if self.tuning.higher_is_better else 1
        finished = sorted((sign * score, number) for number, score in scores.items() if score is not None)
        share = SHARES[SHARES.index(reached) + 1]
        for _, number in finished[: math.ceil(len(finished) / 2)]:
            row = self.tuning.with_settings(entry.row, trials[number].settings)
            trials[number].rows[share] = on_share(row, number, share)

    def on_tuning_split(self) -> Comparison:
        """Return the comparison of all trials, with the evaluator that decides; the held-out split is in no stage of it."""
        config, section = self.comparison.config, self.tuning.section
        fixed = {"split": "tuning", "prompts": section.prompts, "until": None, "start": None, "most": None}
        fixed |= {"during": None, "during_evaluators": None}
        evaluation = config.evaluation.model_copy(update=fixed)
        rows = [row for trials in self.trials.values() for trial in trials for row in trial.rows.values()]
        rows += [row for row in self.comparison.rows if row.label in self.tuning.opponents]
        label = self.tuning.evaluator
        return replace(
            self.comparison,
            config=config.model_copy(update={"evaluation": evaluation, "seeds": section.seeds}),
            rows=tuple(rows),
            evaluators={label: self.comparison.evaluators[label]},
            judges={name: judge for name, judge in self.comparison.judges.items() if name in (label, BUILDERS)},
            tuning=None,
        )

    # What the trials made

    def _run(self, store: Store, outcome: Outcome) -> Run:
        return Run(self.on_tuning_split(), self.graph, store, outcome)

    def _first_scores(self, series: str, run: Run) -> list[float | None]:
        """Return the scores of an entry's trials at the share of the budget that all were trained on."""
        rows = [next(iter(trial.rows.values()), None) for trial in self.trials[series]]
        return [self._score(None if row is None else row_result(row, run)) for row in rows]

    def _result(self, trial: Trial, run: Run) -> RowResult | None:
        return None if trial.row is None else row_result(trial.row, run)

    def _cost(self, trial: Trial, run: Run) -> Cost:
        """Return what a trial took over all its seeds and shares."""
        costs = [spent for row in trial.rows.values() for spent in row_result(row, run).costs.values()]
        return sum(costs, Cost())

    def _score(self, result: RowResult | None) -> float | None:
        """Return the mean over seeds of a trial's mean; None where it failed, or a seed has no finite value."""
        seeds = self._seed_scores(result)
        return None if not seeds or None in seeds.values() else fmean(score for score in seeds.values() if score is not None)

    def _seed_scores(self, result: RowResult | None) -> dict[int, float | None]:
        runs = {} if result is None or result.failed else result.scores.get(self.tuning.evaluator, {})
        means: dict[int, float | None] = {}
        for seed, scores in runs.items():
            values = [score.value for score in scores if score.metric == self.tuning.metric and isfinite(score.value)]
            means[seed] = fmean(values) if values else None
        return means

    def finish(self, store: Store, outcome: Outcome) -> TuningResult:
        """Choose the best trial of every entry.

        Raises:
            StageError: the baseline has none, so there is nothing to compare with.
        """
        run = self._run(store, outcome)
        entries = {series: self._entry(entry, run) for series, entry in self.tuning.entries.items()}
        chosen = {series: entry.chosen for series, entry in entries.items() if entry.chosen is not None}
        failed = {
            series: f"every trial of its tuning failed, the first: {(entry.trials or ())[0].reason}"
            for series, entry in entries.items()
            if entry.default is None and entry.chosen is None
        }
        baseline = self.comparison.config.baseline
        settled = self.tuning.settled(self.comparison.rows, chosen, baseline)
        base = next(row for row in settled if row.label == baseline)
        if base.series in failed:
            raise StageError(f"the baseline {baseline!r} failed, so there is nothing to compare with: {failed[base.series]}")
        kept = tuple(row for row in settled if row.series not in failed)
        lost = [(row, failed[row.series]) for row in settled if row.series in failed]
        config = settled_config(self.tuning, entries)
        return TuningResult(replace(self.comparison, rows=kept, tuning=None), self.graph, entries, lost, config)

    def _entry(self, entry: TunedEntry, run: Run) -> TuningEntry:
        """Return an entry's search as the board has it."""
        tuning, section = self.tuning, self.tuning.section
        if entry.default is not None:
            return TuningEntry(default=entry.default)
        trials: list[TrialEntry] = []
        cost = Cost()
        results = {trial.number: self._result(trial, run) for trial in self.trials[entry.series]}
        whole = {trial.number: results[trial.number] for trial in self.trials[entry.series] if trial.share == 1}
        for trial in self.trials[entry.series]:
            result = results[trial.number]
            reason = trial.problem if result is None else result.failed
            scores = self._seed_scores(result)
            for seed in section.seeds:
                score = scores.get(seed)
                why = None if score is not None else reason or self._evaluation_failure(trial, run)
                trials.append(
                    TrialEntry(
                        number=trial.number,
                        settings=dict(trial.settings),
                        seed=seed,
                        score=score,
                        share=trial.share,
                        state="failed" if score is None else "complete" if trial.share == 1 else "pruned",
                        reason=None if why is None else plain(why),
                    )
                )
            cost += self._cost(trial, run)
        best = best_trial(trials, tuning.higher_is_better)
        found = TuningEntry(
            metric=f"{tuning.evaluator}/{tuning.metric}",
            higher_is_better=tuning.higher_is_better,
            sampler=section.sampler,
            pruner="halving" if section.pruner == "halving" else None,
            budget=None if isinstance(section.trials, int) else {section.trials.unit: section.trials.amount},
            space={path: _described(dimension) for path, dimension in entry.space.items()},
            trials=tuple(trials),
            chosen=None if best is None else dict(self.trials[entry.series][best].settings),
            number=best,
            cost=mean_cost({0: cost}),
            selection=None if best is None else self._selection(whole, best),
        )
        return found.model_copy(update={"expected": expected_best(found)})

    def _selection(self, results: Mapping[int, RowResult | None], best: int) -> SelectionEntry | None:
        """Return how certain the choice is, from the scores per prompt of the trials that finished."""
        tables = {number: table for number, result in results.items() if (table := self._by_prompt(result))}
        common = sorted(set.intersection(*(set(table) for table in tables.values())))
        numbers = list(tables)
        values = np.array([[tables[number][prompt] for prompt in common] for number in numbers])  # [trials, prompts]
        return selection(values, numbers.index(best), self.tuning.higher_is_better)

    def _by_prompt(self, result: RowResult | None) -> dict[str, float]:
        """Return the mean of a trial's finite scores on each prompt over seeds and samples; empty where it failed."""
        if self._score(result) is None or result is None:
            return {}
        values: dict[str, list[float]] = {}
        for scores in result.scores[self.tuning.evaluator].values():
            for score in scores:
                if score.metric == self.tuning.metric and isfinite(score.value):
                    values.setdefault(score.question or score.example, []).append(score.value)
        return {prompt: fmean(scores) for prompt, scores in values.items()}

    def _evaluation_failure(self, trial: Trial, run: Run) -> str:
        rows = [plan for plan in run.graph.rows if trial.row and plan.label == trial.row.label]
        keys = [key for plan in rows for blocks in plan.evaluations.values() for key in blocks]
        return run.failure(*keys) or f"{self.tuning.evaluator} reported no finite {self.tuning.metric}"


@dataclass(frozen=True)
class TuningResult:
    """The settings of all rows, chosen.

    Attributes:
        comparison: with them; without the rows whose every trial failed.
        trials: the stages of all trials.
        entries: series -> its search, for the board.
        lost: the rows whose every trial failed, with the reason.
        config: the config with the settings filled in and without `tuning`.
    """

    comparison: Comparison
    trials: Graph
    entries: Mapping[str, TuningEntry]
    lost: Sequence[tuple[RowConfig, str]]
    config: RawConfig

    def with_trials(self, graph: Graph) -> Graph:
        """Return a graph of the board's rows with the trials beside them."""
        return replace(graph, stages={**self.trials.stages, **graph.stages}, rows=[*self.trials.rows, *graph.rows])

    def passed_over(self, graph: Graph) -> set[str]:
        """Return the stages of trials that the board does without: a failure among them is a trial's, and not a row's.

        Args:
            graph: of the board's rows.
        """
        lost = {row.series for row, _ in self.lost}
        needed = {
            key for row in self.trials.rows if row.label.rpartition("[trial ")[0] in lost for key in self.trials.needed_by(row)
        }
        return self.trials.stages.keys() - needed - graph.stages.keys()

    def on_board(self, rows: Sequence[RowResult]) -> list[RowResult]:
        """Return the results of rows with their search, and the rows that have no settings as failed ones."""
        series = {row.label: row.series for row in self.comparison.rows}
        base = self.entries.get(series[self.comparison.config.baseline])
        searched = [replace(row, tuning=base if row.kind == "null" else self.entries.get(series[row.label])) for row in rows]
        lost = [
            RowResult(
                label=row.label,
                data=row.data,
                objective=row.objective,
                rounds=len(row.rounds),
                kind=row.kind,
                scores={},
                costs={},
                budget={},
                provenance=Provenance.read({"method": row.method}),
                failed=reason,
                tuning=self.entries[row.series],
            )
            for row, reason in self.lost
        ]
        return [*searched, *lost]


def settled_config(tuning: Tuning, entries: Mapping[str, TuningEntry]) -> RawConfig:
    """Return a config without `tuning` whose rows have the chosen settings; grids and sweeps are written out.

    Args:
        entries: series -> its search.
    """
    methods: list[Any] = [
        {name: value for name, value in item.items() if name != "tuning"} if isinstance(item, Mapping) else item
        for item in tuning.raw["methods"]
    ]
    for series, entry in tuning.searched.items():
        place = int(entry.place.rpartition(".")[2])
        methods[place] = with_settings(entry.entry, entries[series].chosen or {})
    kept = {name: value for name, value in tuning.raw.items() if name != "tuning"}
    return {**kept, "name": f"{tuning.raw['name']}-settled", "methods": methods}


def trial_label(series: str, number: int, share: float = 1.0) -> str:
    """Return the label of a trial's row: in titles, and for people."""
    return f"{series}[trial {number + 1}{f', {share:.0%}' if share < 1 else ''}]"


def on_share(row: RowConfig, number: int, share: float) -> RowConfig:
    """Return a trial's row with a share of the row's budget; each of its rounds keeps a prompt and a unit of the limit."""
    label = trial_label(row.series, number, share)
    if share == 1:
        return replace(row, label=label)
    least, limit = row.planned_rounds, row.budget.limit
    part = {"prompts": max(least, round(row.budget.prompts * share))}
    if limit is not None:
        part[limit.unit] = max(least, round(limit.amount * share))
    return replace(row, label=label, budget=row.budget.changed(Budget(**part)))


def _amount(cost: Cost, unit: str) -> float:
    return cost.seconds if unit == "seconds" else float(cost.tokens_trained + cost.tokens_generated)


def _described(dimension: Dimension) -> SpaceEntry:
    space = dimension.space
    return SpaceEntry(
        low=space.low, high=space.high, log=space.log or None, choices=space.choices or None, source=space.source or None
    )


# Drawing


def draw(
    space: Mapping[str, Dimension],
    sampler: str,
    count: int,
    *,
    seed: int,
    earlier: Sequence[tuple[Settings, float | None]] = (),
    higher_is_better: bool = True,
) -> list[Settings]:
    """Return the settings of the first `count` trials, those of `earlier` included.

    They follow from the arguments alone. Rows with equal spaces draw equal settings, so that no row is luckier than another.
    Without `earlier`, the first trials of a longer search are those of a shorter one.

    Args:
        earlier: settings and scores of trials that ran, None for a failed one; the others are drawn knowing them.
    """
    import optuna

    # Optuna says on standard error what the journal says too.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {path: _distribution(dimension) for path, dimension in space.items()}
    study = optuna.create_study(
        direction="maximize" if higher_is_better else "minimize",
        sampler=_sampler(sampler, space, _seed_of(space, seed, len(earlier))),
    )
    for settings, score in earlier:
        _tell(study, settings, score, distributions)
    drawn = [dict(settings) for settings, _ in earlier]
    while len(drawn) < count:
        asked = study.ask(distributions).params
        drawn.append({path: asked[path] for path in space})
    return list(drawn)


def _seed_of(space: Mapping[str, Dimension], seed: int, earlier: int) -> int:
    words = json.dumps([seed, earlier, {path: str(dimension.space) for path, dimension in sorted(space.items())}])
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:4], "big")


def _distribution(dimension: Dimension) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    space = dimension.space
    if space.choices:
        return CategoricalDistribution(space.choices)
    assert space.low is not None and space.high is not None
    if dimension.whole:
        return IntDistribution(int(space.low), int(space.high), log=space.log)
    return FloatDistribution(space.low, space.high, log=space.log)


def _sampler(name: str, space: Mapping[str, Dimension], seed: int) -> BaseSampler:
    from optuna.samplers import GridSampler, RandomSampler, TPESampler

    if name == "tpe":
        return TPESampler(seed=seed)
    if name == "grid":
        return GridSampler({path: list(dimension.space.choices) for path, dimension in space.items()}, seed=seed)
    return RandomSampler(seed=seed)


def _tell(study: Study, settings: Settings, score: float | None, distributions: dict[str, BaseDistribution]) -> None:
    from optuna.trial import TrialState, create_trial

    state = TrialState.COMPLETE if score is not None else TrialState.FAIL
    study.add_trial(create_trial(state=state, value=score, params=dict(settings), distributions=distributions))
