"""Config × registry -> a comparison with every name resolved, every field checked and every need met, before any compute."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from harness.config import Budget, Config, raise_all, validate
from harness.errors import DataError, Problem, UnreachableError, did_you_mean
from harness.interfaces import Backend, Component, Evaluator, Source
from harness.judging.settings import BUILDERS, JudgeSettings
from harness.models.checkpoint import Checkpoint
from harness.problems import ABSENT, impossible, problems_of, secrets
from harness.registry import Registry
from harness.starting_model import check_trained_dtype, starting_model
from harness.sweep import expand
from harness.variants import Resolver, RoundPlan, Variant

__all__ = ["Comparison", "RoundPlan", "Variant", "describe", "resolve"]


@dataclass(frozen=True)
class Comparison:
    """Everything that runs, resolved.

    Attributes:
        judges: one of each evaluator that asks one, by the evaluator's name; the config's own where data builders ask it.
        checkpoint: the starting model; None where one is made from the source's text.
        unreachable: `model`, `source` -> why it could not be looked up; empty unless `resolve` was called with `offline`.
    """

    config: Config
    source: Source
    backend: Backend
    variants: tuple[Variant, ...]
    evaluators: tuple[Evaluator, ...]
    judges: Mapping[str, JudgeSettings]
    checkpoint: Checkpoint | None = None
    unreachable: Mapping[str, str] = dataclasses.field(default_factory=dict)


def resolve(
    raw: Mapping[str, Any], registry: Registry, where: str = "the configuration", *, offline: bool = False
) -> Comparison:
    """A comparison from a raw config.

    Args:
        offline: what only the hub can tell, while it cannot be reached, is no problem but noted as
            `Comparison.unreachable`: good for a plan, whose keys are then not those of a run.

    Raises:
        ConfigError: names *every* problem: unknown fields and names, values out of bounds, unmet needs.
    """
    raise_all(list(secrets(raw)), where)  # before any message quotes a value
    raise_all([problem for problem in impossible(raw) if not isinstance(problem.value, float)], where)  # nothing can hold them
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
    _check_opponents(problems, evaluators, variants)
    _check_files(problems, evaluators)
    judges = _judges(problems, config.judge if config else None, raw.get("judge"), evaluators)
    judges |= _builders_judge(problems, config.judge if config else None, raw.get("judge"), variants)
    unreachable: dict[str, str] = {}
    checkpoint = starting_model(problems, raw.get("model"), unreachable if offline else None)
    _check_machine(problems, source, backend, variants, evaluators)
    source = _pinned(problems, source, unreachable if offline else None)
    if config is not None:
        _check_budget(problems, variants, config.budget, source)
        _check_epochs(problems, config)
        _check_seeds(problems, variants, config.seeds)
        _check_backend(problems, backend, variants, config.sft is not None)
        trained = [round_.training for variant in variants if variant for round_ in variant.rounds]
        check_trained_dtype(problems, config.model, [*([config.sft] if config.sft else []), *trained])
    raise_all(_in_order(problems), where)
    assert config is not None and source is not None and backend is not None
    return Comparison(
        config,
        source,
        backend,
        tuple(v for v in variants if v),
        tuple(e for e in evaluators if e),
        judges,
        checkpoint,
        unreachable,
    )


def _pinned(problems: list[Problem], source: Source | None, unreachable: dict[str, str] | None) -> Source | None:
    """The source with its branch as a commit; as it is where something is wrong with it already."""
    if source is None or any(problem.field.startswith("source") for problem in problems):
        return source
    try:
        return source.pinned()
    except UnreachableError as error:
        if unreachable is None:
            problems.append(Problem("source", source.name, str(error)))
        else:
            unreachable["source"] = str(error)
    except DataError as error:
        problems.append(Problem("source", source.name, str(error)))
    return source


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


def _check_machine(
    problems: list[Problem],
    source: Source | None,
    backend: Backend | None,
    variants: Sequence[Variant | None],
    evaluators: Sequence[Evaluator | None],
) -> None:
    """What only a look at the machine can tell: files that are not there, engines that are not installed."""
    placed: list[tuple[str, Component | None]] = [("source", source), ("generation.backend", backend)]
    placed += [(f"evaluators.{index}", evaluator) for index, evaluator in enumerate(evaluators)]
    for index, variant in enumerate(variants):
        placed += [(f"methods.{index}.data", round_.builder) for round_ in (variant.rounds if variant else ())]
    for place, component in placed:
        for field, fix in _found(component) if component else ():
            problems.append(Problem(f"{place}.{field}", _value_at(component, field), fix))


def _found(component: Component) -> Sequence[tuple[str, str]]:
    """What a component says is wrong; a path that the system takes for none (too long, of a user that is not there) too."""
    try:
        return component.problems()
    except (OSError, RuntimeError, ValueError) as error:
        return [("name", f"one of its fields names a file that cannot be looked for ({error}): correct that path")]


def _value_at(component: Component | None, field: str) -> Any:
    value: Any = component
    for name in field.split("."):
        value = getattr(value, name, None)
    return value


def _check_backend(problems: list[Problem], backend: Backend | None, variants: Sequence[Variant | None], tuned: bool) -> None:
    """A server with one model of its own must not be taken for the policies that rows train."""
    if backend is None or backend.serves_any_policy():
        return
    trained = [variant.label for variant in variants if variant and variant.rounds]
    if tuned or trained:
        who = f"the row {trained[0]!r}" if trained else "`sft`"
        fix = f"its server answers with one model, and {who} trains another: give a backend that serves each checkpoint"
        problems.append(Problem("generation.backend", backend.name, f"{fix} (its `command`), or train nothing"))


def _check_evaluators(problems: list[Problem], evaluators: Sequence[Evaluator | None]) -> None:
    names = [evaluator.name for evaluator in evaluators if evaluator]
    for name in sorted({name for name in names if names.count(name) > 1}):
        fix = "it is listed twice, and a board holds each evaluator once: leave one out"
        problems.append(Problem("evaluators", name, fix))


def _check_opponents(
    problems: list[Problem], evaluators: Sequence[Evaluator | None], variants: Sequence[Variant | None]
) -> None:
    """Rows that evaluators compare with must be there; a row that could not be resolved is another problem."""
    if None in variants:
        return
    known = {"baseline", "all", *(variant.label for variant in variants if variant)}
    for index, evaluator in enumerate(evaluators):
        for label in evaluator.opponents() if evaluator else ():
            if label not in known:
                fix = f"no row has this label; {did_you_mean(label, known)}"
                problems.append(Problem(f"evaluators.{index}", label, fix))


def _builders_judge(
    problems: list[Problem], judge: JudgeSettings | None, given: Any, variants: Sequence[Variant | None]
) -> dict[str, JudgeSettings]:
    """The config's judge, where a data builder asks one."""
    asking = [
        (index, round_.builder)
        for index, variant in enumerate(variants)
        for round_ in (variant.rounds if variant else ())
        if round_.builder.judged
    ]
    if asking and judge is None and given is None:
        problems.append(_no_judge(asking[0][1].name))
    for index, builder in asking if judge else ():
        try:
            judge.changed(getattr(builder, "judge", {}))  # type: ignore[union-attr]
        except ValidationError as error:
            problems += problems_of(error, JudgeSettings, f"methods.{index}.data.judge")
    return {BUILDERS: judge} if asking and judge else {}


