"""Does an answer begin as the target does?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from harness import EvaluationTask, Evaluator, Metric, Sampling, Score

GREEDY = Sampling(temperature=0.0, max_tokens=16)


class FirstWord(Evaluator):
    """The share of greedy answers whose first word is the target's."""

    name: ClassVar[str] = "tp_first_word"
    needs = frozenset({"target"})

    def metrics(self) -> Sequence[Metric]:
        return [Metric("first_word", "share of greedy answers that begin with the target's first word", primary=True)]

    def samplings(self) -> Sequence[Sampling]:
        return [GREEDY]

    def evaluate(self, task: EvaluationTask) -> Iterable[Score]:
        for example, (answer,) in zip(task.examples, task.respond(GREEDY), strict=True):
            if example.target:
                same = answer.text.split()[:1] == example.target.split()[:1]
                yield Score(example.prompt.id, "first_word", float(same))
