"""What an analysis works with: a config to vary, the store, and what was made in it.

An analysis that needs trained rows hands a config to `harness.comparison.compare`; one that needs data only has the planned
graph cut down to the stages that make it. Both go through the store, so analyses share work with each other and with any
comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from harness import comparison
from harness.analysis.made import GOLD, Made
from harness.errors import ConfigError, Problem, StageError
from harness.execute.local import LocalExecutor
from harness.graph import Graph, RowPlan
from harness.interfaces import Component
from harness.observers import Observers
from harness.plan import plan
from harness.registry import Kind, Registry
from harness.resolve import Comparison, resolve
from harness.stages.context import Context, no_secret
from harness.stages.services import PolicyServices, Services
from harness.store import Store
from harness.types import Prompt, Sampling


@dataclass(frozen=True)
class Means:
    """How an analysis may run.

    Attributes:
        folder: where its comparisons leave their boards and logs.
        store: where artifacts are kept and found.
        workers: processes; each computes on one thread, or on a GPU.
        gpus: names of GPUs, one for each of the first workers.
        interactive: whether observers may draw.
        secret: the value of an environment variable that the config's backend names, such as an API key.
    """

    folder: Path
    store: Path
    workers: int = 1
    gpus: Sequence[str] = ()
    interactive: bool = False
    secret: Callable[[str], str | None] = no_secret


@dataclass(frozen=True)
class Lab:
    """One analysis's base config and means.

    Attributes:
        name: the analysis, which names its comparisons.
        base: a raw config; its source, model, settings, seeds and learning rates are used, its rows are not.
        where: where the config comes from, for messages.
    """

    name: str
    base: Mapping[str, Any]
    where: str
    means: Means
    registry: Registry = field(default_factory=Registry.load)

    def row(self, method: str, label: str, **changes: Any) -> dict[str, Any]:
        """A row of a registered method, with the training settings that the config's own row of that method has."""
        entries = self.base.get("methods")
        known = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
        training = next((entry.get("training") for entry in known if entry.get("method") == method), None)
        return {"method": method, "label": label, **({"training": training} if training else {}), **changes}

    def config(self, part: str, methods: Sequence[Any], **sections: Any) -> dict[str, Any]:
        """The base config with these rows, evaluated by gold reward where there is one; the first row is the baseline."""
        first = methods[0]
        return {
            **self.base,
            "name": f"{self.name}-{part}",
            "description": f"Rows of the analysis {self.name}.",
            "methods": list(methods),
            "baseline": first if isinstance(first, str) else first["label"],
            "evaluators": self._evaluators(),
            **sections,
        }

    @cached_property
    def settings(self) -> Comparison:
        """The base config's own settings, resolved.

        Raises:
            ConfigError: the base config is not valid.
        """
        changed = {"name": self.name, "methods": ["sft"], "baseline": "sft", "evaluators": ["response_stats"]}
        return resolve({**self.base, **changed}, self.registry, self.where)

    @property
    def prompts(self) -> int:
        """The base config's budget."""
        return self.settings.config.budget.prompts

    @property
    def has_gold(self) -> bool:
        return "gold" in self.settings.source.provides

    def require(self, *needs: str) -> None:
        """Refuse a source without what the analysis needs.

        Raises:
            ConfigError: it lacks something, or the config is not valid.
        """
        source = self.settings.source
        missing = sorted(set(needs) - source.provides)
        if missing:
            have = ", ".join(sorted(source.provides)) or "nothing"
            fix = f"the analysis {self.name!r} needs {' and '.join(missing)}, and this source provides {have}: choose another"
            raise ConfigError([Problem("source", source.name, fix)], self.where)

    def compare(self, raw: Mapping[str, Any]) -> Made:
        """Train and evaluate every row.

        Raises:
            ConfigError: before any compute.
            StageError: a row failed.
        """
        planned = self._plan(raw)
        result = comparison.compare(
            raw,
            folder=self.means.folder / str(raw["name"]),
            store=self.means.store,
            workers=self.means.workers,
            means=comparison.Means(partial(LocalExecutor, gpus=self.means.gpus)),
            interactive=self.means.interactive,
            where=self.where,
        )
        if result.outcome.failed:
            raise StageError(_first_failure(planned.graph, result.outcome.failed))
        return Made(planned.comparison, planned.graph, planned.store, result.board)

    def build(self, raw: Mapping[str, Any], wanted: Callable[[RowPlan], Iterable[str]] = lambda row: row.groups) -> Made:
        """Make only the `wanted` stages of every row and what they need: by default its data, nothing trained on it.

        Raises:
            ConfigError: before any compute.
            StageError: a stage failed.
        """
        planned = self._plan(raw)
        graph, store = planned.graph, planned.store
        needed = graph.ancestors(*(key for row in graph.rows for key in wanted(row)))
        cut = Graph(graph.environment, {key: graph.stages[key] for key in graph.stages if key in needed}, [], graph.checkpoints)
        observers = Observers(self.registry)
        settings = {"store": str(store.root), "checkpoints": graph.checkpoints}
        name, interactive = str(raw["name"]), self.means.interactive
        folder = self.means.folder / name
        executor = LocalExecutor(self.means.workers, settings, folder / "logs", gpus=self.means.gpus)
        present = {stage.key for stage in cut if store.holds(stage.key)}
        with store.swept(), observers.watching(name, cut, present, interactive=interactive, folder=folder):
            outcome = executor.run(cut, present, observers)
        if outcome.failed:
            raise StageError(_first_failure(cut, outcome.failed))
        return planned

    def component(self, kind: Kind, name: str, **fields: Any) -> Any:
        """A registered component with these fields."""
        cls: type[Component] = self.registry.get(kind, name).component
        return cls(**fields)

    def policy(self, made: Made, model: str) -> PolicyServices:
        """Generation and scoring with a model of `made`, through the store, in this process."""
        context = Context(made.store, self.registry, made.graph.checkpoints, lambda *_: None, secret=self.means.secret)
        return PolicyServices(Services(context), model, made.comparison.backend)

    def answers_gold(self, made: Made, model: str, change: Callable[[Prompt], Prompt], sampling: Sampling) -> dict[str, float]:
        """Mean gold reward of answers to the evaluated prompts, each changed before it is asked; by prompt."""
        examples = made.evaluated()
        policy = self.policy(made, model)
        with quiet():
            try:
                answers = policy.respond([change(example.prompt) for example in examples], sampling)
            finally:
                policy.services.context.engine.stop()
        return {
            example.prompt.id: sum(made.gold(example, response) for response in responses) / len(responses)
            for example, responses in zip(examples, answers, strict=True)
        }

    def _evaluators(self) -> list[Any]:
        """Gold reward as the base config has it, or with its defaults; what any source allows where there is none."""
        given = self.base.get("evaluators")
        named = [item for item in given if _name(item) == GOLD] if isinstance(given, list) else []
        return (named[:1] or [GOLD]) if self.has_gold else ["response_stats"]

    def _plan(self, raw: Mapping[str, Any]) -> Made:
        comparison = resolve(raw, self.registry, self.where)
        return Made(comparison, plan(comparison), Store(self.means.store))


@contextmanager
def quiet() -> Iterator[None]:
    """One torch thread and no bars while the block runs, as in the worker processes."""
    import torch
    from transformers.utils import logging

    threads, bars = torch.get_num_threads(), logging.is_progress_bar_enabled()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if bars:
            logging.enable_progress_bar()


def _first_failure(graph: Graph, failed: Mapping[str, str]) -> str:
    key = sorted(failed)[0]
    return f"{graph.stages[key].title}: {failed[key]}"


def _name(item: Any) -> Any:
    return item.get("name") if isinstance(item, dict) else item
