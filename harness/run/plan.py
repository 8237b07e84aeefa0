"""Plan a comparison: turn its resolved config into the graph of its stages. Nothing runs here, and every key is fixed here."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, replace
from importlib import metadata
from typing import Any

from harness.api.interfaces import Component, DataBuilder, Evaluator, Source
from harness.api.methods import GROUPED
from harness.api.types import Sampling
from harness.board.statistics import Rule
from harness.config import Comparison, RoundPlan, RowConfig, describe
from harness.config.comparison import NOT_INSTALLED
from harness.config.schema import EvaluationSection
from harness.models.judge.settings import JudgeSettings, judge_of
from harness.models.served import ASKED_AS
from harness.run.graph import CHECKPOINT, SERVED, Graph, RowPlan, StatePlan
from harness.run.records import (
    AnswersInputs,
    AnswersPayload,
    Description,
    EvaluateInputs,
    EvaluatePayload,
    GroupsInputs,
    GroupsPayload,
    ReferenceInputs,
    ReferencePayload,
    ScratchInputs,
    ScratchPayload,
    SftInputs,
    SftPayload,
    SourceInputs,
    SourcePayload,
    StatePayload,
    TrainInputs,
    TrainPayload,
)
from harness.store.environment import environment
from harness.training.batch import MISMATCHED, PLAIN
from harness.training.settings import SftSettings, TrainingSettings

Block = tuple[int, int | None]  # of the evaluated split: from, to; None for its end


def plan(comparison: Comparison) -> Graph:
    """Return the graph of a comparison: every row with the seeds and prompts that it begins with.

    The stages are source -> (scratch ->) SFT, then for each row, seed and round: groups -> reference (-> states) -> train, then
    for each row and seed: answers -> evaluate. Rows that need the same stage share it, since its key is the same.
    """
    planner = Planner(comparison)
    for seed in comparison.config.first_seeds:
        planner.add(seed)
    return planner.graph


def largest_plan(comparison: Comparison) -> Graph:
    """Return the graph with all seeds and prompts that rows can have; that of `plan` where none are added."""
    planner = Planner(comparison)
    for seed in comparison.config.possible_seeds:
        planner.add(seed)
    while planner.add_prompts():
        pass
    return planner.graph


def run_sampling(sampling: Sampling, seed: int) -> Sampling:
    """Return an evaluator's sampling with a seed that the run's seed decides."""
    digest = hashlib.sha256(f"{seed} {sampling}".encode()).digest()
    return replace(sampling, seed=int.from_bytes(digest[:6], "big"))


class Planner:
    """Add the stages of a comparison to a graph, parents first, one seed after another.

    A payload holds a later option only where it is used: that keeps the keys of all stages that do without it.
    """

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.config = comparison.config
        self.graph = Graph(environment())
        judges = {label: judge.model_dump(mode="json") for label, judge in comparison.judges.items()}
        self.graph.judges = {self._judge_key(label): judge for label, judge in judges.items()}
        self.backend = self._described(comparison.backend)
        self.gpus = comparison.backend.gpus()  # of a stage that generates
        self.source = self._source(comparison.source, "source")
        self.base = self._base()
        self._states_of: dict[str, list[tuple[float, str]]] = {}  # a training -> the share and stage of each of its states
        self.blocks = _blocks(self.config.evaluation)
        self.trained: dict[int, list[RowPlan]] = {}  # at each seed, with the models from elsewhere, which have none

    def add(self, seed: int, labels: Collection[str] | None = None) -> set[str]:
        """Plan a seed of the rows with these labels and of the rows that evaluators compare them with; of all rows if None.

        A model from elsewhere has no seeds: it is evaluated once, with the first, and its answers meet those of every seed.

        Returns:
            the keys of the stages that the graph did not have.
        """
        before, first = set(self.graph.stages), self.config.first_seeds[0]
        configs = [config for config in self.comparison.rows if labels is None or config.label in self._with_opponents(labels)]
        # All rows of a seed are trained before any is evaluated: an evaluation may read the other rows' answers.
        trained = [self._row(config, first if config.is_as_it_is else seed) for config in configs]
        self.trained[seed] = trained
        for row in (row for row in trained if row.seed == seed):
            evaluations = {
                label: (self._evaluation(label, item, row, self._first_block(item)),)
                for label, item in self.comparison.evaluators.items()
            }
            states = tuple(self._evaluated(state, row) for state in row.states)
            self.graph.rows.append(replace(row, evaluations=evaluations, states=states))
        return self.graph.stages.keys() - before

    def add_prompts(self, labels: Collection[str] | None = None) -> set[str]:
        """Plan the next block of prompts of the rows with these labels, of all rows if None, at every seed that they have.

        Returns:
            the keys of the stages that the graph did not have; none where the rows have all prompts.
        """
        before = set(self.graph.stages)
        for place, row in enumerate(self.graph.rows):
            if labels is not None and row.label not in labels:
                continue
            evaluations = dict(row.evaluations)
            for label, item in self.comparison.evaluators.items():
                if item.divisible and len(evaluations[label]) < len(self.blocks):
                    block = self.blocks[len(evaluations[label])]
                    evaluations[label] = (*evaluations[label], self._evaluation(label, item, row, block))
            self.graph.rows[place] = replace(row, evaluations=evaluations)
        return self.graph.stages.keys() - before

    def _with_opponents(self, labels: Collection[str]) -> set[str]:
        opponents = {label for evaluator in self.comparison.evaluators.values() for label in evaluator.opponents()}
        return {*labels, *(self.config.baseline if label == "baseline" else label for label in opponents)}

    def _judge_key(self, label: str) -> str:
        """Return a judge's key in the graph: `<evaluator>`, or `<evaluator>/<label>`, since a stage knows the former only."""
        evaluator = self.comparison.evaluators.get(label)
        return label if evaluator is None or evaluator.name == label else f"{evaluator.name}/{label}"

    def _source(self, source: Source, name: str, evaluated: str | None = None) -> str:
        """Add the stage that loads a source's rows. With limits, it needs the model whose tokens are counted.

        Args:
            name: of the source in `Comparison.unreachable`.
            evaluated: for a row's own source, the comparison's.
        """
        optional = dict[str, Any]()
        if name in self.comparison.unreachable:
            described = Description(name=source.name, fields=source.model_dump(mode="json"), fingerprint="unknown")
        else:
            described = self._described(source)
            described = described.model_copy(update={"fingerprint": described.fingerprint or ""})
        if self.config.evaluation.contaminated == "drop":
            bringing = [evaluator for evaluator in self.comparison.evaluators.values() if evaluator.brings_questions()]
            optional["benchmarks"] = [self._described(evaluator) for evaluator in bringing]
        model = None
        if self.config.limits is not None:
            optional["limits"] = self.config.limits.model_dump()
            model = self._base()
        payload = SourcePayload(source=described, **optional)
        return self.graph.add(
            "source", f"data from {source.name}", payload.as_json(), SourceInputs(model, evaluated).named(), weight=2
        )

    def _training_source(self, config: RowConfig) -> str:
        """Return the source of a row's training prompts."""
        return self._source(config.source, config.source_name, self.source) if config.source else self.source

    def _base(self) -> str:
        """Return the starting checkpoint: a folder by its hash, or a stage that makes one from the source's text."""
        if self.config.model.scratch is not None:
            payload = ScratchPayload(recipe=self.config.model.scratch.model_dump(mode="json"))
            title, inputs = "starting model from the source's text", ScratchInputs(self.source)
            return self.graph.add("scratch", title, payload.as_json(), inputs.named(), weight=150)
        checkpoint = self.comparison.checkpoint
        assert checkpoint is not None
        self.graph.checkpoints[checkpoint.digest] = checkpoint.as_dict()
        return CHECKPOINT + checkpoint.digest

    def _row(self, config: RowConfig, seed: int) -> RowPlan:
        """Add the rounds of a row, and return it without its evaluations."""
        training_seed = seed + config.seed_offset
        if config.served is not None:
            # Its start would be compared with probabilities that a server does not give.
            model = SERVED + config.served.digest
            self.graph.checkpoints[config.served.digest] = config.served.as_dict()
            return RowPlan(config.label, seed, model, (), (), {}, model, training_seed)
        start = self._start(training_seed)
        if config.checkpoint is not None:
            self.graph.checkpoints.setdefault(config.checkpoint.digest, config.checkpoint.as_dict())
            return RowPlan(config.label, seed, CHECKPOINT + config.checkpoint.digest, (), (), {}, start, training_seed)
        row = RowPlan(config.label, seed, start, (), (), {}, start, training_seed)
        for number in range(len(config.rounds)):
            builder = config.rounds[number].builder
            groups = self._groups(config, number, row, builder) if builder else None
            host = config.rounds[number].trainer.name == GROUPED
            trained = (self._train if host else self._train_elsewhere)(config, number, row, groups)
            kept = (*row.groups, groups) if groups else row.groups
            row = replace(row, model=trained, groups=kept, training=(*row.training, trained))
        return replace(row, states=tuple(self._states(row))) if self.comparison.has_states(config) else row

    def _states(self, row: RowPlan) -> Iterator[StatePlan]:
        """Yield the states of a row's training: its start, shares of each round, and the ends of all rounds but the last."""
        for number, training in enumerate(row.training):
            models = [(0.0, row.start)] if number == 0 else []
            models += self._states_of[training]
            models += [(1.0, training)] if number < len(row.training) - 1 else []
            for share, model in models:
                yield StatePlan(model, number + 1, share, (number + share) / len(row.training))

    def _evaluated(self, state: StatePlan, row: RowPlan) -> StatePlan:
        """Add the evaluations of a state: those of the row with another model.

        A judge is asked under a name that no row has, and that the rows of one entry's rounds share: the row itself may be the
        opponent.
        """
        name = f"{self._config(row).series}, round {state.round} at {state.share:.4g}" if state.share else "the start"
        as_row = replace(row, model=state.model, states=())
        asked = {label: self.comparison.evaluators[label] for label in self.comparison.during_evaluators}
        evaluations = {
            label: self._evaluation(label, item, as_row, self._first_block(item), name) for label, item in asked.items()
        }
        return replace(state, evaluations=evaluations)

    def _start(self, seed: int) -> str:
        """Return the model that every row starts from at a seed."""
        settings = self.comparison.sft
        if settings is None:
            return self.base
        payload = SftPayload(seed=seed, **self._settings(settings))
        inputs = SftInputs(self.source, self.base)
        devices = _devices(settings)
        return self.graph.add("sft", f"SFT · seed {seed}", payload.as_json(), inputs.named(), devices=devices, weight=30)

    def _groups(self, config: RowConfig, number: int, row: RowPlan, builder: DataBuilder) -> str:
        """Add the data of a round that starts from the row's model."""
        payload = GroupsPayload(
            builder=self._described(builder),
            backend=self.backend,
            max_tokens=self.config.generation.max_tokens,
            examples=list(config.budget.part(config.budget.prompts, number, config.planned_rounds)),
            round=number,
            seed=row.training_seed,
            **self._rounding,
            **self._scoring_layout(),
        )
        if builder.asks_judge():
            payload = payload.model_copy(update=_judged(judge_of(self.graph.judges, payload.as_json())))
        inputs = GroupsInputs(self._training_source(config), row.start, row.model)
        title = f"data {builder.name}{_round(config, number)} · seed {row.training_seed}"
        # Builders that ask one policy for the same samples would wait for whoever draws them.
        shares = f"samples {row.model}"
        devices = self.gpus if builder.responses_per_prompt() != 0 else 1
        return self.graph.add("groups", title, payload.as_json(), inputs.named(), shares=shares, devices=devices, weight=15)

    def _train(self, config: RowConfig, number: int, row: RowPlan, groups: str | None) -> str:
        """Add a round's training, with the reference's log-probabilities under every view that the objective asks for."""
        round_, seed, optional = config.rounds[number], row.training_seed, dict[str, Any]()
        builder, objective, reference = (
            round_.builder,
            round_.objective,
            row.start if round_.reference == "start" else row.model,
        )
        assert builder is not None and objective is not None and groups is not None  # `grouped` asks for both
        views = [*([PLAIN] if objective.needs_reference else []), *([MISMATCHED] if objective.needs_mismatched else [])]
        references = {view: self._reference(round_, groups, reference, view, seed) for view in [*views, *objective.views()]}
        if objective.ranks_rejected and not builder.ranks_rejected:
            optional["unranked"] = True
        optional |= self._spending(config, number)
        payload = TrainPayload(objective=self._described(objective), seed=seed, **self._settings(round_.training), **optional)
        inputs = TrainInputs(row.model, groups, references=references)
        return self._training(config, number, payload, inputs, _devices(round_.training))

    def _training(self, config: RowConfig, number: int, payload: TrainPayload, inputs: TrainInputs, devices: int) -> str:
        """Add the training of a round, after the states that it goes through where they are evaluated.

        Each goes on from where the one before came to, so that nothing is trained twice, and the training's key is that of a
        config without states.
        """
        title = f"{config.series}{_round(config, number)} · seed {payload.seed}"
        key = self.graph.key("train", payload.as_json(), inputs.named())
        states, before = list[tuple[float, str]](), 0.0
        after: tuple[str, ...] = ()
        for share in self.config.evaluation.during or () if config.rounds[number].trainer.leaves_states else ():
            given = StatePayload(training=key, share=share, **payload.as_json())
            after = (
                self.graph.add(
                    "state",
                    f"train {title} up to {share:.4g}",
                    given.as_json(),
                    inputs.named(),
                    devices=devices,
                    weight=12 * (share - before),
                    after=after,
                ),
            )
            states.append((share, *after))
            before = share
        self._states_of[key] = states
        return self.graph.add(
            "train",
            f"train {title}",
            payload.as_json(),
            inputs.named(),
            devices=devices,
            weight=12 * (1 - before),
            after=after,
        )

    def _train_elsewhere(self, config: RowConfig, number: int, row: RowPlan, groups: str | None) -> str:
        """Add a round's training by another trainer than the host's. The settings that it does not use are in no key."""
        round_, seed = config.rounds[number], row.training_seed
        trainer, optional = round_.trainer, self._spending(config, number)
        described = self._described(trainer)
        if round_.objective is not None:
            optional["objective"] = self._described(round_.objective)
        if trainer.asks_judge():
            optional |= _judged(judge_of(self.graph.judges, {"trainer": described.as_json()}))
        if trainer.trains_on() != "groups":
            optional["max_tokens"] = self.config.generation.max_tokens
        settings = dict(self._settings(round_.training))
        settings["settings"] = {name: value for name, value in settings["settings"].items() if name in trainer.carries}
        payload = TrainPayload(
            trainer=described,
            examples=list(config.budget.part(config.budget.prompts, number, config.planned_rounds)),
            seed=seed,
            **settings,
            **optional,
        )
        inputs = TrainInputs(row.model, groups, self._training_source(config))
        return self._training(config, number, payload, inputs, trainer.gpus())

    def _spending(self, config: RowConfig, number: int) -> dict[str, Any]:
        """Return the `spending` of a `TrainPayload`: a round's part of the budget's limit, if it has one."""
        if not (limit := config.budget.limit):
            return {}
        first, last = config.budget.part(limit.amount, number, config.planned_rounds)
        return {"spending": {"unit": limit.unit, "amount": last - first}}

    def _reference(self, round_: RoundPlan, groups: str, model: str, view: str, seed: int) -> str:
        """Add the reference under a view. The objective is part of the key only for a view that it defines itself."""
        builder = round_.builder.name if round_.builder else ""
        title = f"reference of {builder}{' ' + view if view else ''} · seed {seed}"
        objective = self._described(round_.objective) if round_.objective and view not in (PLAIN, MISMATCHED) else None
        layout = {"layout": round_.training.layout} if round_.training.layout != "auto" else {}
        payload = ReferencePayload(view=view, objective=objective, **round_.training.precision_payload(self._device), **layout)
        # Objectives that define the same view share its numbers through the store (`stages/reference.py`): one computes them.
        shares = f"views {groups} {model}" if objective else None
        inputs = ReferenceInputs(groups, model)
        return self.graph.add("reference", title, payload.as_json(), inputs.named(), shares=shares, weight=2)

    def _described(self, component: Component) -> Description:
        return Description(**describe(component, unchecked=bool(self.comparison.unchecked)))

    def _version(self, package: str) -> str:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            if not self.comparison.unchecked:
                raise
            return NOT_INSTALLED

    @property
    def _device(self) -> str:
        return self.graph.environment["device"]

    def _settings(self, settings: SftSettings | TrainingSettings) -> Mapping[str, Any]:
        """Return the fields of a `TrainingPayload` that settings decide."""
        used = [*(["peft"] if settings.lora else []), *(settings.devices.libraries if settings.devices else [])]
        used += ["liger-kernel"] if isinstance(settings, TrainingSettings) and settings.kernels == "liger" else []
        # Adapters on named layers may lie on tied embeddings, and rounded weights are merged in float32: older versions
        # merged both wrongly, so their artifacts must not be found.
        merging = settings.lora is not None and (settings.lora.target_modules != "all-linear" or bool(self._rounding))
        payload = {"settings": settings.payload(self._device), **{name: self._version(name) for name in used}}
        return payload | ({"merging": 2} if merging else {})

    @property
    def _rounding(self) -> Mapping[str, Any]:
        """Return the `scoring` of a `JudgedPayload`, where weights have fewer digits than float32."""
        checkpoint = self.comparison.checkpoint
        return {"scoring": "float32"} if checkpoint and checkpoint.options.rounds else {}

    def _rounding_of(self, row: RowPlan) -> Mapping[str, Any]:
        """Return the `scoring` of a row's evaluation, where the weights of its start or its own have fewer digits."""
        own = self._config(row).checkpoint
        return self._rounding or ({"scoring": "float32"} if own and own.options.rounds else {})

    def _scoring_layout(self, row: RowConfig | None = None) -> dict[str, Any]:
        """Return the `scoring_layout` of a `JudgedPayload`, where it is not padded rows, which were once the only one."""
        layout = self.comparison.scoring_layout(row)
        return {"scoring_layout": layout} if layout != "padded" else {}

    def _config(self, row: RowPlan) -> RowConfig:
        return next(config for config in self.comparison.rows if config.label == row.label)

    @property
    def _as_they_are(self) -> set[str]:
        return {config.label for config in self.comparison.rows if config.is_as_it_is}

    def _backend(self, row: RowPlan) -> Description:
        """Return what generates for a row: the comparison's backend, or the one that asks the server which has the model.

        The server's address is part of the model's identity, or is left out of it: so it is no part of the description.
        """
        asking = self._config(row).backend
        return Description(name=asking.name, version=asking.version, fields=dict(ASKED_AS)) if asking else self.backend

    def _gpus(self, row: RowPlan) -> int:
        """Return how many GPUs generate for a row; a server has its own."""
        return 1 if self._config(row).backend else self.gpus

    def _first_block(self, evaluator: Evaluator) -> Block:
        """Return the prompts that an evaluation begins with: all there can be, of an evaluator that takes no parts."""
        return self.blocks[0] if evaluator.divisible else (0, self.config.evaluation.possible_prompts)

    def _evaluation(self, label: str, evaluator: Evaluator, row: RowPlan, block: Block, name: str | None = None) -> str:
        """Add an evaluation of a row; a judged one needs the judge's settings and the opponents' answers as well.

        Args:
            name: that a judge is asked under, and people read; the row's label if None.
        """
        name = name or row.label
        samplings, optional = evaluator.samplings(), {**self._rounding_of(row), **self._scoring_layout(self._config(row))}
        opponents = self._opponents(evaluator, row)
        inputs = EvaluateInputs(
            self.source,
            row.model,
            row.start,
            answers={str(number): self._answers(row, sampling, block) for number, sampling in enumerate(samplings)},
            opponents={
                other.label: self._answers(other, samplings[0], block) if samplings else other.model for other in opponents
            },
        )
        if fingerprint := self._described(evaluator).fingerprint:
            optional["fingerprint"] = fingerprint
        if evaluator.asks_judge():
            judge = self.comparison.judges[label]
            optional |= {**_judged(judge), "label": name, **({"repeats": judge.repeating} if judge.repeats else {})}
        if self.config.evaluation.response is not None:
            optional["response"] = self.config.evaluation.response.model_dump(mode="json")
            if opponents and self._as_they_are & {row.label, *(other.label for other in opponents)}:
                optional["opponent_models"] = {other.label: other.model for other in opponents}
        if prefixes := {other.label: prefix for other in opponents if (prefix := self._config(other).prefix) and not samplings}:
            optional["opponent_prefixes"] = prefixes
        payload = EvaluatePayload(
            **self._prompts(block),
            **self._prefix(row),
            evaluator=self._described(evaluator),
            backend=self._backend(row),
            seed=row.training_seed,
            **optional,
        )
        title = f"{label} of {name} · seed {row.seed}{_named(block)}"
        # One that brings its questions has them answered itself.
        devices = self._gpus(row) if evaluator.brings_questions() else 1
        return self.graph.add("evaluate", title, payload.as_json(), inputs.named(), devices=devices, weight=3)

    def _prompts(self, block: Block) -> Mapping[str, Any]:
        """Return the prompts of an `EvaluatedPayload`: the first block is what a config with so many prompts evaluates."""
        first, last = block
        return {"split": self.config.evaluation.split, "prompts": last, **({"first": first} if first else {})}

    def _prefix(self, row: RowPlan) -> Mapping[str, Any]:
        """Return the `prefix` of an `EvaluatedPayload`, where the row answers under one."""
        prefix = self._config(row).prefix
        return {"prefix": prefix} if prefix else {}

    def _answers(self, row: RowPlan, sampling: Sampling, block: Block) -> str:
        """Add the answers of a row that an evaluator said it will ask for."""
        payload = AnswersPayload(
            **self._prompts(block),
            **self._prefix(row),
            sampling=asdict(run_sampling(sampling, row.training_seed)),
            backend=self._backend(row),
        )
        title = f"answers of {row.label} ({sampling.label}) · seed {row.seed}{_named(block)}"
        inputs = AnswersInputs(self.source, row.model)
        devices = self._gpus(row)
        return self.graph.add("answers", title, payload.as_json(), inputs.named(), devices=devices, weight=5)

    def _opponents(self, evaluator: Evaluator, row: RowPlan) -> list[RowPlan]:
        """Return the rows that an evaluation compares with: `all` are all others; the baseline is its own opponent."""
        named = [self.config.baseline if label == "baseline" else label for label in evaluator.opponents()]
        if "all" in named:
            return [other for other in self.trained[row.seed] if other.label != row.label]
        return [other for other in self.trained[row.seed] if other.label in named]


def _blocks(evaluation: EvaluationSection) -> list[Block]:
    """Return the blocks of prompts that are evaluated one after another: one alone where no prompts are added."""
    if evaluation.until is None or evaluation.most is None:
        return [(0, evaluation.prompts)]
    looks = Rule.of_prompts(evaluation.first_prompts, evaluation.most).looks
    return list(zip((0, *looks), looks, strict=False))


def _named(block: Block) -> str:
    first, last = block
    return f" · prompts {first + 1} to {last}" if first else ""


def _judged(judge: JudgeSettings) -> Mapping[str, Any]:
    """Return the fields of a `JudgedPayload` that a judge decides."""
    return {"judge": judge.identity, "reading": judge.reading}


def _devices(settings: SftSettings | TrainingSettings) -> int:
    """Return how many devices a training takes for itself."""
    return settings.devices.count if settings.devices else 1


def _round(config: RowConfig, number: int) -> str:
    return f" round {number + 1}" if config.planned_rounds > 1 else ""
