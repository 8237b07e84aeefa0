"""The host's own training: any objective over groups of one chosen and any number of rejected responses."""

from __future__ import annotations

from typing import ClassVar

from harness import Trainer, TrainingSettings, TrainingTask, TrainingUse


class Grouped(Trainer):
    """The harness's own loop: any objective, groups with any number of rejected responses; rows have it by default."""

    name: ClassVar[str] = "grouped"
    carries: ClassVar[frozenset[str]] = frozenset(TrainingSettings.model_fields)
    leaves_states: ClassVar[bool] = True

    def objectives(self) -> None:
        return None

    def needs_objective(self) -> bool:
        return True

    def units(self) -> frozenset[str]:
        return frozenset({"pairs", "tokens", "updates"})

    def train(self, task: TrainingTask) -> TrainingUse:
        return task.train_groups()
