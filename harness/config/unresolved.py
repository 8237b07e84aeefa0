"""A config while it is being resolved: the components made so far, and the problems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from harness.api.interfaces import Backend, Evaluator, Source
from harness.api.registry import Registry
from harness.config.comparison import Comparison
from harness.config.rows import Resolver, RowConfig
from harness.config.schema import Config, valid_reward, validate
from harness.config.sweep import expand
from harness.errors import Problem
from harness.models.checkpoint import Checkpoint
from harness.models.judge.settings import JudgeSettings


@dataclass
class UnresolvedConfig:
    """A comparison as far as it could be resolved; None stands for what could not, and a problem says why.

    Attributes:
        raw: the config as given, with its sweep written out.
        config: None where the shape of any section is wrong.
        rows: the rows, in the config's order.
        places: the place of each row's entry in the config.
        problems: all that was found wrong; every check adds its own.
    """

    raw: Mapping[str, Any]
    config: Config | None
    source: Source | None
    backend: Backend | None
    rows: list[RowConfig | None]
    places: list[str]
    evaluators: list[Evaluator | None]
    problems: list[Problem]

    @classmethod
    def of(cls, raw: Mapping[str, Any], registry: Registry) -> Self:
        """Every name found and every field checked, each by itself."""
        raw, sweeping = expand(raw)
        config, problems = validate(raw)
        problems += sweeping
        resolver = Resolver(registry, problems, valid_reward(raw.get("reward")))
        source = resolver.component("source", raw.get("source"), "source")
        evaluators = resolver.each(
            "evaluators", raw.get("evaluators"), lambda item, field: resolver.component("evaluator", item, field)
        )
        training = resolver.training(raw.get("training"), {}, "")
        budget = resolver.budget(raw.get("budget"))
        placed = resolver.each(
            "methods",
            raw.get("methods"),
            lambda item, field: [(field, row) for row in resolver.rows(item, field, training, budget)],
        )
        places, rows = [place for rows in placed for place, _ in rows], [row for rows in placed for _, row in rows]
        generation = raw.get("generation")
        named = (generation.get("backend") if isinstance(generation, dict) else None) or "transformers"
        backend = resolver.component("backend", named, "generation.backend")
        return cls(raw, config, source, backend, rows, places, evaluators, problems)

    def note(self, field: str, value: Any, fix: str) -> None:
        """One more problem."""
        self.problems.append(Problem(field, value, fix))

    def placed_rows(self) -> list[tuple[str, RowConfig]]:
        """The rows that could be resolved, each with its place in the config."""
        return [(place, row) for place, row in zip(self.places, self.rows, strict=True) if row]

    def placed_evaluators(self) -> list[tuple[str, Evaluator]]:
        """The evaluators that could be resolved, each with its place in the config."""
        return [(f"evaluators.{index}", evaluator) for index, evaluator in enumerate(self.evaluators) if evaluator]

    def comparison(
        self, judges: Mapping[str, JudgeSettings], checkpoint: Checkpoint | None, unreachable: Mapping[str, str]
    ) -> Comparison:
        """The comparison; there must be no problem left."""
        assert self.config is not None and self.source is not None and self.backend is not None
        rows, evaluators = tuple(v for v in self.rows if v), tuple(e for e in self.evaluators if e)
        return Comparison(self.config, self.source, self.backend, rows, evaluators, judges, checkpoint, unreachable)

    def ordered_problems(self) -> list[Problem]:
        """Problems as the config's sections come, without repetitions; fields that no section has go first."""
        sections = [info.alias or name for name, info in Config.model_fields.items()]

        def place(problem: Problem) -> tuple[int, int]:
            section, *rest = problem.field.split(".")
            item = int(rest[0]) if rest and rest[0].isdecimal() else -1
            return (sections.index(section) if section in sections else -1, item)

        distinct = {(problem.field, repr(problem.value), problem.fix): problem for problem in self.problems}
        return sorted(distinct.values(), key=place)
