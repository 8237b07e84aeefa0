"""Config × registry -> a comparison with every name resolved, every field checked and every need met, before any compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.config import Config, MethodEntry, Named, problems_of, raise_all, validate
from harness.errors import PluginError, Problem, did_you_mean
from harness.interfaces import Backend, Component, DataBuilder, Evaluator, Method, Objective, Round, Source
from harness.registry import Kind, Registry
from harness.training.settings import TrainingSettings


@dataclass(frozen=True)
class RoundPlan:
    """One round of one variant, resolved."""

    builder: DataBuilder
    objective: Objective
    training: TrainingSettings


@dataclass(frozen=True)
class Variant:
    """One row of the board, resolved. `rounds` is empty for rows that are the starting model itself."""

    label: str
    method: str
    kind: str
    data: str | None
    objective: str | None
    seed_offset: int
    rounds: tuple[RoundPlan, ...]


@dataclass(frozen=True)
class Comparison:
    """Everything that runs, resolved."""

    config: Config
    source: Source
    backend: Backend
    variants: tuple[Variant, ...]
    evaluators: tuple[Evaluator, ...]


def resolve(raw: Mapping[str, Any], registry: Registry, where: str = "the configuration") -> Comparison:
    """A comparison from a raw config.

    Raises:
        ConfigError: names *every* problem: unknown fields and names, values out of bounds, unmet needs.
    """
    config, problems = validate(raw)
    resolver = _Resolver(registry, problems)
    source = resolver.component("source", raw.get("source"), "source")
    evaluators = resolver.each("evaluators", raw.get("evaluators"), lambda item, field: resolver.component("evaluator", item, field))
    training = resolver.training(raw.get("training"), {}, "")
    variants = resolver.each("methods", raw.get("methods"), lambda item, field: resolver.variant(item, field, training))
    generation = raw.get("generation")
    backend = resolver.component(
        "backend", (generation.get("backend") if isinstance(generation, dict) else None) or "transformers", "generation.backend"
    )
    resolver.check_labels(variants, raw.get("baseline"))
    resolver.check_needs(source, variants, evaluators)
    raise_all(_distinct(problems), where)
    assert config is not None and source is not None and backend is not None
    return Comparison(config, source, backend, tuple(v for v in variants if v), tuple(e for e in evaluators if e))


def _distinct(problems: Sequence[Problem]) -> list[Problem]:
    """Problems without repetitions; a field named twice keeps its first problem."""
    seen: dict[tuple[str, str], Problem] = {}
    for problem in problems:
        seen.setdefault((problem.field, repr(problem.value)), problem)
    return list(seen.values())


class _Resolver:
    """Resolves parts of a raw config one by one, and notes what is wrong instead of stopping."""

    def __init__(self, registry: Registry, problems: list[Problem]) -> None:
        self.registry = registry
        self.problems = problems

    def each(self, field: str, items: Any, resolve_one: Any) -> list[Any]:
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
        return self.build(cls, {**named.fields, **(fields or {})}, field)

    def build(self, cls: type[BaseModel], fields: Mapping[str, Any], field: str) -> Any:
        try:
            return cls(**fields)
        except ValidationError as error:
            self.problems += problems_of(error, cls, field)
            return None

    def training(self, section: Any, changes: Mapping[str, Any], field: str) -> TrainingSettings | None:
        merged = {**(section if isinstance(section, dict) else {}), **changes}
        try:
            return TrainingSettings(**merged)
        except ValidationError as error:
            if field:
                self.problems += problems_of(error, TrainingSettings, f"{field}.training")
            return None

    def variant(self, item: Any, field: str, training: TrainingSettings | None) -> Variant | None:
        try:
            entry = MethodEntry.model_validate(item)
        except ValidationError:
            return None
        method = self._method(entry, field)
        if method is None:
            return None
        changes = {**method.training, **entry.training}
        base = self.training(training.model_dump() if training else {}, changes, field)
        rounds = tuple(self._round(entry, method, round_, field, base) for round_ in entry.rounds or method.rounds)
        if method.data is None:
            rounds = ()
        return Variant(
            label=entry.label or entry.method or method.name,
            method=method.name,
            kind=method.kind,
            data=method.data,
            objective=method.objective,
            seed_offset=method.seed_offset,
            rounds=tuple(round_ for round_ in rounds if round_ is not None),
        )

    def _method(self, entry: MethodEntry, field: str) -> Method | None:
        """The registered method with the entry's components and fields put in."""
        data, objective = entry.data, entry.objective
        if entry.method is None:
            if not isinstance(data, Named) or not isinstance(objective, Named):
                self.problems.append(
                    Problem(field, entry.label or "(no method)", "name a `method`, or both `data: {name: …}` and `objective: {name: …}`")
                )
                return None
            base = Method(name=entry.label or f"{data.name}+{objective.name}", description="")
        else:
            try:
                base = self.registry.get("method", entry.method).component
            except PluginError:
                hint = did_you_mean(entry.method, self.registry.names("method"))
                self.problems.append(Problem(f"{field}.method", entry.method, f"no method is called so; {hint}"))
                return None
        changes = {**_part("data", data, base.data_fields), **_part("objective", objective, base.objective_fields)}
        return base.model_copy(update=changes)

    def _round(
        self, entry: MethodEntry, method: Method, round_: Round, field: str, base: TrainingSettings | None
    ) -> RoundPlan | None:
        if method.data is None or method.objective is None:
            return None
        builder = self.component("data", method.data, f"{field}.data", {**method.data_fields, **round_.data})
        objective = self.component("objective", method.objective, f"{field}.objective", {**method.objective_fields, **round_.objective})
        if builder is None or objective is None or base is None:
            return None
        return RoundPlan(
            builder, objective, base.model_copy(update={"learning_rate": base.learning_rate * round_.learning_rate_factor})
        )

    def check_labels(self, variants: Sequence[Variant | None], baseline: Any) -> None:
        labels = [variant.label for variant in variants if variant]
        for label in sorted({label for label in labels if labels.count(label) > 1}):
            self.problems.append(Problem("methods", label, "two rows have this label: give one of them another `label`"))
        if isinstance(baseline, str) and baseline not in labels and len(labels) == len(variants):
            self.problems.append(Problem("baseline", baseline, f"no row has this label; {did_you_mean(baseline, labels)}"))

    def check_needs(
        self, source: Source | None, variants: Sequence[Variant | None], evaluators: Sequence[Evaluator | None]
    ) -> None:
        if source is None:
            return
        wanted: list[tuple[str, str, frozenset[str]]] = [
            (f"methods.{index}", variant.label, frozenset().union(*(round_.builder.needs for round_ in variant.rounds)))
            for index, variant in enumerate(variants)
            if variant
        ]
        wanted += [(f"evaluators.{index}", item.name, item.needs) for index, item in enumerate(evaluators) if item]
        for field, name, needs in wanted:
            missing = sorted(needs - source.provides)
            if missing:
                have = ", ".join(sorted(source.provides)) or "nothing"
                fix = f"needs {' and '.join(missing)}, and the source {source.name!r} provides {have}; leave it out or change the source"
                self.problems.append(Problem(field, name, fix))


def _part(kind: str, given: Named | dict[str, Any] | None, fields: Mapping[str, Any]) -> dict[str, Any]:
    """A method's builder or objective with an entry's changes: another component, or some of its fields."""
    if isinstance(given, Named):
        return {kind: given.name, f"{kind}_fields": given.fields}
    return {f"{kind}_fields": {**fields, **(given or {})}}


def describe(component: Component) -> dict[str, Any]:
    """What decides a component's behaviour: for keys and for the board."""
    return {"name": component.name, "version": component.version, "fields": component.model_dump(mode="json")}
