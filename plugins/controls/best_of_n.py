"""Own samples ranked by the gold reward, which no method may see, or by a reward model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from harness import BuildTask, DataBuilder, Group, RewardModel


class BestOfN(DataBuilder):
    """The best of n own samples by gold or a reward model as chosen, the worst as rejected; where all tie, none."""

    name: ClassVar[str] = "best_of_n"
    needs: ClassVar[frozenset[Literal["target", "ranked", "gold"]]] = frozenset({"gold"})

    samples: int = Field(16, ge=2, le=1024, description="own samples per prompt")
    negatives: int = Field(1, ge=0, le=64, description="how many of the worst are rejected; 0 for supervised fine-tuning")

    reward: RewardModel | None = Field(
        None, exclude_if=lambda reward: reward is None, description="a reward model in place of the source's gold reward"
    )

    def required(self) -> frozenset[str]:
        return self.needs - {"gold"} if self.reward else self.needs

    def problems(self) -> Sequence[tuple[str, str]]:
        return self.reward.problems("reward") if self.reward else ()

    def has_rejected(self) -> bool:
        return self.negatives > 0

    def fingerprint(self) -> str:
        return self.reward.weights if self.reward else ""

    def responses_per_prompt(self) -> int:
        return self.samples

    def build(self, task: BuildTask) -> Iterable[Group]:
        samples = task.sample(self.samples)
        golds = task.reward(self.reward, samples) if self.reward else task.gold(samples)
        by = "reward" if self.reward else "gold"
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
            info = {f"chosen_{by}": marks[best]} | ({f"rejected_{by}": marks[worst[0]]} if worst else {})
            yield Group(example.prompt, responses[best], tuple(responses[index] for index in worst), info)
