"""Does an answer begin as the target does, and how long are its words?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np

from harness import EvaluationTask, Evaluator, Metric, Sampling, Score, pseudo_values

GREEDY = Sampling(temperature=0.0, max_tokens=16)


class FirstWord(Evaluator):
    """The share of greedy answers whose first word is the target's, and characters per word over all answers.

    Characters per word are a ratio of two sums, so that they are a function of a fit and no mean over answers.
    """

    name: ClassVar[str] = "tp_first_word"
    needs = frozenset({"target"})

    def metrics(self) -> Sequence[Metric]:
        return [
            Metric("first_word", "share of greedy answers that begin with the target's first word", primary=True),
            Metric("characters_per_word", "of all answers together", higher_is_better=None, fit="run"),
        ]

    def samplings(self) -> Sequence[Sampling]:
        return [GREEDY]

    def evaluate(self, task: EvaluationTask) -> Iterable[Score]:
        answers = [answer for (answer,) in task.respond(GREEDY)]
        characters = np.array([len(answer.text) for answer in answers], dtype=np.float64)
        words = np.array([len(answer.text.split()) + 1 for answer in answers], dtype=np.float64)
        ratios = pseudo_values(lambda weights: (weights @ characters) / (weights @ words), len(answers))
        for example, answer, ratio in zip(task.examples, answers, ratios, strict=True):
            yield Score(example.prompt.id, "characters_per_word", float(ratio))
            if example.target:
                same = answer.text.split()[:1] == example.target.split()[:1]
                yield Score(example.prompt.id, "first_word", float(same))
