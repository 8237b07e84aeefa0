"""One refined method beside what it refines: its rows by λ and by number of tuples, their gold reward and their accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from harness.analysis.lab import Lab, quiet
from harness.analysis.made import Made, values_of
from harness.statistics import Interval, Values, interval
from harness.types import Example, Prompt, Response

PLAIN = {"sr_dpo": "dpo", "sr_ipo": "ipo"}  # what each method is without its refinement
WEIGHTS = (0.1, 0.3, 0.5, 1.0)  # λ; 0 is the plain method
DEFAULT = 0.5  # λ where the number of tuples is varied
AUGMENTED = "augmented"


@dataclass(frozen=True)
class Refined:
    """One refined method, trained with every λ on all tuples, and with the default λ on fewer.

    Attributes:
        name: the method.
        made: its comparisons, by number of tuples.
        tuning: the pairs on which λ is chosen.
    """

    name: str
    lab: Lab
    made: Mapping[int, Made]
    tuning: Sequence[Example]
    _known: dict[tuple[object, ...], Values] = field(default_factory=dict)

    @property
    def plain(self) -> str:
        return PLAIN[self.name]

    @property
    def most(self) -> int:
        return max(self.made)

    def label(self, weight: float) -> str:
        """The row trained with this λ on all tuples."""
        return f"{self.name}[refinement_weight={weight:g}]" if weight else self.plain

    @cached_property
    def chosen(self) -> float:
        """The λ of the highest accuracy on the tuning pairs; of equal ones the smallest."""
        return max(WEIGHTS, key=lambda weight: interval(self.accuracy(self.most, self.label(weight), tuning=True)).mean)

    def gold(self, count: int, label: str) -> Interval | None:
        return interval(self.made[count].values(label)) if self.lab.has_gold else None

    def accuracy(self, count: int, label: str, *, augmented: bool = False, tuning: bool = False) -> Values:
        """Whether h prefers the better-ranked response of each pair, held-out ones unless told, [seeds, pairs]."""
        key = (count, label, augmented, tuning)
        if key not in self._known:
            self._known[key] = self._accuracy(count, label, augmented, self.tuning if tuning else self.made[count].evaluated())
        return self._known[key]

    def _accuracy(self, count: int, label: str, augmented: bool, examples: Sequence[Example]) -> Values:
        made = self.made[count]
        pairs = [example for example in examples if len(example.ranked) > 1]
        change = self.lab.component("objective", self.name).views()[AUGMENTED]
        prompts: list[Prompt] = [change(example.prompt) if augmented else example.prompt for example in pairs]
        responses = [[Response(example.ranked[0]), Response(example.ranked[-1])] for example in pairs]
        per_seed: dict[int, Mapping[str, float]] = {}
        for seed in made.seeds:
            row, start = made.row(label, seed), made.row("sft", seed)
            with quiet():
                policy = self.lab.policy(made, row.model).logps(prompts, responses)
                reference = self.lab.policy(made, start.model).logps(prompts, responses)
            per_seed[seed] = {
                example.prompt.id: _prefers(lp[0] - lr[0], lp[1] - lr[1])
                for example, lp, lr in zip(pairs, policy, reference, strict=True)
            }
        return values_of(per_seed)


def _prefers(chosen: float, rejected: float) -> float:
    return 0.5 * ((chosen > rejected) + (chosen >= rejected))
