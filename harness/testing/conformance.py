"""Check a component: choose the checks of its kind and collect their findings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from pydantic import ValidationError

from harness.api.interfaces import Analysis, Backend, Component, DataBuilder, Evaluator, Importer, Objective, Source, Trainer
from harness.api.registry import KINDS, Registered, Registry
from harness.config.problems import problems_of
from harness.errors import PluginError, Problem, did_you_mean
from harness.testing.analyses import check_analysis
from harness.testing.builders import check_builder
from harness.testing.documentation import (
    check_attributes,
    check_bounds,
    check_documentation,
    check_json,
    check_name,
    check_paper,
    check_spaces,
    check_spelling,
)
from harness.testing.evaluators import check_evaluator
from harness.testing.objectives import check_objective
from harness.testing.places import check_backend, check_importer, check_method, check_source
from harness.testing.trainers import check_trainer
from harness.testing.verdict import CheckVerdict, Finding, run


def check(name: str, fields: Mapping[str, Any] | None = None, *, registry: Registry | None = None) -> list[CheckVerdict]:
    """Check every registered component called `name`, of whatever kind.

    Args:
        fields: hyper-parameters to check it with, where the defaults are not enough; each kind takes those that it has.

    Raises:
        PluginError: nothing is called so, or a plugin cannot be loaded; the message names it and the fix.
    """
    registry = registry or Registry.load()
    found = registry.find(name)
    if not found:
        known = {known for kind in KINDS for known in registry.names(kind)}
        raise PluginError(f"nothing is called {name!r}: {did_you_mean(name, known)}")
    return [check_registered(entry, registry, fields or {}) for entry in found]


def assert_conforms(name: str, **fields: Any) -> None:
    """Raise AssertionError with the whole verdict if a component called `name` has a fault; for a plugin's own tests."""
    broken = [verdict for verdict in check(name, fields) if not verdict.ok]
    if broken:
        raise AssertionError("\n\n".join(map(str, broken)))


def check_registered(entry: Registered, registry: Registry, fields: Mapping[str, Any]) -> CheckVerdict:
    """Check one component."""
    findings = _method(entry, registry) if entry.kind == "method" else _component(entry, registry, fields)
    origin = f"{entry.distribution} {entry.distribution_version}".strip()
    return CheckVerdict(entry.kind, entry.name, origin, entry.module, tuple(findings))


def _method(entry: Registered, registry: Registry) -> Iterator[Finding]:
    yield run("name", partial(check_spelling, entry.name))
    yield from check_method(entry.component, registry)
    yield run("paper", partial(check_paper, entry.component.paper))


def _component(entry: Registered, registry: Registry, fields: Mapping[str, Any]) -> Iterator[Finding]:
    cls: type[Component] = entry.component
    yield run("name", partial(check_name, cls))
    yield run("attributes", partial(check_attributes, cls))
    yield run("documentation", partial(check_documentation, cls))
    yield run("bounds", partial(check_bounds, cls))
    yield run("search spaces", partial(check_spaces, cls))
    yield run("paper", partial(check_paper, cls.paper))
    try:
        component = cls.model_validate({name: value for name, value in fields.items() if name in cls.model_fields})
    except ValidationError as error:
        problems = "; ".join(map(str, problems_of(error, cls, "")))
        fix = "give required fields with --set name=value, and defaults that its own bounds allow"
        # No command gives an analysis its fields, so one without a default is a fault.
        given = _only_missing(error) and entry.kind != "analysis"
        yield Finding("behaviour", "not run" if given else "failed", problems, fix)
        return
    yield run("json", partial(check_json, component))
    if found := component.problems():
        said = "; ".join(str(Problem(field, getattr(component, field, None), fix)) for field, fix in found)
        yield Finding("behaviour", "not run", said, "give the fields that it needs with --set name=value")
        return
    yield from _behaviour(component, registry)


def _only_missing(error: ValidationError) -> bool:
    return all(item["type"] == "missing" for item in error.errors())


def _behaviour(component: Component, registry: Registry) -> Iterable[Finding]:
    if isinstance(component, Objective):
        return check_objective(component)
    if isinstance(component, DataBuilder):
        return check_builder(component)
    if isinstance(component, Evaluator):
        return check_evaluator(component)
    if isinstance(component, Source):
        return check_source(component)
    if isinstance(component, Importer):
        return check_importer(component)
    if isinstance(component, Analysis):
        return check_analysis(component, registry)
    if isinstance(component, Trainer):
        return check_trainer(component, registry)
    assert isinstance(component, Backend)
    return check_backend(component)
