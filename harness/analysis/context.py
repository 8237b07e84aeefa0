"""The context of an analysis: a config to vary, the store, and the results of the comparisons made from it.

An analysis that needs trained rows gives a config to `AnalysisContext.compare`. One that needs data only gives it to
`AnalysisContext.build`, which cuts the planned graph down to the stages that make the data. Both go through the store, so
analyses share work with each other and with any comparison.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api.interfaces import Analysis, Component
from harness.api.registry import Kind, Registry
from harness.api.types import Dataset, Example, Group, Prompt, Response, Sampling, Score, SplitName
from harness.board.build import Board
from harness.board.statistics import Floats, Values
from harness.config import Comparison, resolve
from harness.config.strict_yaml import RawConfig
from harness.errors import ConfigError, Problem, StageError
from harness.models.judge.judge import Judge
from harness.models.reward import JudgeReward
from harness.models.tokenization import ChatTemplate
from harness.run import compare as comparison
from harness.run.executors.local import LocalExecutor
from harness.run.graph import Graph, RowPlan
from harness.run.observers import Display, Observers
from harness.run.plan import plan
from harness.run.stages.context import Context, no_secret, read_dataset, read_groups
from harness.run.stages.services import PolicyServices, Services, request_seed, reward_values
from harness.store import Store

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.analysis.report import Report

GOLD, REWARD = "gold_reward", "reward_model"  # evaluators: of the source's gold, and of any other reward


@dataclass(frozen=True)
class AnalysisOptions:
    """How an analysis runs, and in which folders; nothing here changes a result.

    Attributes:
        folder: the folder for boards and logs of its comparisons.
        store: the store's folder.
        workers: number of worker processes; each computes on one thread, or on a GPU.
        gpus: names of GPUs, one for each of the first workers.
        display: how progress is shown.
        secret: returns the value of an environment variable that the config's backend names, such as an API key.
    """

    folder: Path
    store: Path
    workers: int = 1
    gpus: Sequence[str] = ()
    display: Display = "none"
    secret: Callable[[str], str | None] = no_secret


@dataclass(frozen=True)
class AnalysisContext:
    """A base config that an analysis varies, and the means to run what it asks for.

    Attributes:
        name: the analysis's name, which its comparisons begin with.
        base: a raw config; its source, model, settings, seeds and learning rates are used, its rows are not.
        where: the config's origin, for messages.
        options: the folders and workers to use.
    """

    name: str
    base: Mapping[str, Any]
    where: str
    options: AnalysisOptions
    registry: Registry = field(default_factory=Registry.load)

    def run(self, analysis: Analysis) -> Report:
        """Run an analysis in this context, after checking that the source provides what it needs.

        Raises:
            ConfigError: the source lacks a feature, or the config is not valid.
            StageError: a stage failed, or its result is too little for an interval.
        """
        self.require(*analysis.needs)
        try:
            report = analysis.run(self)
            reward = self.settings.config.reward
            return report if reward is None else report.with_reward(reward.described())
        except ValueError as error:
            raise StageError(f"{self.name} has too little data for an interval ({error}): raise budget.prompts") from error

    def row(self, method: str, label: str, **changes: Any) -> dict[str, Any]:
        """Return a row of a registered method, with the training settings that the config gives its own row of that method."""
        entries = self.base.get("methods")
        rows = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
        training = next((entry.get("training") for entry in rows if entry.get("method") == method), None)
        return {"method": method, "label": label, **({"training": training} if training else {}), **changes}

    def config(self, part: str, methods: Sequence[Any], **sections: Any) -> RawConfig:
        """Return the base config with these rows; the first is the baseline, and gold reward evaluates them if there is one.

        Args:
            part: the end of the comparison's name, after the analysis's.
            sections: other sections to replace, such as `budget` or `evaluators`.
        """
        first = methods[0]
        return {
            **self.base,
            "name": f"{self.name}-{part}",
            "description": f"Rows of the analysis {self.name}.",
            "methods": list(methods),
            "baseline": first if isinstance(first, str) else first["label"],
            "evaluators": self._evaluators(),
            **self._seeds(),
            **sections,
        }

    def _seeds(self) -> RawConfig:
        """Return the first seeds where the base config adds seeds until rows are decided: an analysis decides nothing."""
        return {"seeds": list(self.settings.config.first_seeds)} if isinstance(self.base.get("seeds"), Mapping) else {}

    @cached_property
    def settings(self) -> Comparison:
        """Return the base config's own settings, resolved.

        Raises:
            ConfigError: the base config is not valid.
        """
        changed = {"name": self.name, "methods": ["sft"], "baseline": "sft", "evaluators": ["response_stats"]}
        return resolve({**self.base, **changed}, self.registry, self.where)

    @property
    def prompts(self) -> int:
        """Return the base config's budget in prompts."""
        return self.settings.config.budget.prompts

    @property
    def has_gold(self) -> bool:
        """Return whether answers have a reward: the source's gold, or the config's `reward` in its place."""
        return self.settings.config.reward is not None or "gold" in self.settings.source.offers()

    def require(self, *needs: str) -> None:
        """Refuse a source that lacks a feature; the config's `reward` takes the place of gold.

        Raises:
            ConfigError: the source lacks one, or the config is not valid.
        """
        source = self.settings.source
        reward = self.settings.config.reward
        wanted = set(needs) if reward is None else (set(needs) - {"gold"}) | reward.needs
        missing = sorted(wanted - source.offers())
        if missing:
            have = ", ".join(sorted(source.offers())) or "nothing"
            fix = f"the analysis {self.name!r} needs {' and '.join(missing)}, and this source provides {have}: choose another"
            fix += ", or give the config a `reward`" if missing == ["gold"] else ""
            raise ConfigError([Problem("source", source.name, fix)], self.where)

    def compare(self, raw: Mapping[str, Any]) -> ComparisonResults:
        """Train and evaluate every row of a config.

        Raises:
            ConfigError: before any compute.
            StageError: a row failed.
        """
        planned = self._plan(raw)
        result = comparison.compare(
            raw,
            folder=self.options.folder / str(raw["name"]),
            store=self.options.store,
            workers=self.options.workers,
            options=comparison.RunOptions(
                partial(LocalExecutor, gpus=self.options.gpus), display=self.options.display, other_board="replace"
            ),
            where=self.where,
        )
        if result.outcome.failed:
            raise StageError(_first_failure(planned.graph, result.outcome.failed))
        return replace(planned, board=result.board)

    def build(self, raw: Mapping[str, Any]) -> ComparisonResults:
        """Build the training data of every row of a config, and what they are built from; train nothing on them.

        Raises:
            ConfigError: before any compute.
            StageError: a stage failed.
        """
        planned = self._plan(raw)
        graph, store = planned.graph, planned.store
        needed = graph.ancestors(*(key for row in graph.rows for key in row.groups))
        cut = Graph(graph.environment, {key: graph.stages[key] for key in graph.stages if key in needed}, [], graph.checkpoints)
        observers = Observers(self.registry)
        settings = {"store": str(store.root), "checkpoints": graph.checkpoints, "judges": graph.judges, "run": str(raw["name"])}
        name, shown, workers = str(raw["name"]), self.options.display, self.options.workers
        folder = self.options.folder / name
        executor = LocalExecutor(workers, settings, folder / "logs", gpus=self.options.gpus)
        present = {stage.key for stage in cut if store.holds(stage.key)}
        with store.swept(), observers.watching(name, cut, present, display=shown, workers=workers, folder=folder):
            outcome = executor.run(cut, present, observers)
        if outcome.failed:
            raise StageError(_first_failure(cut, outcome.failed))
        return planned

    def component(self, kind: Kind, name: str, **fields: Any) -> Any:
        """Return a registered component with these fields."""
        cls: type[Component] = self.registry.get(kind, name).component
        return cls(**fields)

    def _evaluators(self) -> list[Any]:
        """Return the reward's evaluator as the base config has it, or with defaults; without one, what any source allows."""
        given = self.base.get("evaluators")
        named = [item for item in given if _name(item) == self.evaluator] if isinstance(given, list) else []
        first = named[0] if named else self.evaluator
        # Analyses read the reward's scores by the evaluator's name, whatever label the base config gives it.
        first = {field: value for field, value in first.items() if field != "label"} if isinstance(first, dict) else first
        if self.settings.config.reward is not None:  # whatever reward the base config's evaluator has, this one is asked
            fields = first if isinstance(first, dict) else {"name": self.evaluator}
            return [{**fields, "reward": self.base["reward"]}]
        return [first] if self.has_gold else ["response_stats"]

    @property
    def evaluator(self) -> str:
        """Return the evaluator whose scores rows are compared by."""
        return GOLD if self.settings.config.reward is None else REWARD

    def _plan(self, raw: Mapping[str, Any]) -> ComparisonResults:
        resolved = resolve(raw, self.registry, self.where)
        return ComparisonResults(self, resolved, plan(resolved), Store(self.options.store))


