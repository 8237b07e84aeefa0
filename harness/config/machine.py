"""What only a look at the machine or the hub can tell: files that are not there, engines that are not installed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from harness.errors import DataError, Problem, UnreachableError
from harness.api.interfaces import Component, Source
from harness.config.comparison import Comparison
from harness.config.draft import Draft


def check_evaluators_files(draft: Draft) -> None:
    """What evaluators read is there; before their judges, so that problems of one evaluator come in this order."""
    _check(draft, draft.placed_evaluators())


def check_machine(draft: Draft) -> None:
    """The same of the source, the backend and the data builders."""
    placed: list[tuple[str, Component | None]] = [("source", draft.source), ("generation.backend", draft.backend)]
    for place, variant in draft.placed_variants():
        placed += [(f"{place}.data", round_.builder) for round_ in variant.rounds]
    _check(draft, placed)


def prepare_evaluators(comparison: Comparison, names: Collection[str]) -> list[Problem]:
    """Let the evaluators of these names download what they read; what could not be had."""
    problems = []
    for index, evaluator in enumerate(comparison.evaluators):
        if evaluator.name in names:
            try:
                evaluator.prepare()
            except DataError as error:
                problems.append(Problem(f"evaluators.{index}", evaluator.name, str(error)))
    return problems


def pinned_source(draft: Draft, unreachable: dict[str, str] | None) -> Source | None:
    """The source with its branch as a commit; as it is where something is wrong with it already."""
    source = draft.source
    if source is None or any(problem.field.startswith("source") for problem in draft.problems):
        return source
    try:
        return source.pinned()
    except UnreachableError as error:
        if unreachable is None:
            draft.note("source", source.name, str(error))
        else:
            unreachable["source"] = str(error)
    except DataError as error:
        draft.note("source", source.name, str(error))
    return source


def _check(draft: Draft, placed: Iterable[tuple[str, Component | None]]) -> None:
    for place, component in placed:
        for field, fix in _found(component) if component else ():
            draft.note(f"{place}.{field}", _value_at(component, field), fix)


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
