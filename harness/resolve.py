"""Config × registry -> a comparison with every name resolved, every field checked and every need met, before any compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.config import Config, raise_all, validate
from harness.errors import DataError, Problem, did_you_mean
from harness.interfaces import Backend, Component, Evaluator, Source
from harness.models.load import checkpoint_folder
from harness.registry import Registry
from harness.sweep import expand
from harness.variants import Resolver, RoundPlan, Variant

__all__ = ["Comparison", "RoundPlan", "Variant", "describe", "resolve"]


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
    raw, sweeping = expand(raw)
    config, problems = validate(raw)
    problems += sweeping
    resolver = Resolver(registry, problems)
    source = resolver.component("source", raw.get("source"), "source")
    evaluators = resolver.each(
        "evaluators", raw.get("evaluators"), lambda item, field: resolver.component("evaluator", item, field)
    )
    training = resolver.training(raw.get("training"), {}, "")
    variants = resolver.each("methods", raw.get("methods"), lambda item, field: resolver.variant(item, field, training))
    generation = raw.get("generation")
    backend = resolver.component(
        "backend", (generation.get("backend") if isinstance(generation, dict) else None) or "transformers", "generation.backend"
    )
    _check_labels(problems, variants, raw.get("baseline"))
    variants = _with_baseline(problems, variants, raw.get("baseline"))
    _check_evaluators(problems, evaluators)
    _check_needs(problems, source, variants, evaluators)
    _check_model(problems, raw.get("model"))
    _check_source(problems, source)
    if config is not None:
        _check_budget(problems, variants, config.budget.prompts, source)
        _check_seeds(problems, variants, config.seeds)
    raise_all(_in_order(problems), where)
    assert config is not None and source is not None and backend is not None
    return Comparison(config, source, backend, tuple(v for v in variants if v), tuple(e for e in evaluators if e))


def _in_order(problems: Sequence[Problem]) -> list[Problem]:
    """Problems as the config's sections come, without repetitions; fields that no section has go first."""
    sections = [info.alias or name for name, info in Config.model_fields.items()]

    def place(problem: Problem) -> tuple[int, int]:
        section, *rest = problem.field.split(".")
        item = int(rest[0]) if rest and rest[0].isdecimal() else -1
        return (sections.index(section) if section in sections else -1, item)

    distinct = {(problem.field, repr(problem.value), problem.fix): problem for problem in problems}
    return sorted(distinct.values(), key=place)


def _check_labels(problems: list[Problem], variants: Sequence[Variant | None], baseline: Any) -> None:
    labels = [variant.label for variant in variants if variant]
    for label in sorted({label for label in labels if labels.count(label) > 1}):
        problems.append(Problem("methods", label, "two rows have this label: give one of them another `label`"))
    if labels and isinstance(baseline, str) and baseline not in labels and len(labels) == len(variants):
        problems.append(Problem("baseline", baseline, f"no row has this label; {did_you_mean(baseline, labels)}"))


def _with_baseline(problems: list[Problem], variants: Sequence[Variant | None], baseline: Any) -> list[Variant | None]:
    """Null rows made what they are: the baseline, whatever it is, with other seeds."""
    base = next((variant for variant in variants if variant and variant.label == baseline), None)
    if base is None:
        return list(variants)
    if base.kind == "null":
        problems.append(Problem("baseline", baseline, "a null row is the baseline again: choose another row as the baseline"))
    return [
        replace(variant, data=base.data, objective=base.objective, rounds=base.rounds)
        if variant and variant.kind == "null"
        else variant
        for variant in variants
    ]


def _check_seeds(problems: list[Problem], variants: Sequence[Variant | None], seeds: Sequence[int]) -> None:
    """A row with other seeds must not meet the seeds of the rest: it would be the same training."""
    for offset in sorted({variant.seed_offset for variant in variants if variant and variant.seed_offset}):
        met = [seed for seed in seeds if seed + offset in seeds]
        if met:
            fix = f"the null row trains with each seed + {offset}, and {met[0] + offset} is a seed itself: choose others"
            problems.append(Problem("seeds", list(seeds), fix))


def _check_source(problems: list[Problem], source: Source | None) -> None:
    for field, fix in source.problems() if source else ():
        problems.append(Problem(f"source.{field}", getattr(source, field), fix))


def _check_evaluators(problems: list[Problem], evaluators: Sequence[Evaluator | None]) -> None:
    names = [evaluator.name for evaluator in evaluators if evaluator]
    for name in sorted({name for name in names if names.count(name) > 1}):
        fix = "it is listed twice, and a board holds each evaluator once: leave one out"
        problems.append(Problem("evaluators", name, fix))


def _check_model(problems: list[Problem], section: Any) -> None:
    path = section.get("path") if isinstance(section, dict) else None
    if isinstance(path, str):
        try:
            checkpoint_folder(path)
        except DataError as error:
            problems.append(Problem("model.path", path, str(error).removeprefix(f"model.path = {path!r}: ")))


def _check_budget(problems: list[Problem], variants: Sequence[Variant | None], prompts: int, source: Source | None) -> None:
    available = source.sizes().get("train") if source else None
    if available is not None and prompts > available:
        fix = f"the source has {available} training prompts: lower it, or set source.train to {prompts}"
        problems.append(Problem("budget.prompts", prompts, fix))
    most = max((len(variant.rounds) for variant in variants if variant), default=0)
    if prompts < most:
        fix = f"a method has {most} rounds, and each needs a prompt: it should be at least {most}"
        problems.append(Problem("budget.prompts", prompts, fix))


def _check_needs(
    problems: list[Problem], source: Source | None, variants: Sequence[Variant | None], evaluators: Sequence[Evaluator | None]
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
            fix = f"it needs {' and '.join(missing)}, and {source.name!r} provides {have}: leave it out, or change the source"
            problems.append(Problem(field, name, fix))


def describe(component: Component) -> dict[str, Any]:
    """What decides a component's behaviour: for keys and for the board."""
    return {"name": component.name, "version": component.version, "fields": component.model_dump(mode="json")}
