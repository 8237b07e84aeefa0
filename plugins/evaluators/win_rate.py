"""The share of sampled answers that beat the example's target, by the source's gold reward."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness import EvaluationTask, Metric, Paper, Response, Score
from harness_plugins.evaluators.sampled import SampledEvaluator


class TargetWinRate(SampledEvaluator):
    """Win 1, tie 0.5, loss 0 of each sampled answer against the SFT target; examples without a target get no score."""

    name = "target_win_rate"
    needs = frozenset({"target", "gold"})
    paper = Paper("Extensive Self-Contrast Enables Feedback-Free Language Model Alignment", "2404.00604", "Table 2")

    def metrics(self) -> Sequence[Metric]:
        return (Metric("win_rate", "share of sampled answers with more gold than the target; a tie is half", primary=True),)

    def evaluate(self, task: EvaluationTask) -> Iterable[Score]:
        for example, responses in zip(task.examples, task.respond(self.sampled), strict=True):
            if example.target is None:
                continue
            target = task.gold(example, Response(example.target))["total"]
            for sample, response in enumerate(responses):
                gold = task.gold(example, response)["total"]
                yield Score(example.prompt.id, "win_rate", 0.5 * ((gold > target) + (gold >= target)), sample)