@dataclass(frozen=True)
class GroupRewards:
    """The rewards of one group of training data, by gold or by the config's `reward`."""

    prompt: str
    chosen: float
    rejected: tuple[float, ...]


@dataclass(frozen=True)
class ComparisonResults:
    """A comparison whose rows, or their data, are in the store. `AnalysisContext.compare` and `build` return it.

    Attributes:
        context: the context that it was made in.
        comparison: the resolved config.
        graph: the planned stages.
        store: the store that has their artifacts.
        board: the board; None where only data were built.
    """

    context: AnalysisContext
    comparison: Comparison
    graph: Graph
    store: Store
    board: Board | None = None

    @cached_property
    def dataset(self) -> Dataset:
        """Return the source's splits."""
        source = next(stage.key for stage in self.graph if stage.kind == "source")
        return read_dataset(self.store.open(source))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Return the seeds of every row."""
        return self.comparison.config.first_seeds

    @property
    def split(self) -> SplitName:
        """Return the split that rows are evaluated on."""
        return self.comparison.config.evaluation.split

    def evaluated(self) -> tuple[Example, ...]:
        """Return the examples that every row is evaluated on."""
        evaluation = self.comparison.config.evaluation
        return self.dataset[self.split][: evaluation.first_prompts if evaluation.until else evaluation.prompts]

    def row(self, label: str, seed: int) -> RowPlan:
        """Return the planned stages of one row and seed."""
        return next(row for row in self.graph.rows if (row.label, row.seed) == (label, seed))

    def model(self, label: str, seed: int) -> str:
        """Return the reference of a row's trained model, for `logps`, `policy` and the like."""
        return self.row(label, seed).model

    def start(self, label: str, seed: int) -> str:
        """Return the reference of the model that a row's first data were drawn from."""
        return self.graph.stages[self.row(label, seed).groups[0]].inputs["start"]

    def groups(self, label: str, seed: int) -> list[Group]:
        """Return the groups of all rounds of a row."""
        return [group for key in self.row(label, seed).groups for group in read_groups(self.store.open(key))]

    def dropped(self, label: str) -> float:
        """Return the share of a row's prompts that gave no group, over its seeds."""
        facts = [self.store.open(key).facts for seed in self.seeds for key in self.row(label, seed).groups]
        return float(1 - sum(fact["groups"] for fact in facts) / sum(fact["prompts"] for fact in facts))

    def gold(self, example: Example, response: Response) -> float:
        """Return the reward of one response; `rewards` marks many at once."""
        return self.rewards([example], [[response]])[0][0]

    def rewards(self, examples: Sequence[Example], responses: Sequence[Sequence[Response]]) -> list[list[float]]:
        """Return the rewards of responses, [examples][responses]: the source's gold, or the config's `reward` in its place.

        NaN where there is none, as `BuildTask.reward` has it.
        """
        config = self.comparison.config
        if config.reward is None:
            source, rows = self.comparison.source, zip(examples, responses, strict=True)
            return [[float(source.gold(example, response)["total"]) for response in row] for example, row in rows]
        judge = None
        if isinstance(config.reward, JudgeReward):
            assert config.judge is not None  # `resolve` saw to it: an evaluator asks it too
            settings, secret = config.judge.changed(config.reward.judge), self.context.options.secret
            key = secret(settings.api_key_env) if settings.api_key_env else None
            judge = Judge(settings, self.store, config.name, key, lambda *_: None)
        with _worker_like():
            return reward_values(config.reward, self._services_alone(), judge, examples, responses)

    def group_rewards(self, label: str, split: SplitName = "train") -> dict[int, list[GroupRewards]]:
        """Return the rewards of a row's groups, by seed; what has no reward is left out."""
        examples = {example.prompt.id: example for example in self.dataset[split]}
        by_seed = {}
        for seed in self.seeds:
            groups = self.groups(label, seed)
            asked = [examples[group.prompt.id] for group in groups]
            marked = self.rewards(asked, [(group.chosen, *group.rejected) for group in groups])
            rewarded = []
            for group, (chosen, *rejected) in zip(groups, marked, strict=True):
                known = tuple(reward for reward in rejected if not math.isnan(reward))
                if not math.isnan(chosen) and (known or not rejected):
                    rewarded.append(GroupRewards(group.prompt.id, chosen, known))
            by_seed[seed] = rewarded
        return by_seed

    def values(self, label: str, evaluator: str | None = None, metric: str | None = None) -> Values:
        """Return a row's scores by one metric, [seeds, prompts]; the reward if neither evaluator nor metric is given."""
        evaluator = evaluator or self.context.evaluator
        metric = metric or ("gold" if evaluator == GOLD else "reward")
        per_seed = {
            seed: [
                Score(*fields)
                for key in self.row(label, seed).evaluations[evaluator]
                for fields in self.store.open(key).read_lines("scores.jsonl")
            ]
            for seed in self.seeds
        }
        return Values.from_scores(per_seed, metric)

    def lengths(self, model: str, examples: Sequence[Example]) -> list[tuple[int, int]]:
        """Return the tokens of each example's prompt and target, by a model's chat template; 0 for no target."""
        template = ChatTemplate(self._services(model).tokenizer)
        lengths = []
        for example in examples:
            target = template.response_ids(example.prompt, Response(example.target)) if example.target is not None else []
            lengths.append((len(template.prompt_ids(example.prompt)), len(target)))
        return lengths

    def logps(self, model: str, prompts: Sequence[Prompt], responses: Sequence[Sequence[Response]]) -> list[list[float]]:
        """Return the summed log-probabilities in nats of responses under a model, per prompt; through the store."""
        with _worker_like():
            return self._services(model).logps(prompts, responses)

    def responses(
        self,
        model: str,
        prompts: Sequence[Prompt],
        n: int,
        *,
        seed: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_tokens: int | None = None,
    ) -> list[list[Response]]:
        """Return n responses of a model to each prompt, through the store; as long as the config's samples if not said."""
        longest = max_tokens or self.comparison.config.generation.max_tokens
        policy = self._services(model)
        with _worker_like():
            try:
                return policy.respond(prompts, Sampling(n, temperature, top_p, longest, seed))
            finally:
                policy.services.context.engine.stop()

    def gold_under(self, model: str, prefix: str, *, n: int, seed: int) -> dict[str, float]:
        """Return the mean reward of n answers to each evaluated prompt, asked under a prefix; by prompt."""
        examples = self.evaluated()
        prompts = [example.prompt.prefixed(prefix) for example in examples]
        answers = self.responses(model, prompts, n, seed=request_seed(seed, prefix))
        known = {
            example.prompt.id: [reward for reward in marks if not math.isnan(reward)]
            for example, marks in zip(examples, self.rewards(examples, answers), strict=True)
        }
        return {prompt: sum(marks) / len(marks) for prompt, marks in known.items() if marks}

    @contextmanager
    def policy(self, model: str) -> Iterator[tuple[PreTrainedModel, PreTrainedTokenizerBase]]:
        """Yield a model in memory, in evaluation mode, with its tokenizer; torch has one thread while the block runs."""
        with _worker_like():
            yield self._services(model).loaded

    def gradients(self, model: str, pairs: Sequence[tuple[Prompt, Response]]) -> Floats:
        """Return ∇ log π of every response given its prompt, [pairs, entries], folded by a count sketch if it is long."""
        from harness.analysis.gradients import response_gradients
        from harness.models.logps import TokenRow

        with self.policy(model) as (loaded, tokenizer):
            template = ChatTemplate(tokenizer)
            rows = [
                TokenRow(tuple(template.prompt_ids(prompt)), tuple(template.response_ids(prompt, response)))
                for prompt, response in pairs
            ]
            return response_gradients(loaded, rows)

    def _services(self, model: str) -> PolicyServices:
        """Return generation and scoring with a model, through the store, in this process."""
        return PolicyServices(self._services_alone(), model, self.comparison.backend)

    def _services_alone(self) -> Services:
        """Return work through the store, on behalf of no stage."""
        registry, secret = self.context.registry, self.context.options.secret
        context = Context(self.store, registry, self.graph.checkpoints, lambda *_: None, secret=secret)
        return Services(context, scoring_layout=self.comparison.scoring_layout())


@contextmanager
def _worker_like() -> Iterator[None]:
    """Compute on one torch thread and without progress bars, as worker processes do, so that results are theirs."""
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
