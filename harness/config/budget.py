"""The budget against what the source has and what the methods do with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.config.schema import Budget, Config
from harness.config.draft import Draft


def check_budget(draft: Draft, budget: Budget) -> None:
    """The source has the prompts, and every round gets one."""
    prompts, limit = budget.prompts, budget.limit
    available = draft.source.sizes().get("train") if draft.source else None
    if available is not None and prompts > available:
        fix = f"the source has {available} training prompts: lower it, or set source.train to {prompts}"
        draft.note("budget.prompts", prompts, fix)
    most = max((len(variant.rounds) for variant in draft.variants if variant), default=0)
    if prompts < most:
        draft.note(
            "budget.prompts", prompts, f"a method has {most} rounds, and each needs a prompt: it should be at least {most}"
        )
    if limit is not None and limit.amount < most:
        fix = f"a method has {most} rounds that share it: it should be at least {most}"
        draft.note(f"budget.{limit.unit}", limit.amount, fix)


def check_epochs(draft: Draft, config: Config) -> None:
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
            draft.note(f"{field}.epochs", section["epochs"], fix)
