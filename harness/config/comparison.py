"""A resolved config: every component made, every field checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from harness.api.interfaces import Backend, Component, Evaluator, Source
from harness.config.rows import RowConfig
from harness.config.schema import Config
from harness.config.strict_yaml import RawConfig
from harness.config.tuning import Tuning
from harness.extras import missing_extra
from harness.models.checkpoint import Checkpoint
from harness.models.judge.settings import JudgeSettings
from harness.models.options import ScoringLayout
from harness.models.size import is_large
from harness.training.settings import SftSettings

NOT_INSTALLED = "not installed"  # stands for a version in keys that are not final


@dataclass(frozen=True)
class Comparison:
    """Everything that runs, resolved.

    Attributes:
        evaluators: by label, in the config's order.
        judges: one of each evaluator that asks one, by the evaluator's label; the config's own where data builders ask it.
        checkpoint: the starting model; None where one is made from the source's text.
        unreachable: `model`, `source` -> why it could not be looked up; empty unless `resolve` was called with `offline`.
        unchecked: place in the config -> the package that its check needs and that is not installed; empty without `offline`.
        missing: a field of a file that is not on this machine yet -> the message; empty likewise.
        start: the starting model's label where the config lists several; each is a comparison of its own.
        tuning: the search for the rows' settings; None where they have the config's, and once they are chosen.
    """

    config: Config
    source: Source
    backend: Backend
    rows: tuple[RowConfig, ...]
    evaluators: Mapping[str, Evaluator]
    judges: Mapping[str, JudgeSettings]
    checkpoint: Checkpoint | None = None
    unreachable: Mapping[str, str] = dataclasses.field(default_factory=dict)
    unchecked: Mapping[str, str] = dataclasses.field(default_factory=dict)
    missing: Mapping[str, str] = dataclasses.field(default_factory=dict)
    start: str | None = None
    tuning: Tuning | None = None

    @property
    def during_evaluators(self) -> tuple[str, ...]:
        """The labels of the evaluators of intermediate states; empty where the config evaluates none."""
        if self.config.evaluation.during is None:
            return ()
        named = self.config.evaluation.during_evaluators
        return tuple(label for label in self.evaluators if named is None or is_named(label, named, self.evaluators))

    def scoring_layout(self, row: RowConfig | None = None) -> ScoringLayout:
        """Return how answers lie while they are scored by a row, which may be a model from elsewhere; by the start if None."""
        asked, checkpoint = self.config.model.scoring_layout, (row and row.checkpoint) or self.checkpoint
        if asked != "auto":
            return asked
        return "shared_prefix" if checkpoint and is_large(checkpoint) else "padded"

    @property
    def sft(self) -> SftSettings | None:
        """The settings of supervised fine-tuning, `layout: auto` as what it means for the starting model."""
        settings = self.config.sft
        if settings is None or settings.layout == "packed":
            return settings
        packed = settings.layout == "auto" and self.checkpoint is not None and is_large(self.checkpoint)
        return settings.model_copy(update={"layout": "packed" if packed else "auto"})  # where nothing says so, rows are padded

    def has_states(self, row: RowConfig) -> bool:
        """Return whether a row's intermediate states are evaluated."""
        return self.config.evaluation.during is not None and without_states(row) is None


def is_named(label: str, named: Collection[str], labels: Collection[str]) -> bool:
    """Return whether a list names an evaluator: by its label, or by that of an entry with `opponent: each`, before the `@`."""
    return label in named or any(label.startswith(f"{name}@") for name in named if name not in labels)


def without_states(row: RowConfig) -> str | None:
    """Return why a row has no intermediate states; None where it has."""
    if not row.rounds:
        return "it trains nothing"
    titles = [round_.trainer.title() for round_ in row.rounds if not round_.trainer.leaves_states]
    return f"its trainer {titles[0]} leaves no intermediate states" if titles else None


def describe(component: Component, *, unchecked: bool = False) -> Mapping[str, Any]:
    """Return all that decides a component's behaviour, as it stands in keys and on boards; JSON.

    The entry `fingerprint` is there only where the component has one, so that keys of the others stay as they are.

    Args:
        unchecked: whether a package that the fingerprint names may be missing, as in a plan whose keys are not final.
    """
    described = {"name": component.name, "version": component.version, "fields": component.model_dump(mode="json")}
    try:
        fingerprint = component.fingerprint()
    except ModuleNotFoundError as error:
        if not unchecked or missing_extra(error) is None:
            raise
        fingerprint = NOT_INSTALLED
    return {**described, "fingerprint": fingerprint} if fingerprint else described


def resolved_config(comparison: Comparison) -> RawConfig:
    """Return the whole config of a comparison as a file may hold it: parents merged, sweeps written out, defaults filled in.

    Resolving it again gives the same stages. Fields that such a file must not set are left out: the epochs where the budget has
    a limit, and all of `model` but the recipe where the model is made from the source's text.
    """
    config = comparison.config
    written = config.model_dump(mode="json", by_alias=True)
    written["source"] = _written(comparison.source)
    written["generation"]["backend"] = _written(comparison.backend)
    written["evaluators"] = [
        {"name": evaluator.name, **({"label": label} if label != evaluator.name else {}), **evaluator.model_dump(mode="json")}
        for label, evaluator in comparison.evaluators.items()
    ]
    written["methods"] = [entry.model_dump(mode="json", exclude_unset=True, exclude_none=True) for entry in config.methods]
    if config.model.scratch is not None:
        written["model"] = {"scratch": written["model"]["scratch"]}
    if config.budget.limit is not None:
        del written["training"]["epochs"]
    return written


def _written(component: Component) -> dict[str, Any]:
    return {"name": component.name, **component.model_dump(mode="json")}
