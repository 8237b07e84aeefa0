"""The share of sampled answers that beat the example's target, by the source's gold reward or another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from harness import EvaluationTask, Metric, Paper, Response, Rewarded, Score
from harness_plugins.evaluators.sampled import SampledEvaluator


class TargetWinRate(Rewarded, SampledEvaluator):
    """Win 1, tie 0.5, loss 0 of each sampled answer against the SFT target.

    Examples without a target get no score, nor answers without a reward.
    """

    name = "target_win_rate"
    needs = frozenset({"target", "gold"})
    paper = Paper("Extensive Self-Contrast Enables Feedback-Free Language Model Alignment", "2404.00604", "Table 2")

    def metrics(self) -> Sequence[Metric]:
        unit = "gold" if self.reward is None else "reward"
        return (
            Metric(
                "win_rate",
                f"share of sampled answers with more {unit} than the target; a tie is half",
                primary=True,
                bounds=(0, 1),
            ),
        )

    def evaluate(self, task: EvaluationTask) -> Iterable[Score]:
        marked = [
            [] if example.target is None else [Response(example.target), *responses]
            for example, responses in zip(task.examples, task.respond(self.sampled), strict=True)
        ]
        for example, marks in zip(task.examples, self._marks(task, marked), strict=True):
            for sample, mark in enumerate(marks[1:]):
                if not math.isnan(marks[0]) and not math.isnan(mark):
                    yield Score(example.prompt.id, "win_rate", 0.5 * ((mark > marks[0]) + (mark >= marks[0])), sample)

    def _marks(self, task: EvaluationTask, responses: Sequence[Sequence[Response]]) -> Sequence[Sequence[float]]:
        if self.reward is not None:
            return task.reward(self.reward, responses)
        rows = zip(task.examples, responses, strict=True)
        return [[task.gold(example, response)["total"] for response in row] for example, row in rows]
