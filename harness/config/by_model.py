"""Several starting models in one config: `model` is a list, and each of its entries makes a comparison of its own.

    model:
      - sandbox                                  # a path or hub name alone
      - {label: young, path: runs/young}         # or the section `model`, with the label that the board shows

The comparisons differ in nothing but their start, so their stages are those of a config with that one model, and what does not
depend on the model (the data, the judgments of equal answers) is shared by content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from harness.api.registry import Registry
from harness.config.comparison import Comparison, resolved_config
from harness.config.problems import secrets
from harness.config.resolve import resolve
from harness.config.schema import ModelSection, raise_all, wrong_label
from harness.config.starting_model import of_field
from harness.config.strict_yaml import RawConfig
from harness.errors import ConfigError, DataError, Problem
from harness.models.load import load_tokenizer
from harness.models.templates import tokenizer_difference

MODEL, LABEL, SCRATCH = "model", "label", "scratch"
MOST_MODELS = 64  # more is a typing mistake


def resolve_each(
    raw: Mapping[str, Any], registry: Registry, where: str = "the configuration", *, offline: bool = False
) -> list[Comparison]:
    """Return one comparison for each starting model; a single one, without a label, where the config has one model.

    Args:
        offline: as of `resolve`.

    Raises:
        ConfigError: names every problem of every model's comparison, each once.
    """
    if not isinstance(raw.get(MODEL), list):
        return [resolve(raw, registry, where, offline=offline)]
    raise_all(list(secrets(raw)), where)  # before any message quotes a value
    problems = list[Problem]()
    sections = _sections(raw[MODEL], problems)
    if len(sections) > 1:
        problems += _growing(raw)
    comparisons = list[Comparison]()
    for number, (label, section) in sections.items():
        try:
            comparison = resolve({**raw, MODEL: section}, registry, where, offline=offline)
        except ConfigError as error:
            problems += [_placed(problem, number) for problem in error.problems]
        else:
            comparisons.append(replace(comparison, start=label if len(raw[MODEL]) > 1 else None))
    raise_all(_distinct(problems), where)
    raise_all([*_same_twice(comparisons, list(sections)), *_other_limits(comparisons)], where)
    return comparisons


def resolved_configs(comparisons: Sequence[Comparison]) -> RawConfig:
    """Return `resolved_config` of comparisons that differ in their model alone, with the list of models."""
    configs = [resolved_config(comparison) for comparison in comparisons]
    if len(configs) == 1:
        return configs[0]
    models = [{LABEL: item.start, **config[MODEL]} for item, config in zip(comparisons, configs, strict=True)]
    return {**configs[0], MODEL: models}


def _sections(entries: Sequence[Any], problems: list[Problem]) -> dict[int, tuple[str, RawConfig]]:
    """Return label and section of each entry by its place; those that are no good are left out, with a problem noted."""
    if not 0 < len(entries) <= MOST_MODELS:
        problems.append(Problem(MODEL, entries[:3], f"list one starting model or more, and {MOST_MODELS} at most"))
        return {}
    sections: dict[int, tuple[str, RawConfig]] = {}
    for number, entry in enumerate(entries):
        field, section = f"{MODEL}.{number}", {"path": entry} if isinstance(entry, str) else entry
        if not isinstance(section, Mapping):
            problems.append(Problem(field, entry, "write a path or hub name, or a section with `path` or `scratch`"))
            continue
        label = section.get(LABEL, _name(section))
        wrong = wrong_label(label) if isinstance(label, str) else "it should be text"
        if wrong:
            problems.append(Problem(f"{field}.{LABEL}", label, f"{wrong}, since the labels of its rows begin with it"))
        elif (same := next((other for other, (known, _) in sections.items() if known == label), None)) is not None:
            fix = f"{MODEL}.{same} is called so too: give each model a `{LABEL}` of its own"
            problems.append(Problem(f"{field}.{LABEL}", label, fix))
        else:
            sections[number] = (label, {name: value for name, value in section.items() if name != LABEL})
    return sections


def _growing(raw: Mapping[str, Any]) -> list[Problem]:
    """Return a problem where rows get seeds or prompts until they are decided, or are tuned: each model's for itself."""
    problems, evaluation = list[Problem](), raw.get("evaluation")
    if isinstance(raw.get("seeds"), Mapping):
        fix = "rows of several starting models would get different seeds: list the seeds, as in [0, 1, 2]"
        problems.append(Problem("seeds", raw["seeds"], fix))
    if raw.get("tuning") is not None:
        fix = "rows are tuned for one starting model: compare each model by itself, --set 'model={path: …}'"
        problems.append(Problem("tuning", raw["tuning"], fix))
    if isinstance(evaluation, Mapping) and evaluation.get("until") is not None:
        fix = "rows of several starting models would get different prompts: give `prompts` in its place"
        problems.append(Problem("evaluation.until", evaluation["until"], fix))
    return problems


