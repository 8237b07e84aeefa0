"""A trainer that knows nothing of the host but its task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from harness import Trainer, TrainingTask, TrainingUse


class Shrunk(Trainer):
    """Multiplies the last norm's weights by a factor that depends on the seed: a training without a gradient."""

    name: ClassVar[str] = "tp_shrunk"

    factor: float = Field(0.9, gt=0, lt=1, description="of the weights")

    def trains_on(self) -> Literal["either"]:
        return "either"

    def units(self) -> frozenset[str]:
        return frozenset({"updates"})

    def train(self, task: TrainingTask) -> TrainingUse:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(task.start)
        parameters: Mapping[str, Any] = dict(model.named_parameters())
        parameters["model.norm.weight"].data *= self.factor - task.seed / 1000
        task.point({"loss": self.factor})
        task.progress(1, 1)
        model.save_pretrained(task.out)
        lines = task.data.read_text(encoding="utf-8").splitlines()
        return TrainingUse(prompts=len(lines), pairs=0, updates=1, tokens=0)
