"""Resolve a raw config to a comparison: make each component, check everything, and report all problems at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harness.api.registry import Registry
from harness.config.automatic_backend import AUTO, automatic_backend
from harness.config.checks import (
    check_backend,
    check_budget,
    check_during,
    check_epochs,
    check_evaluators,
    check_evaluators_files,
    check_labels,
    check_machine,
    check_needs,
    check_opponents,
    check_prompts,
    check_rejected,
    check_seeds,
    check_shards,
    check_statistics,
    fill_null_rows,
    pin_row_sources,
    pinned_source,
)
from harness.config.comparison import Comparison
from harness.config.judges import judges_of
from harness.config.problems import ABSENT, impossible, secrets
from harness.config.schema import Config, Named, raise_all
from harness.config.starting_model import check_trained_dtype, locate_rows, starting_model
from harness.config.tuning import check_tuning
from harness.config.unresolved import UnresolvedConfig
from harness.errors import Problem
from harness.extras import MODELS, MissingExtraError, is_installed


def resolve(
    raw: Mapping[str, Any], registry: Registry, where: str = "the configuration", *, offline: bool = False
) -> Comparison:
    """A comparison from a raw config.

    Args:
        offline: what only the hub can tell, while it cannot be reached, is no problem but noted as
            `Comparison.unreachable`, files that are not on this machine yet as `Comparison.missing`, and checks that need a
            package of an extra as `Comparison.unchecked`: good for a plan, whose keys are then not those of a run.

    Raises:
        MissingExtraError: packages that models need are not installed.
        ConfigError: names *every* problem: unknown fields and names, values out of bounds, unmet needs.
    """
    raise_all(list(secrets(raw)), where)  # before any message quotes a value
    absent = [package for package in MODELS if not is_installed(package)]
    if absent and not offline:
        raise MissingExtraError(*absent)
    if isinstance(raw.get("model"), list):
        fix = "several starting models are for `harness compare` and `harness plan`: choose one, --set 'model={path: …}'"
        raise_all([Problem("model", raw["model"][:3], fix)], where)
    raise_all([problem for problem in impossible(raw) if not isinstance(problem.value, float)], where)  # nothing can hold them
    unresolved = UnresolvedConfig.of(raw, registry)
    check_labels(unresolved)
    fill_null_rows(unresolved)
    check_evaluators(unresolved)
    check_needs(unresolved)
    check_rejected(unresolved)
    check_opponents(unresolved)
    unreachable, missing = dict[str, str](), dict[str, str]()
    check_evaluators_files(unresolved, missing if offline else None)
    judges = judges_of(unresolved)
    checkpoint = starting_model(
        unresolved.problems, unresolved.raw.get("model"), unreachable if offline else None, unresolved.unchecked
    )
    if unresolved.config is not None and unresolved.config.generation.backend == Named(name=AUTO):
        unresolved.backend = registry.get("backend", automatic_backend(checkpoint)).component()
    unresolved.rows = locate_rows(unresolved, unreachable if offline else None)
    check_machine(unresolved, missing if offline else None)
    unresolved.source = pinned_source(unresolved, unreachable if offline else None)
    pin_row_sources(unresolved, unreachable if offline else None)
    if unresolved.config is not None:
        _check_sections(unresolved, unresolved.config)
    tuning = check_tuning(unresolved, registry)
    if absent:
        unresolved.unchecked["model"] = str(MissingExtraError(*absent))
    if not offline:
        for place, reason in unresolved.unchecked.items():
            unresolved.note(place, _value_at(unresolved.raw, place), reason)
    raise_all(unresolved.ordered_problems(), where)
    return replace(unresolved.comparison(judges, checkpoint, unreachable, tuning), missing=missing)


def _value_at(raw: Any, place: str) -> Any:
    """Return what the config has at a dotted place; `ABSENT` where a default stands there."""
    for step in place.split("."):
        try:
            raw = raw[int(step)] if isinstance(raw, list | tuple) else raw[step]
        except (KeyError, IndexError, TypeError, ValueError):
            return ABSENT
    return raw


def _check_sections(unresolved: UnresolvedConfig, config: Config) -> None:
    """Check sections against each other, which takes a config of the right shape."""
    check_budget(unresolved, config)
    check_epochs(unresolved, config)
    check_seeds(unresolved, config)
    check_statistics(unresolved, config)
    check_prompts(unresolved, config)
    check_during(unresolved, config)
    check_backend(unresolved, config.sft is not None)
    check_shards(unresolved, config)
    trained = [round_.training for row in unresolved.rows if row for round_ in row.rounds]
    check_trained_dtype(unresolved.problems, config.model, [*([config.sft] if config.sft else []), *trained])