def _no_judge(name: str) -> Problem:
    fix = f"{name!r} asks a judge: add a section such as `judge: {{model: …, base_url: …, api_key_env: …}}`"
    return Problem("judge", ABSENT, fix)


def _judges(
    problems: list[Problem], judge: JudgeSettings | None, given: Any, evaluators: Sequence[Evaluator | None]
) -> dict[str, JudgeSettings]:
    """The judge of every evaluator that asks one: the config's, with the evaluator's own changes."""
    found = {}
    for index, evaluator in enumerate(evaluators):
        if evaluator is None or not evaluator.judged:
            continue
        if judge is None:
            if given is None:
                problems.append(_no_judge(evaluator.name))
            continue  # what is wrong with a given section is said by `validate`
        try:
            found[evaluator.name] = judge.changed(getattr(evaluator, "judge", {}))
        except ValidationError as error:
            problems += problems_of(error, JudgeSettings, f"evaluators.{index}.judge")
    return found


def _check_files(problems: list[Problem], evaluators: Sequence[Evaluator | None]) -> None:
    for index, evaluator in enumerate(evaluators):
        for field, fix in _found(evaluator) if evaluator else ():
            problems.append(Problem(f"evaluators.{index}.{field}", getattr(evaluator, field), fix))


def _check_budget(problems: list[Problem], variants: Sequence[Variant | None], budget: Budget, source: Source | None) -> None:
    prompts, limit = budget.prompts, budget.limit
    available = source.sizes().get("train") if source else None
    if available is not None and prompts > available:
        fix = f"the source has {available} training prompts: lower it, or set source.train to {prompts}"
        problems.append(Problem("budget.prompts", prompts, fix))
    most = max((len(variant.rounds) for variant in variants if variant), default=0)
    if prompts < most:
        fix = f"a method has {most} rounds, and each needs a prompt: it should be at least {most}"
        problems.append(Problem("budget.prompts", prompts, fix))
    if limit is not None and limit.amount < most:
        fix = f"a method has {most} rounds that share it: it should be at least {most}"
        problems.append(Problem(f"budget.{limit.unit}", limit.amount, fix))


def _check_epochs(problems: list[Problem], config: Config) -> None:
    """Refuse `epochs` where the budget decides how often a prompt is seen."""
    if config.budget.limit is None:
        return
    given: dict[str, Mapping[str, Any]] = {"training": config.training.model_dump(exclude_unset=True)}
    for index, entry in enumerate(config.methods):
        given[f"methods.{index}.training"] = entry.training
        given |= {
            f"methods.{index}.rounds.{number}.training": round_.training for number, round_ in enumerate(entry.rounds or ())
        }
    for field, section in given.items():
        if "epochs" in section:
            fix = f"budget.{config.budget.limit.unit} decides how often a prompt is seen: leave it out"
            problems.append(Problem(f"{field}.epochs", section["epochs"], fix))


def _check_needs(
    problems: list[Problem], source: Source | None, variants: Sequence[Variant | None], evaluators: Sequence[Evaluator | None]
) -> None:
    if source is None:
        return
    wanted: list[tuple[str, str, frozenset[str]]] = [
        (f"methods.{index}", variant.label, frozenset[str]().union(*(round_.builder.required() for round_ in variant.rounds)))
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
    described = {"name": component.name, "version": component.version, "fields": component.model_dump(mode="json")}
    fingerprint = component.fingerprint()
    return {**described, "fingerprint": fingerprint} if fingerprint else described