def _name(section: Mapping[str, Any]) -> str:
    """Return the label of a model that is given none: the last part of its path."""
    path = section.get("path")
    return str(path).rstrip("/").rpartition("/")[2] if path else SCRATCH


def _placed(problem: Problem, number: int) -> Problem:
    """Return a problem of the section `model` as one of an entry of the list."""
    section, dot, rest = problem.field.partition(".")
    if section != MODEL:
        return problem
    field = f"{MODEL}.{number}"
    return replace(problem, field=f"{field}{dot}{rest}", fix=of_field(problem.fix, field))


def _distinct(problems: Sequence[Problem]) -> list[Problem]:
    return list({(problem.field, repr(problem.value), problem.fix): problem for problem in problems}.values())


def _same_twice(comparisons: Sequence[Comparison], places: Sequence[int]) -> list[Problem]:
    """Return a problem for each model that is another entry's too: its rows would agree with themselves."""
    starts = [_start(comparison) for comparison in comparisons]
    problems = []
    for number, start in enumerate(starts):
        if (first := starts.index(start)) < number:
            fix = f"it is the same model as {MODEL}.{places[first]}: leave one of them out"
            problems.append(Problem(f"{MODEL}.{places[number]}", comparisons[number].start, fix))
    return problems


def _start(comparison: Comparison) -> object:
    section: ModelSection = comparison.config.model
    checkpoint = comparison.checkpoint
    if checkpoint is None:
        return section.scratch
    # A hub model that cannot be looked up has no commit yet: its name and revision stand for it.
    return (section.path, section.revision, checkpoint.options) if MODEL in comparison.unreachable else checkpoint.digest


def _other_limits(comparisons: Sequence[Comparison]) -> list[Problem]:
    """Return a problem where `limits` would keep other prompts under one model than under another."""
    limits = comparisons[0].config.limits if comparisons else None
    if limits is None:
        return []
    for one, other in combinations(comparisons, 2):
        difference = _difference(one, other)
        if difference is not None:
            fix = (
                f"they count tokens, and {other.start}'s tokenizer or template differs from {one.start}'s ({difference}), so "
                "each model would keep other prompts: leave `limits` out, and use the source's max_characters"
            )
            return [Problem("limits", limits.model_dump(exclude_none=True), fix)]
    return []


def _difference(one: Comparison, other: Comparison) -> str | None:
    """Return how the tokens of a dialogue differ under two models; None where they do not, or it cannot be known now."""
    left, right = one.checkpoint, other.checkpoint
    if left is None or right is None:
        return None
    if any(MODEL in {**item.unreachable, **item.unchecked} for item in (one, other)):
        return None
    if left.template_hash != right.template_hash:
        return "another chat template"
    try:
        return tokenizer_difference(*(load_tokenizer(item.files(weights=False), item.options) for item in (left, right)))
    except DataError as error:
        return str(error)
