"""The embedded world as a source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from harness import Dataset, Example, Response, Source, sandbox


class Sandbox(Source):
    """The sandbox: questions with a gold reward, good but imperfect targets, preference pairs with label noise."""

    name: ClassVar[str] = "sandbox"
    provides: ClassVar[frozenset[Literal["target", "ranked", "gold", "benchmarks"]]] = frozenset(
        {"target", "ranked", "gold", "benchmarks"}
    )

    sft: int = Field(1600, ge=1, le=20_000, description="examples for supervised fine-tuning")
    train: int = Field(1600, ge=1, le=20_000, description="prompts for the methods, disjoint from the SFT examples")
    tuning: int = Field(300, ge=0, le=1_000, description="prompts for choosing settings")
    heldout: int = Field(600, ge=1, le=2_000, description="prompts for the board; none occurs in any training text")
    label_noise: float = Field(0.12, ge=0, lt=0.5, description="share of preference pairs labelled the wrong way round")
    seed: int = Field(0, description="of the draw of all examples; the run's seeds do not change the data")

    def sizes(self) -> Mapping[Literal["sft", "train", "tuning", "heldout"], int]:
        return {"sft": self.sft, "train": self.train, "tuning": self.tuning, "heldout": self.heldout}

    def load(self) -> Dataset:
        return sandbox.build_dataset(self.sizes(), self.label_noise, self.seed)

    def gold(self, example: Example, response: Response) -> Mapping[str, float]:
        return sandbox.marks(example, response)

    def write_benchmarks(self, folder: Path) -> None:
        sandbox.write_benchmarks(folder)
