"""Resolve the rows of a config: find every name, check every field, and note every mistake instead of raising it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from harness.api.interfaces import Backend, DataBuilder, Objective, Source, Trainer
from harness.api.methods import GROUPED, Method, Round
from harness.api.registry import Kind, Registry
from harness.config.problems import ABSENT, QUOTE_NULL, problems_of
from harness.config.schema import Budget, ComponentSection, MethodEntry, Named
from harness.errors import PluginError, Problem, did_you_mean
from harness.extras import missing_extra
from harness.models.checkpoint import Checkpoint
from harness.models.served import BACKEND, ServedModel
from harness.training.settings import TrainingSettings


@dataclass(frozen=True)
class RoundPlan:
    """One round of a row, resolved.

    Attributes:
        builder: None where the trainer trains on prompts.
        objective: None where the trainer has a loss of its own.
    """

    builder: DataBuilder | None
    objective: Objective | None
    training: TrainingSettings
    trainer: Trainer
    reference: Literal["previous", "start"] = "previous"

    def required(self) -> frozenset[str]:
        """Return what the round asks of the source."""
        return (self.builder.required() if self.builder else frozenset()) | self.trainer.required()

    def needs_rejected(self) -> bool:
        """Return whether a group without a rejected response cannot be trained on."""
        return self.trainer.needs_rejected() or (self.objective is not None and self.objective.needs_rejected)

    @property
    def title(self) -> str:
        """The name of what is optimised: the objective, or a trainer that stands for its own."""
        return self.trainer.title() if self.objective is None or self.trainer.name != GROUPED else self.objective.name


@dataclass(frozen=True)
class RowConfig:
    """One row of the board, resolved from its `MethodEntry`, the config's own spelling of a row.

    Attributes:
        rounds: the rounds that the row's model has been through; empty for rows that are the starting model itself, and for
            models from elsewhere.
        planned_rounds: all rounds of its entry, which share the budget; more than `rounds` for the row of an earlier round.
        series: the entry's label, which the rows of its rounds have in common; `label` is `series@2` for that of round 2.
        budget: the config's, with the entry's changes.
        source: the source of its training prompts; None for the comparison's. It is evaluated on the comparison's in any case.
        checkpoint: the model of a row of kind `checkpoint`; None until `harness.config.starting_model` has located it.
        served: the model of a row of kind `served`; `backend` asks it.
        prefix: `evaluation.prefix` of the entry: goes before every prompt that the row answers when it is evaluated.
    """

    label: str
    method: str
    kind: Literal["measured", "control", "null", "checkpoint", "served"]
    data: str | None
    objective: str | None
    seed_offset: int
    rounds: tuple[RoundPlan, ...]
    planned_rounds: int
    series: str
    budget: Budget
    source: Source | None = None
    checkpoint: Checkpoint | None = None
    served: ServedModel | None = None
    backend: Backend | None = None
    prefix: str = ""

    @property
    def is_as_it_is(self) -> bool:
        """Whether the row is a model from elsewhere, evaluated once: no seed of the comparison has a part in its making."""
        return self.kind in ("checkpoint", "served")

    @property
    def prompts(self) -> int:
        """How many training prompts, counted from the first, its rounds draw on; 0 where it trains nothing."""
        if not self.rounds:
            return 0
        return self.budget.part(self.budget.prompts, len(self.rounds) - 1, self.planned_rounds)[1]

    @property
    def source_name(self) -> str:
        """Its own source in `Comparison.unreachable`."""
        return f"source of {self.series}"

    def spent(self, amount: int) -> int:
        """Return how much of an amount of its budget its rounds get together."""
        parts = [self.budget.part(amount, number, self.planned_rounds) for number in range(len(self.rounds))]
        return sum(last - first for first, last in parts)


class Resolver:
    """Resolves parts of a raw config one by one, and notes what is wrong instead of stopping."""

    def __init__(
        self, registry: Registry, problems: list[Problem], reward: Any = None, unchecked: dict[str, str] | None = None
    ) -> None:
        """Resolve with these plugins.

        Args:
            reward: the config's own, for components that take one and say nothing of it; None leaves them gold.
            unchecked: takes the places whose check needs a package that is not installed.
        """
        self.unchecked = {} if unchecked is None else unchecked
        self.registry = registry
        self.problems = problems
        self.reward = reward

    def each(self, field: str, items: Any, resolve_one: Callable[[Any, str], Any]) -> list[Any]:
        if not isinstance(items, list | tuple):
            return []
        return [resolve_one(item, f"{field}.{index}") for index, item in enumerate(items)]

    def component(self, kind: Kind, item: Any, field: str, fields: Mapping[str, Any] | None = None) -> Any:
        """An instance of a named component, or None with a problem noted."""
        try:
            named = Named.model_validate(item)
        except ValidationError:
            return None  # the shape's problem is noted by `validate`
        try:
            cls = self.registry.get(kind, named.name).component
        except PluginError:
            hint = did_you_mean(named.name, self.registry.names(kind))
            self.problems.append(Problem(field, named.name, f"no {kind} is called so; {hint}"))
            return None
        given = {**named.fields, **(fields or {})}
        # It is written into the component's field, so that keys and boards hold what marked.
        if self.reward is not None and cls.takes_reward(given):
            given = {"reward": self.reward, **given}
        return self.build(cls, given, field)

    def build(self, cls: type[BaseModel], fields: Mapping[str, Any], field: str) -> Any:
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            self.problems += problems_of(error, cls, field)
            return None
        except Exception as error:  # a plugin's own check that stumbles over a value is a wrong value too, not a crash
            fix = f"the check of {cls.__name__} failed on these fields with {type(error).__name__}: {error}"
            self.problems.append(Problem(field, dict(fields), fix))
            return None

    def training(self, section: Any, changes: Mapping[str, Any], field: str) -> TrainingSettings | None:
        merged = {**(section if isinstance(section, dict) else {}), **changes}
        try:
            return TrainingSettings.model_validate(merged)
        except ValidationError as error:
            if field:
                self.problems += problems_of(error, TrainingSettings, f"{field}.training")
            return None

    def budget(self, section: Any) -> Budget:
        """Return the config's budget; its defaults where it is wrong, which `validate` says."""
        try:
            return Budget.model_validate({} if section is None else section)
        except ValidationError:
            return Budget()

    def rows(self, item: Any, field: str, training: TrainingSettings | None, budget: Budget) -> list[RowConfig | None]:
        """Return the rows of an entry: one, or one for each round it asks for; [None] with problems noted."""
        try:
            entry = MethodEntry.model_validate(item)
        except ValidationError:
            return [None]
        row = self._row_as_it_is(entry, field, budget) or self._row(entry, field, training, budget)
        if row is not None and entry.evaluation is not None:
            row = replace(row, prefix=entry.evaluation.prefix)
        if row is None or entry.rows == "last":
            return [row]
        count = row.planned_rounds
        numbers = range(1, count + 1) if entry.rows == "each_round" else entry.rows
        if (beyond := next((number for number in numbers if number > count), None)) is not None:
            fix = f"{row.label!r} has {count} round{'s' * (count != 1)}: list numbers from 1 to {count}"
            self.problems.append(Problem(f"{field}.rows", beyond, fix))
            return [None]
        return [_after_round(row, number) for number in numbers]

    def _row_as_it_is(self, entry: MethodEntry, field: str, budget: Budget) -> RowConfig | None:
        """Return the row of a model from elsewhere, its checkpoint not yet located; None for an entry that is a method."""
        if entry.checkpoint is not None:
            label = entry.label or Path(entry.checkpoint.path).name
            return RowConfig(label, "checkpoint", "checkpoint", None, None, 0, (), 0, label, budget)
        if entry.served is None:
            return None
        served, label = ServedModel(**entry.served.model_dump()), entry.label or entry.served.model
        backend = self.component("backend", {"name": BACKEND, **served.backend_fields()}, f"{field}.served")
        return RowConfig(label, "served", "served", None, None, 0, (), 0, label, budget, served=served, backend=backend)

    def _row(self, entry: MethodEntry, field: str, training: TrainingSettings | None, budget: Budget) -> RowConfig | None:
        method = self._method(entry, field)
        if method is None:
            return None
        base = self.training(training.model_dump() if training else {}, {**method.training, **entry.training}, field)
        rounds: list[RoundPlan | None] = []
        if _trains(method):
            rounds = [
                self._round(method, round_, field, f"{field}.rounds.{number}", base)
                for number, round_ in enumerate(entry.rounds or method.rounds)
            ]
        for trainer in {round_.trainer.name: round_.trainer for round_ in rounds if round_}.values():
            self._check_carried(entry, trainer, field)
        label = entry.label or entry.method or method.name
        return RowConfig(
            label=label,
            method=method.name,
            kind=method.kind,
            data=_parts(method.data, [round_.builder.name for round_ in rounds if round_ and round_.builder]),
            objective=_parts(method.objective, [round_.title for round_ in rounds if round_]),
            seed_offset=method.seed_offset,
            rounds=tuple(round_ for round_ in rounds if round_ is not None),
            planned_rounds=len(rounds),
            series=label,
            budget=budget.changed(entry.budget) if entry.budget else budget,
            source=self.component("source", entry.source, f"{field}.source") if entry.source else None,
        )

    def _method(self, entry: MethodEntry, field: str) -> Method | None:
        """The registered method with the entry's components and fields put in."""
        base = self._own_method(entry, field) if entry.method is None else self._registered_method(entry.method, field)
        if base is None:
            return None
        changes = {
            **_part("data", entry.data, base.data, base.data_fields),
            **_part("objective", entry.objective, base.objective, base.objective_fields),
            **_part("trainer", entry.trainer, base.trainer, base.trainer_fields),
        }
        method = base.model_copy(update=changes)
        known = len(self.problems)
        self._check_use(entry, method, field)
        return method if len(self.problems) == known else None

    def _own_method(self, entry: MethodEntry, field: str) -> Method | None:
        named = [part.name for part in (entry.data, entry.objective, entry.trainer) if part and part.name]
        both = entry.data and entry.data.name and entry.objective and entry.objective.name
        if both or (entry.trainer and entry.trainer.name not in (None, GROUPED)):
            return Method(name=entry.label or "+".join(named), description="")
        if "method" in entry.model_fields_set:
            self.problems.append(Problem(f"{field}.method", None, QUOTE_NULL))
        else:
            fix = (
                "name a `method`, a `trainer`, or both a builder and an objective: `data: {name: …}` and `objective: {name: …}`"
            )
            self.problems.append(Problem(f"{field}.method", entry.method or ABSENT, fix))
        return None

    def _registered_method(self, name: str, field: str) -> Method | None:
        try:
            method: Method = self.registry.get("method", name).component
        except PluginError:
            hint = did_you_mean(name, self.registry.names("method"))
            self.problems.append(Problem(f"{field}.method", name, f"no method is called so; {hint}"))
            return None
        return method

    def _check_use(self, entry: MethodEntry, method: Method, field: str) -> None:
        """Refuse what would have no effect: changes to a row that trains nothing, and fields that every round sets anyway."""
        given = {
            "data": entry.data,
            "objective": entry.objective,
            "rounds": entry.rounds,
            "training": entry.training or None,
            "rows": None if entry.rows == "last" else entry.rows,
            "budget": entry.budget,
            "source": entry.source,
        }
        if not _trains(method):
            given["trainer"] = entry.trainer
            for name, value in given.items():
                if value is not None:
                    fix = f"the row {method.name!r} trains nothing: leave `{name}` out, or name both a builder and an objective"
                    self.problems.append(Problem(f"{field}.{name}", _written(value), fix))
            return
        if entry.rounds is not None:
            return
        for part, changed in (("data", entry.data), ("objective", entry.objective)):
            for name, value in (changed.fields if changed else {}).items():
                if all(name in getattr(round_, part) for round_ in method.rounds):
                    fix = f"every round of {method.name!r} sets this, so it would have no effect: write `rounds` of your own"
                    self.problems.append(Problem(f"{field}.{part}.{name}", value, fix))

    def _round(
        self, method: Method, round_: Round, field: str, round_field: str, base: TrainingSettings | None
    ) -> RoundPlan | None:
        trainer: Trainer | None = self.component("trainer", method.trainer, f"{field}.trainer", method.trainer_fields)
        changed = self.training(base.model_dump(), round_.training, round_field) if base else None
        if trainer is None or not self._fits(trainer, method, round_, field):
            return None
        known, builder, objective = len(self.problems), None, None
        if "name" in round_.data or method.data is not None:
            builder = self._round_part("data", (method.data, method.data_fields), round_.data, field, round_field)
        if "name" in round_.objective or method.objective is not None:
            objective = self._round_part(
                "objective", (method.objective, method.objective_fields), round_.objective, field, round_field
            )
        if changed is None or len(self.problems) > known:
            return None
        try:
            conflicts = trainer.conflicts(objective, changed)
        except ModuleNotFoundError as error:
            conflicts = ()
            if (missing := missing_extra(error)) is None:
                raise
            self.unchecked[f"{field}.trainer"] = str(missing)
        for name, fix in conflicts:
            self.problems.append(Problem(f"{field}.{name}", _value_of(name, trainer, objective, changed), fix))
        rate = changed.learning_rate * round_.learning_rate_factor
        if not 0 < rate <= 1:
            fix = f"it makes the learning rate {rate:g}: it should be greater than 0, and the rate at most 1"
            self.problems.append(Problem(f"{round_field}.learning_rate_factor", round_.learning_rate_factor, fix))
        return RoundPlan(builder, objective, changed.model_copy(update={"learning_rate": rate}), trainer, round_.reference)

    def _fits(self, trainer: Trainer, method: Method, round_: Round, field: str) -> bool:
        """Note what a round has and its trainer cannot use, and what it lacks; return whether there is nothing of the kind."""
        data, objective = round_.data.get("name", method.data), round_.objective.get("name", method.objective)
        known, title, takes = len(self.problems), repr(trainer.title()), trainer.objectives()
        if data is None and trainer.trains_on() == "groups":
            self.problems.append(Problem(f"{field}.data", ABSENT, f"the trainer {title} trains on groups: name a data builder"))
        elif data is not None and trainer.trains_on() == "prompts":
            self.problems.append(Problem(f"{field}.data", data, f"the trainer {title} trains on prompts alone: leave it out"))
        if objective is None and trainer.needs_objective():
            fix = f"the trainer {title} takes the loss of an objective: name one, `objective: {{name: …}}`"
            self.problems.append(Problem(f"{field}.objective", ABSENT, fix))
        elif objective is not None and takes is not None and objective not in takes:
            fix = (
                f"the trainer {title} cannot train with it ({did_you_mean(objective, takes)})"
                if takes
                else (
                    f"the trainer {title} has a loss of its own: leave the objective out, and name `data` instead of a method"
                )
            )
            self.problems.append(Problem(f"{field}.objective", objective, fix))
        if round_.reference == "start" and trainer.name != GROUPED:
            fix = f"the trainer {title} refers to the model that the round starts from: leave it out"
            self.problems.append(Problem(f"{field}.rounds", "reference: start", fix))
        return len(self.problems) == known

    def _check_carried(self, entry: MethodEntry, trainer: Trainer, field: str) -> None:
        """Refuse settings that a row gives for itself and its trainer does not use."""
        given: dict[str, Mapping[str, Any]] = {f"{field}.training": entry.training}
        given |= {f"{field}.rounds.{number}.training": round_.training for number, round_ in enumerate(entry.rounds or ())}
        for place, section in given.items():
            for name in sorted(section.keys() & TrainingSettings.model_fields.keys() - trainer.carries):
                uses = ", ".join(sorted(trainer.carries)) or "none"
                fix = f"the trainer {trainer.title()!r} does not use it (of these settings it uses {uses}): leave it out"
                self.problems.append(Problem(f"{place}.{name}", section[name], fix))

    def _round_part(
        self, kind: Kind, own: tuple[str | None, Mapping[str, Any]], given: Mapping[str, Any], field: str, round_field: str
    ) -> Any:
        """A round's builder or objective, its method's `own` unless another is named; what is wrong with a field that the
        round sets is said of the round."""
        changes = {name: value for name, value in given.items() if name != "name"}
        other = given.get("name", own[0])
        if other != own[0]:
            return self.component(kind, other, f"{round_field}.{kind}", changes)
        known, place = len(self.problems), f"{field}.{kind}."
        component = self.component(kind, other, place[:-1], {**own[1], **changes})
        for index, problem in enumerate(self.problems[known:], start=known):
            changed = problem.field.removeprefix(place)
            if problem.field.startswith(place) and changed.split(".")[0] in changes:
                self.problems[index] = replace(problem, field=f"{round_field}.{kind}.{changed}")
        return component


