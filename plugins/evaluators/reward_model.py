"""A reward model's scores of the policy's sampled answers, and how often it prefers them to the target."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from pydantic import Field

from harness import EvaluationTask, Metric, Paper, Response, RewardModel, Score
from harness_plugins.evaluators.sampled import SampledEvaluator


class RewardModelScores(SampledEvaluator):
    """Mean reward of sampled answers, as it is and through a sigmoid; wins against the target, a tie half.

    Examples without a target have no win rate. Self-Contrast measures with Starling-RM-7B-alpha at temperature 1.
    """

    name = "reward_model"
    paper = Paper("Extensive Self-Contrast Enables Feedback-Free Language Model Alignment", "2404.00604", "Table 2")

    reward: RewardModel = Field(description="the reward model")

    def problems(self) -> Sequence[tuple[str, str]]:
        return self.reward.problems("reward")

    def fingerprint(self) -> str:
        return self.reward.weights

    def metrics(self) -> Sequence[Metric]:
        return (
            Metric("reward", f"reward of answers sampled at T = {self.temperature:g}", primary=True),
            Metric("sigmoid", "the reward through a sigmoid, answer by answer"),
            Metric("win_rate", "share of sampled answers with more reward than the target; a tie is half", primary=True),
        )

    def evaluate(self, task: EvaluationTask) -> Iterable[Score]:
        answers = task.respond(self.sampled)
        asked = [
            [*([] if example.target is None else [Response(example.target)]), *responses]
            for example, responses in zip(task.examples, answers, strict=True)
        ]
        for example, rewards in zip(task.examples, task.reward(self.reward, asked), strict=True):
            target, own = (None, rewards) if example.target is None else (rewards[0], rewards[1:])
            for sample, reward in enumerate(own):
                yield Score(example.prompt.id, "reward", reward, sample)
                yield Score(example.prompt.id, "sigmoid", _sigmoid(reward), sample)
                if target is not None:
                    yield Score(example.prompt.id, "win_rate", 0.5 * ((reward > target) + (reward >= target)), sample)


def _sigmoid(value: float) -> float:
    """1 / (1 + e⁻ˣ) without overflow."""
    return 0.5 * (1.0 + math.tanh(value / 2))
