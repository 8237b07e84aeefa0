"""Half an answer as the negative."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from pydantic import Field

from harness import BuildTask, DataBuilder, Group, Response


class Truncated(DataBuilder):
    """The target as chosen, its first words as rejected."""

    name: ClassVar[str] = "tp_truncated"
    needs = frozenset({"target"})

    keep: float = Field(0.5, gt=0, lt=1, description="share of the target's words that the negative keeps")

    def build(self, task: BuildTask) -> Iterable[Group]:
        for example in task.examples:
            words = (example.target or "").split()
            kept = words[: int(len(words) * self.keep)]
            if kept:
                yield Group(
                    example.prompt, Response(example.target or ""), (Response(" ".join(kept)),), {"kept": float(len(kept))}
                )
            else:
                task.count("target too short")
