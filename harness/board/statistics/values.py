"""A row's scores on one metric, as a table of seeds × examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.api.types import Score

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Values:
    """One row's values of one metric.

    Attributes:
        examples: ids, one per column.
        values: [seeds, examples], the mean over the samples of an example; NaN where there is none.
        seeds: one per line of `values`; 0, 1, … if empty.
        questions: per column the question that the example belongs to (a turn of a dialogue, say), which is resampled as
            one; each example its own if empty.
    """

    examples: tuple[str, ...]
    values: Floats
    seeds: tuple[int, ...] = ()
    questions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.seeds:
            object.__setattr__(self, "seeds", tuple(range(len(self.values))))
        if not self.questions:
            object.__setattr__(self, "questions", self.examples)

    @classmethod
    def from_scores(cls, per_seed: Mapping[int, Iterable[Score]], metric: str) -> Values:
        """Average the samples of each example. Seeds and examples are sorted; a value that is not finite counts as missing."""
        chosen = {seed: [score for score in per_seed[seed] if score.metric == metric] for seed in sorted(per_seed)}
        question: dict[str, str] = {}
        for scores in chosen.values():
            question |= {score.example: score.question or score.example for score in scores}
        examples = tuple(sorted(question))
        column = {example: position for position, example in enumerate(examples)}
        values = np.full((len(chosen), len(examples)), np.nan)
        for line, scores in zip(values, chosen.values(), strict=True):
            found = np.array([score.value for score in scores], dtype=np.float64)
            columns = np.array([column[score.example] for score in scores], dtype=np.intp)
            finite = np.isfinite(found)
            totals = np.bincount(columns[finite], found[finite], len(examples))
            counts = np.bincount(columns[finite], minlength=len(examples))
            np.divide(totals, counts, out=line, where=counts > 0)
        return cls(examples, values, tuple(sorted(per_seed)), tuple(question[example] for example in examples))

    @classmethod
    def from_numbers(cls, per_seed: Mapping[int, Mapping[str, float]]) -> Values:
        """Arrange one number per seed and example as a table."""
        scores = {
            seed: [Score(example, "value", value) for example, value in numbers.items()] for seed, numbers in per_seed.items()
        }
        return cls.from_scores(scores, "value")

    def on(self, examples: Sequence[str], questions: Sequence[str] = ()) -> Values:
        """The same values for these examples, in this order; NaN for an example that is not here."""
        if tuple(examples) == self.examples:
            return self
        column = {example: position for position, example in enumerate(self.examples)}
        here = [position for position, example in enumerate(examples) if example in column]
        values = np.full((len(self.values), len(examples)), np.nan)
        values[:, here] = self.values[:, [column[examples[position]] for position in here]]
        own = dict(zip(self.examples, self.questions, strict=True))
        return Values(tuple(examples), values, self.seeds, tuple(questions) or tuple(own.get(name, name) for name in examples))

    def of_seeds(self, seeds: Sequence[int]) -> Values:
        """The lines of these seeds, in this order."""
        lines = [self.seeds.index(seed) for seed in seeds]
        return Values(self.examples, self.values[lines], tuple(seeds), self.questions)

    def answered(self) -> Values:
        """Without the seeds and the examples that have no value at all."""
        present = np.isfinite(self.values)
        columns, lines = np.flatnonzero(present.any(axis=0)), np.flatnonzero(present.any(axis=1))
        if len(columns) == len(self.examples) and len(lines) == len(self.seeds):
            return self
        return Values(
            tuple(self.examples[column] for column in columns),
            self.values[lines][:, columns],
            tuple(self.seeds[line] for line in lines),
            tuple(self.questions[column] for column in columns),
        )

    def by_question(self) -> NDArray[np.intp]:
        """Per column the number of its question, counted in the order of first appearance."""
        if self.questions == self.examples:
            return np.arange(len(self.examples))
        number: dict[str, int] = {}
        return np.array([number.setdefault(question, len(number)) for question in self.questions], dtype=np.intp)


def by_metric(per_seed: Mapping[int, Iterable[Score]]) -> dict[str, dict[int, list[Score]]]:
    """The scores of each metric, with every seed there is, in one pass."""
    found: dict[str, dict[int, list[Score]]] = {}
    for seed, scores in per_seed.items():
        for score in scores:
            if score.metric not in found:
                found[score.metric] = {number: [] for number in per_seed}
            found[score.metric][seed].append(score)
    return found


def shared(row: Values, baseline: Values) -> tuple[Values, Values, bool]:
    """Both on the examples that both have, and on the seeds that both have; whether they have any seed in common.

    Where they have none, each keeps its own seeds.

    Raises:
        ValueError: no example has a finite value on both sides.
    """
    left, right = row.answered(), baseline.answered()
    examples = left.examples if left.examples == right.examples else sorted(set(left.examples) & set(right.examples))
    if not len(examples):
        raise ValueError("no example has a value on both sides")
    left, right = left.on(examples), right.on(examples)
    seeds = sorted(set(left.seeds) & set(right.seeds))
    return (left.of_seeds(seeds), right.of_seeds(seeds), True) if seeds else (left, right, False)


def mean_over_seeds(values: Floats) -> Floats:
    """[seeds, examples] → [examples], over the seeds that have a value; NaN where none has."""
    present = np.isfinite(values)
    totals, counts = np.where(present, values, 0.0).sum(axis=0), present.sum(axis=0)
    means: Floats = np.divide(totals, counts, out=np.full(values.shape[1], np.nan), where=counts > 0)
    return means
