"""Self-play fine-tuning's data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

from pydantic import Field

from harness import BuildTask, DataBuilder, Group, Paper, Response


class Spin(DataBuilder):
    """The target as chosen, one unfiltered sample of the round's policy as rejected."""

    name: ClassVar[str] = "spin"
    paper: ClassVar[Paper | None] = Paper(
        "Self-Play Fine-Tuning Converts Weak Language Models to Strong Language Models", "2401.01335", "Algorithm 1"
    )
    needs: ClassVar[frozenset[Literal["target", "ranked", "gold"]]] = frozenset({"target"})

    temperature: float = Field(1.0, gt=0, description="of the policy's sample")

    def responses_per_prompt(self) -> int:
        return 1

    def build(self, task: BuildTask) -> Iterable[Group]:
        samples = task.sample(1, temperature=self.temperature)
        for example, (response,) in zip(task.examples, samples, strict=True):
            if example.target is None:
                task.count("no target")
            elif not response.text:
                task.count("empty sample")
            elif response.finished and response.text == example.target:
                task.count("sample equal to the target")
            else:
                yield Group(example.prompt, Response(example.target), (response,))
