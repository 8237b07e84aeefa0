"""The way from a raw config to a comparison: one draft, every check, and all problems at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.api.registry import Registry
from harness.config.checks import (
    check_backend,
    check_budget,
    check_epochs,
    check_evaluators,
    check_evaluators_files,
    check_labels,
    check_machine,
    check_needs,
    check_opponents,
    check_rejected,
    check_seeds,
    fill_null_rows,
    pinned_source,
)
from harness.config.comparison import Comparison
from harness.config.draft import Draft
from harness.config.judges import judges_of
from harness.config.problems import impossible, secrets
from harness.config.schema import Config, raise_all
from harness.config.starting_model import check_trained_dtype, starting_model


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
    draft = Draft.of(raw, registry)
    check_labels(draft)
    fill_null_rows(draft)
    check_evaluators(draft)
    check_needs(draft)
    check_rejected(draft)
    check_opponents(draft)
    check_evaluators_files(draft)
    judges = judges_of(draft)
    unreachable: dict[str, str] = {}
    checkpoint = starting_model(draft.problems, draft.raw.get("model"), unreachable if offline else None)
    check_machine(draft)
    draft.source = pinned_source(draft, unreachable if offline else None)
    if draft.config is not None:
        _check_sections(draft, draft.config)
    raise_all(draft.ordered_problems(), where)
    return draft.comparison(judges, checkpoint, unreachable)


def _check_sections(draft: Draft, config: Config) -> None:
    """What takes a config of the right shape: sections against each other."""
    check_budget(draft, config.budget)
    check_epochs(draft, config)
    check_seeds(draft, config.seeds)
    check_backend(draft, config.sft is not None)
    trained = [round_.training for row in draft.rows if row for round_ in row.rounds]
    check_trained_dtype(draft.problems, config.model, [*([config.sft] if config.sft else []), *trained])
