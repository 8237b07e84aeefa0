"""The source's own preferences as groups."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

from pydantic import Field

from harness import BuildTask, DataBuilder, Group, Paper, Response


class Preference(DataBuilder):
    """The best-ranked response as chosen; as rejected, seeded draws from the rest (one for DPO's usual pairs).

    The rejected ones are in the source's order, best first: objectives that compare them with each other (RRHF) rely on it.
    """

    name: ClassVar[str] = "preference"
    version: ClassVar[int] = 2
    paper: ClassVar[Paper | None] = Paper(
        "Extensive Self-Contrast Enables Feedback-Free Language Model Alignment", "2404.00604", "DPO_std, §3.1"
    )
    needs: ClassVar[frozenset[Literal["target", "ranked", "gold"]]] = frozenset({"ranked"})
    ranks_rejected: ClassVar[bool] = True

    negatives: int = Field(1, ge=1, le=64, description="rejected responses per prompt, fewer where the ranking is shorter")

    def responses_per_prompt(self) -> int:
        return 0

    def build(self, task: BuildTask) -> Iterable[Group]:
        for example in task.examples:
            if len(example.ranked) < 2:
                task.count("fewer than two ranked responses")
                continue
            best, *rest = example.ranked
            ranks = sorted(task.rng.sample(range(len(rest)), min(self.negatives, len(rest))))
            yield Group(example.prompt, Response(best), tuple(Response(rest[rank]) for rank in ranks))