def _trains(method: Method) -> bool:
    """Whether a method's rows are trained, and not the starting model itself."""
    return method.trainer != GROUPED or (method.data is not None and method.objective is not None)


def _value_of(name: str, trainer: Trainer, objective: Objective | None, training: TrainingSettings) -> Any:
    """The value of a field as `Trainer.conflicts` names it: `objective.beta`, `training.lora`, `trainer.arguments.beta`."""
    part, *path = name.split(".")
    value: Any = {"trainer": trainer, "objective": objective, "training": training}.get(part)
    for step in path:
        value = value.get(step, ABSENT) if isinstance(value, Mapping) else getattr(value, step, ABSENT)
    return value


def _after_round(row: RowConfig, number: int) -> RowConfig:
    """Return the row of the model after one of a row's rounds."""
    rounds = row.rounds[:number]
    return replace(
        row,
        label=f"{row.series}@{number}",
        data=_parts(row.data, [round_.builder.name for round_ in rounds if round_.builder]),
        objective=_parts(row.objective, [round_.title for round_ in rounds]),
        rounds=rounds,
    )


def _parts(name: str | None, rounds: Sequence[str]) -> str | None:
    """The name of a row's builder or objective; where rounds have different ones, all in their order."""
    return " → ".join(dict.fromkeys(rounds)) or name


def _part(kind: str, given: ComponentSection | None, name: str | None, fields: Mapping[str, Any]) -> dict[str, Any]:
    """A method's builder or objective with an entry's changes: another component, or some of its fields."""
    if given is None:
        return {}
    if given.name is not None and given.name != name:
        return {kind: given.name, f"{kind}_fields": given.fields}
    return {f"{kind}_fields": {**fields, **given.fields}}


def _written(value: Any) -> Any:
    """A parsed value as the user wrote it."""
    if isinstance(value, tuple):
        return [_written(item) for item in value]
    return value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value
