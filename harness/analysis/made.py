"""What an analysis reads: a planned comparison whose wanted stages are in the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from harness.graph import Graph, RowPlan
from harness.leaderboard.board import Board
from harness.resolve import Comparison
from harness.stages.context import read_dataset, read_groups
from harness.statistics import Values
from harness.store import Store
from harness.types import Dataset, Example, Group, Response, Score, SplitName

GOLD = "gold_reward"


@dataclass(frozen=True)
class Marked:
    """A group's gold rewards."""

    prompt: str
    chosen: float
    rejected: tuple[float, ...]


@dataclass(frozen=True)
class Made:
    """A planned comparison whose wanted stages are in the store."""

    comparison: Comparison
    graph: Graph
    store: Store
    board: Board | None = None

    @cached_property
    def dataset(self) -> Dataset:
        source = next(stage.key for stage in self.graph if stage.kind == "source")
        return read_dataset(self.store.open(source))

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.comparison.config.seeds

    def evaluated(self) -> tuple[Example, ...]:
        """The examples that its rows are evaluated on."""
        asked = self.comparison.config.evaluation
        return self.dataset[asked.split][: asked.prompts]

    def row(self, label: str, seed: int) -> RowPlan:
        return next(row for row in self.graph.rows if (row.label, row.seed) == (label, seed))

    def groups(self, label: str, seed: int) -> list[Group]:
        """The groups of all rounds of a row."""
        return [group for key in self.row(label, seed).groups for group in read_groups(self.store.open(key))]

    def dropped(self, label: str) -> float:
        """Share of a row's prompts that gave no group, over its seeds."""
        facts = [self.store.open(key).facts for seed in self.seeds for key in self.row(label, seed).groups]
        return float(1 - sum(fact["groups"] for fact in facts) / sum(fact["prompts"] for fact in facts))

    def gold(self, example: Example, response: Response) -> float:
        return float(self.comparison.source.gold(example, response)["total"])

    def marked(self, label: str, split: SplitName = "train") -> dict[int, list[Marked]]:
        """Gold rewards of a row's groups, by seed."""
        examples = {example.prompt.id: example for example in self.dataset[split]}
        return {
            seed: [
                Marked(
                    group.prompt.id,
                    self.gold(examples[group.prompt.id], group.chosen),
                    tuple(self.gold(examples[group.prompt.id], response) for response in group.rejected),
                )
                for group in self.groups(label, seed)
            ]
            for seed in self.seeds
        }

    def values(self, label: str, evaluator: str = GOLD, metric: str = "gold") -> Values:
        """A row's scores, [seeds, prompts]."""
        per_seed = {
            seed: [
                Score(*fields)
                for fields in self.store.open(self.row(label, seed).evaluations[evaluator]).read_lines("scores.jsonl")
            ]
            for seed in self.seeds
        }
        return Values.from_scores(per_seed, metric)


def values_of(per_seed: Mapping[int, Mapping[str, float]]) -> Values:
    """[seeds, prompts] from one value per seed and prompt."""
    scores = {seed: [Score(name, "value", value) for name, value in found.items()] for seed, found in per_seed.items()}
    return Values.from_scores(scores, "value")
