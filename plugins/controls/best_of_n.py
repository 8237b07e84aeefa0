"""Own samples ranked by the gold reward, which no method may see, or by another reward."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import ClassVar, Literal

from pydantic import Field

from harness import BuildTask, DataBuilder, Group, Rewarded


class BestOfN(Rewarded, DataBuilder):
    """The best of n own samples by gold or another reward as chosen, the worst as rejected; where all tie, none."""

    name: ClassVar[str] = "best_of_n"
    needs: ClassVar[frozenset[Literal["target", "ranked", "gold"]]] = frozenset({"gold"})

    samples: int = Field(16, ge=2, le=1024, description="own samples per prompt")
    negatives: int = Field(1, ge=0, le=64, description="how many of the worst are rejected; 0 for supervised fine-tuning")

    def has_rejected(self) -> bool:
        return self.negatives > 0

    def responses_per_prompt(self) -> int:
        return self.samples

    def build(self, task: BuildTask) -> Iterable[Group]:
        samples = task.sample(self.samples)
        golds = task.reward(self.reward, samples) if self.reward else task.gold(samples)
        by = "reward" if self.reward else "gold"
        for example, responses, marks in zip(task.examples, samples, golds, strict=True):
            marked = [place for place, response in enumerate(responses) if response.text and not math.isnan(marks[place])]
            order = sorted(marked, key=lambda index: -marks[index])
            if not order:
                task.count("no sample has a reward" if any(response.text for response in responses) else "all samples empty")
                continue
            best = order[0]
            worst = [index for index in order[::-1][: self.negatives] if marks[index] < marks[best]]
            if self.negatives and not worst:
                task.count("all samples tie")
                continue
            info = {f"chosen_{by}": marks[best]} | ({f"rejected_{by}": marks[worst[0]]} if worst else {})
            yield Group(example.prompt, responses[best], tuple(responses[index] for index in worst), info)
