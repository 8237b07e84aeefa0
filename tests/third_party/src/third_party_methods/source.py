"""Sums as questions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from harness import Dataset, Example, Prompt, Response, Source

SplitName = Literal["sft", "train", "tuning", "heldout"]


class Sums(Source):
    """What is a + b ? The right sum is the target, and ranks above a wrong one; gold is 1 for the right sum."""

    name: ClassVar[str] = "tp_sums"
    provides = frozenset({"target", "ranked", "gold"})

    each: int = Field(40, ge=1, le=1000, description="questions in each of the splits sft, train and heldout")

    def sizes(self) -> Mapping[SplitName, int]:
        return {"sft": self.each, "train": self.each, "heldout": self.each}

    def load(self) -> Dataset:
        splits: tuple[SplitName, ...] = ("sft", "train", "heldout")
        return Dataset({split: tuple(self._rows(split, place)) for place, split in enumerate(splits)})

    def _rows(self, split: SplitName, place: int) -> list[Example]:
        firsts = range(place * self.each, (place + 1) * self.each)
        return [self._example(f"{split}-{first}", first, first % 7) for first in firsts]

    def _example(self, id: str, first: int, second: int) -> Example:
        total = first + second
        ranked = (f"the sum is {total}", f"the sum is {total + 1}")
        return Example(Prompt.of(id, f"what is {first} + {second} ?"), ranked[0], ranked, {"total": total})

    def gold(self, example: Example, response: Response) -> Mapping[str, float]:
        return {"total": float(response.text.split()[-1:] == [str(example.metadata["total"])])}
