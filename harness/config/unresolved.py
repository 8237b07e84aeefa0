"""A config while it is being resolved: the components made so far, and the problems."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from pydantic import ValidationError

from harness.api.interfaces import Backend, Evaluator, Source
from harness.api.registry import Registry
from harness.config.automatic_backend import AUTO
from harness.config.comparison import Comparison
from harness.config.rows import Resolver, RowConfig
from harness.config.schema import Config, EvaluatorSection, valid_reward, validate
from harness.config.sweep import expand
from harness.config.tuning import Tuning
from harness.errors import Problem
from harness.models.checkpoint import Checkpoint
from harness.models.judge.settings import JudgeSettings

DEFAULT_BACKEND = "transformers"
EACH = "each"  # an evaluator's `opponent`: every row in turn, each with metrics of its own


@dataclass(frozen=True)
class PlacedEvaluator:
    """An evaluator with its label and its place in the config; with `opponent: each`, several have one place."""

    place: str
    label: str
    evaluator: Evaluator
    each: bool = False


@dataclass
class UnresolvedConfig:
    """A comparison as far as it could be resolved; None stands for what could not, and a problem says why.

    Attributes:
        raw: the config as given, with its sweep written out.
        config: None where the shape of any section is wrong.
        rows: the rows, in the config's order.
        places: the place of each row's entry in the config.
        problems: all that was found wrong; every check adds its own.
        unchecked: place -> why its check could not be made: a package of an extra is not installed.
    """

    raw: Mapping[str, Any]
    config: Config | None
    source: Source | None
    backend: Backend | None
    rows: list[RowConfig | None]
    places: list[str]
    evaluators: list[PlacedEvaluator]
    problems: list[Problem]
    unchecked: dict[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, raw: Mapping[str, Any], registry: Registry) -> Self:
        """Every name found and every field checked, each by itself."""
        raw, sweeping = expand(raw)
        raw = _with_backends_name(raw)
        config, problems = validate(raw)
        problems += sweeping
        unchecked: dict[str, str] = {}
        resolver = Resolver(registry, problems, valid_reward(raw.get("reward")), unchecked)
        source = resolver.component("source", raw.get("source"), "source")
        training = resolver.training(raw.get("training"), {}, "")
        budget = resolver.budget(raw.get("budget"))
        placed = resolver.each(
            "methods",
            raw.get("methods"),
            lambda item, field: [(field, row) for row in resolver.rows(item, field, training, budget)],
        )
        places, rows = [place for rows in placed for place, _ in rows], [row for rows in placed for _, row in rows]
        labels = [row.label for row in rows if row]
        listed = resolver.each("evaluators", raw.get("evaluators"), partial(_evaluators, resolver, labels))
        evaluators = [evaluator for several in listed for evaluator in several]
        generation = raw.get("generation")
        named = (generation.get("backend") if isinstance(generation, dict) else None) or DEFAULT_BACKEND
        # Which one `auto` is depends on the model, which is not resolved yet.
        named = DEFAULT_BACKEND if named in (AUTO, {"name": AUTO}) else named
        backend = resolver.component("backend", named, "generation.backend")
        return cls(raw, config, source, backend, rows, places, evaluators, problems, unchecked)

    def note(self, field: str, value: Any, fix: str) -> None:
        """One more problem."""
        self.problems.append(Problem(field, value, fix))

    def placed_rows(self) -> list[tuple[str, RowConfig]]:
        """The rows that could be resolved, each with its place in the config."""
        return [(place, row) for place, row in zip(self.places, self.rows, strict=True) if row]

    def comparison(
        self,
        judges: Mapping[str, JudgeSettings],
        checkpoint: Checkpoint | None,
        unreachable: Mapping[str, str],
        tuning: Tuning | None = None,
    ) -> Comparison:
        """The comparison; there must be no problem left."""
        assert self.config is not None and self.source is not None and self.backend is not None
        rows, evaluators = tuple(v for v in self.rows if v), {item.label: item.evaluator for item in self.evaluators}
        return Comparison(
            self.config,
            self.source,
            self.backend,
            rows,
            evaluators,
            judges,
            checkpoint,
            unreachable,
            dict(self.unchecked),
            tuning=tuning,
        )

    def ordered_problems(self) -> list[Problem]:
        """Problems as the config's sections come, without repetitions; fields that no section has go first."""
        sections = [info.alias or name for name, info in Config.model_fields.items()]

        def place(problem: Problem) -> tuple[int, int]:
            section, *rest = problem.field.split(".")
            item = int(rest[0]) if rest and rest[0].isdecimal() else -1
            return (sections.index(section) if section in sections else -1, item)

        distinct = {(problem.field, repr(problem.value), problem.fix): problem for problem in self.problems}
        return sorted(distinct.values(), key=place)


def _evaluators(resolver: Resolver, labels: Sequence[str], item: Any, place: str) -> list[PlacedEvaluator]:
    """Return an evaluator as listed; with `opponent: each`, one per row, labelled `<label>@<row>`.

    Args:
        labels: those of the rows.
    """
    try:
        section = EvaluatorSection.model_validate(item)
    except ValidationError:
        return []  # the shape's problem is noted by `validate`
    name, fields, label = section.name, section.fields, section.label or section.name
    each = fields.get("opponent") == EACH
    if not each:
        placed = [(label, fields)]
    else:
        # A row's label may have a slash, as an evaluator's may not.
        placed = [(f"{label}@{row.replace('/', '_')}", {**fields, "opponent": row}) for row in labels]
    evaluators = list[PlacedEvaluator]()
    for label, given in placed:
        evaluator = resolver.component("evaluator", {"name": name, **given}, place)
        if evaluator is None:
            break  # a mistake in a field is one problem, however many rows there are
        evaluators.append(PlacedEvaluator(place, label, evaluator, each))
    return evaluators


def _with_backends_name(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Name the default backend where a config sets fields of it alone, as `--set generation.backend.random=…` does."""
    generation = raw.get("generation")
    backend = generation.get("backend") if isinstance(generation, Mapping) else None
    if not isinstance(generation, Mapping) or not isinstance(backend, Mapping) or "name" in backend or not backend:
        return raw
    return {**raw, "generation": {**generation, "backend": {"name": DEFAULT_BACKEND, **backend}}}
