"""Targets without negatives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

from harness import BuildTask, DataBuilder, Group, Response


class Targets(DataBuilder):
    """The target as chosen and nothing rejected: more supervised fine-tuning, on the methods' prompts."""

    name: ClassVar[str] = "targets"
    needs: ClassVar[frozenset[Literal["target", "ranked", "gold"]]] = frozenset({"target"})

    def has_rejected(self) -> bool:
        return False

    def build(self, task: BuildTask) -> Iterable[Group]:
        for example in task.examples:
            if example.target is None:
                task.count("no target")
            else:
                yield Group(example.prompt, Response(example.target))
