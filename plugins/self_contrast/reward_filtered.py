"""Self-Contrast's upper bound: negatives filtered by reward, not by similarity (§4.1)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from harness import BuildTask, DataBuilder, Group, Paper, Response, Rewarded


class RewardFiltered(Rewarded, DataBuilder):
    """The target as chosen, m distinct negatives drawn at random among own samples whose reward is below the target's.

    The reward is the source's gold or another (the paper's: a model, Starling-RM-7B-alpha). What a perfect filter would reach:
    data accuracy by that reward is 1, so it is a bound and not a method. A prompt with fewer than m distinct, non-empty
    responses below its target is dropped and counted.
    """

    name: ClassVar[str] = "reward_filtered"
    paper: ClassVar[Paper | None] = Paper(
        "Extensive Self-Contrast Enables Feedback-Free Language Model Alignment", "2404.00604", "§4.1"
    )
    needs: ClassVar[frozenset[Literal["target", "ranked", "gold"]]] = frozenset({"target", "gold"})

    samples: int = Field(32, ge=1, le=1024, description="responses sampled per prompt at temperature 1 and top-p 1")
    negatives: int = Field(1, ge=1, le=64, description="m, negatives per prompt")

    @model_validator(mode="after")
    def _enough(self) -> RewardFiltered:
        if self.samples < self.negatives:
            raise ValueError(f"samples = {self.samples} is fewer than negatives = {self.negatives}: raise samples")
        return self

    def responses_per_prompt(self) -> int:
        return self.samples

    def build(self, task: BuildTask) -> Iterable[Group]:
        samples = task.sample(self.samples, policy="start")
        targets = [[] if example.target is None else [Response(example.target)] for example in task.examples]
        marked = [[*target, *responses] for target, responses in zip(targets, samples, strict=True)]
        golds = task.reward(self.reward, marked) if self.reward else task.gold(marked)
        for example, target, responses, marks in zip(task.examples, targets, samples, golds, strict=True):
            if not target:
                task.count("no target")
                continue
            bar, *rest = marks
            if math.isnan(bar):
                task.count("no reward of the target")
                continue
            below = {  # of equal texts, the first
                response.text: (response, mark)
                for response, mark in reversed(list(zip(responses, rest, strict=True)))
                if response.text and response.text != example.target and mark < bar
            }
            if len(below) < self.negatives:
                task.count(f"fewer than {self.negatives} distinct negatives below the target")
                continue
            drawn = task.rng.sample([below[text] for text in sorted(below)], self.negatives)
            by = "reward" if self.reward else "gold"
            info = {f"target_{by}": bar, f"negative_{by}": sum(mark for _, mark in drawn) / len(drawn)}
            yield Group(example.prompt, target[0], tuple(response for response, _ in drawn), info)
