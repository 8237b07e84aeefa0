"""Own samples ranked by the gold reward, which no method may see."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

from pydantic import Field

from harness import BuildTask, DataBuilder, Group


class BestOfN(DataBuilder):
    """The best of n own samples by gold as chosen, the worst as rejected; prompts on which all n tie are dropped."""

    name: ClassVar[str] = "best_of_n"
    needs: ClassVar[frozenset[Literal["target", "ranked", "gold"]]] = frozenset({"gold"})

    samples: int = Field(16, ge=2, le=1024, description="own samples per prompt")
    negatives: int = Field(1, ge=0, le=64, description="how many of the worst are rejected; 0 for supervised fine-tuning")

    def build(self, task: BuildTask) -> Iterable[Group]:
        samples = task.sample(self.samples)
        golds = task.gold(samples)
        for example, responses, marks in zip(task.examples, samples, golds, strict=True):
            order = sorted((index for index in range(len(responses)) if responses[index].text), key=lambda index: -marks[index])
            if not order:
                task.count("all samples empty")
                continue
            best = order[0]
            worst = [index for index in order[::-1][: self.negatives] if marks[index] < marks[best]]
            if self.negatives and not worst:
                task.count("all samples tie")
                continue
            info = {"chosen_gold": marks[best]} | ({"rejected_gold": marks[worst[0]]} if worst else {})
            yield Group(example.prompt, responses[best], tuple(responses[index] for index in worst), info)
