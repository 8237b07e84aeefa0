"""`run.keep_models`: drop the models of rows whose answers and scores exist, and have them made again when needed.

A model that was answered with and scored is needed by nothing of its run any more. Its weights may then be dropped, while the
artifact stays with its history and facts, so that a board is made without them. A stage that is missing later, such as a new
evaluator's, has the model made again.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from harness.board.build import metric_entries
from harness.config import Comparison
from harness.config.schema import KeepModels, RunSection
from harness.errors import DataError, StoreError
from harness.models.delta_note import is_delta, stands_for
from harness.run.executors.events import Events, LiveValues
from harness.run.graph import DROPPABLE, MODEL, SHARDS, Graph, RowPlan, Stage
from harness.run.results import Evaluation
from harness.store import Store
from harness.store.collect import collecting
from harness.store.roots import Root, roots


def stages_in_store(graph: Graph, holds: Callable[[str], bool], dropped: Callable[[str], Collection[str]]) -> set[str]:
    """Return the stages that need not run: those in the store, without dropped models that a missing stage needs.

    Args:
        holds: whether the store has a stage's artifact, with its weights or without.
        dropped: returns the files that were dropped from it.
    """
    present = {key for key in graph.stages if holds(key)}
    # Children first: a model that is to be made again may need the model of the round before it.
    for stage in reversed(list(graph)):
        if stage.key not in present:
            present -= {key for key in stage.parents & present if graph.stages[key].kind in DROPPABLE and dropped(key)}
    return present


def missing_models(section: RunSection, graph: Graph, dropped: Callable[[str], Collection[str]]) -> set[str]:
    """Return the rows' dropped models, where the config says `keep_models: all` itself; none by default."""
    if section.keep_models != "all" or "keep_models" not in section.model_fields_set:
        return set()
    models = {row.model for row in graph.rows if row.model in graph.stages}
    return {key for key in models if graph.stages[key].kind in DROPPABLE and dropped(key)}


@dataclass
class KeptModels(Events):
    """Drops models as the last stage that needs them ends.

    Attributes:
        policy: `run.keep_models`.
        root: of this run; what another run of the store needs is not dropped.
        at_end: whether nothing is dropped before `finish`: later prompts or chosen settings may need any model again.
        value: the score of a row at one seed, the larger the better; None where it has none.
    """

    policy: KeepModels
    store: Store
    root: Root
    at_end: bool
    value: Callable[[RowPlan], float | None]
    _graph: Graph = field(default_factory=Graph)
    _users: dict[str, set[str]] = field(default_factory=dict)  # model -> stages that are still to use it
    _best: dict[tuple[int, str], tuple[float, str]] = field(default_factory=dict)  # seed and start -> value and model

    @classmethod
    def of(cls, comparison: Comparison, store: Store, root: Root) -> KeptModels:
        """Return the keeper of a comparison's run."""
        config = comparison.config
        at_end = config.evaluation.until is not None or config.tuning is not None
        return cls(config.run.keep_models, store, root, at_end, _first_primary(comparison, store))

    def watch(self, graph: Graph, present: set[str]) -> None:
        """Take a graph that is about to run without the stages that are `present`."""
        self._graph = graph
        users = dict(_users_of_models(graph))
        self._users = {model: {key for key in keys if key not in present} for model, keys in users.items()}
        if not self.at_end:
            self._settle([model for model, left in self._users.items() if not left and model in present])

    def started(self, stage: Stage) -> None:
        pass

    def progress(self, key: str, done: int, total: int, note: str) -> None:
        pass

    def measured(self, key: str, values: LiveValues) -> None:
        pass

    def again(self, stage: Stage, reason: str) -> None:
        pass

    def finished(self, stage: Stage, seconds: float, error: str | None) -> None:
        if error is not None and stage.kind not in SHARDS:
            return  # it is tried again by the next run, which needs its model; of a shard its stage does the work
        unused = []
        for model in stage.parents & self._users.keys():
            self._users[model].discard(stage.key)
            if not self._users[model]:
                unused.append(model)
        if not self.at_end:
            self._settle(unused)

    def finish(self, graphs: Sequence[Graph]) -> None:
        """Drop what is left to drop once the board is written; models with users that failed stay."""
        for graph in graphs:
            present = {key for key in graph.stages if (self.store.place(key)).is_dir()}
            self._graph = graph
            users = _users_of_models(graph)
            self._settle([model for model, keys in users if set(keys) <= present and model in present])

    def _settle(self, models: Sequence[str]) -> None:
        """Drop models that nothing of this run needs, by the policy."""
        if self.policy == "all":
            return
        for model in models:
            rows = [row for row in self._graph.rows if row.model == model] if self.policy == "best" else []
            for row in rows:
                value, place = self.value(row), (row.seed, row.start)
                best, holder = self._best.get(place, (-math.inf, ""))
                if value is None or (value <= best and holder != model):
                    continue
                self._best[place] = (value, model)
                if holder and holder != model:
                    self._drop(holder)
            if all(model != holder for _, holder in self._best.values()):
                self._drop(model)

    def _drop(self, model: str) -> None:
        # Under the lock that runs register their needs with: one that registers now is seen, or finds the model dropped.
        with suppress(DataError, StoreError), collecting(self.store):
            if not self.store.dropped(model) and not self._is_needed_elsewhere(model):
                folder = self.store.place(model) / MODEL
                self.store.drop(model, MODEL, stands_for(folder, MODEL) if is_delta(folder) else None)

    def _is_needed_elsewhere(self, model: str) -> bool:
        """Return whether another run needs a model; a note that cannot be read may be of one that does."""
        own = (self.root.machine, self.root.folder)
        others = (root for _, root in roots(self.store.root) if root is None or (root.machine, root.folder) != own)
        return any(root is None or (not root.gone and model in root.keys) for root in others)


def _users_of_models(graph: Graph) -> Iterator[tuple[str, list[str]]]:
    """Yield each model that may be dropped with the stages that use it."""
    users: dict[str, list[str]] = {stage.key: [] for stage in graph if stage.kind in DROPPABLE}
    for stage in graph:
        for parent in stage.parents & users.keys():
            users[parent].append(stage.key)
    yield from users.items()


def _first_primary(comparison: Comparison, store: Store) -> Callable[[RowPlan], float | None]:
    """Return the function that gives a row's mean of the first primary metric, with its sign turned where less is better."""
    config = comparison.config.model_dump(mode="json", by_alias=True)
    metrics = {label: evaluator.metrics() for label, evaluator in comparison.evaluators.items()}
    first = next((metric for metric in metric_entries(metrics, (), config) if metric.primary), None)

    def value(row: RowPlan) -> float | None:
        if first is None:
            return None
        evaluator, _, name = first.key.partition("/")
        try:
            scores = Evaluation.of([store.open(key) for key in row.evaluations.get(evaluator, ())]).scores()
        except StoreError:
            return None
        values = [score.value for score in scores if score.metric == name and math.isfinite(score.value)]
        if not values:
            return None
        return statistics.fmean(values) * (-1 if first.higher_is_better is False else 1)

    return value
