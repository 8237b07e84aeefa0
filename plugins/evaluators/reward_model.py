"""A reward's scores of the policy's sampled answers, and how often it prefers them to the target."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from pydantic import Field

from harness import (
    EvaluationTask,
    Example,
    JudgeReward,
    Metric,
    Paper,
    Questions,
    Response,
    Reward,
    Rewarded,
    RewardModel,
    Score,
)
from harness_plugins.evaluators.sampled import SampledEvaluator


class RewardModelScores(Rewarded, SampledEvaluator):
    """Mean reward of sampled answers, as it is and through a sigmoid; wins against the target, a tie half.

    The reward is a reward model's, a verifier's or the judge's. Examples without a target have no win rate, and an answer
    without a reward has no score. Self-Contrast measures with Starling-RM-7B-alpha at temperature 1.
    """

    name = "reward_model"
    paper = Paper("Extensive Self-Contrast Enables Feedback-Free Language Model Alignment", "2404.00604", "Table 2")

    reward: Reward = Field(
        description="{model: …} (a reward model), {checker: …} (a verifier) or {judge: {}} (the config's judge)"
    )

    def metrics(self) -> Sequence[Metric]:
        sigmoid = Metric("sigmoid", "the reward through a sigmoid, answer by answer", bounds=(0, 1))
        return (
            Metric("reward", f"reward of answers sampled at T = {self.temperature:g}", primary=True),
            # Ratings and verdicts are on scales of their own, which a sigmoid would only bend.
            *((sigmoid,) if isinstance(self.reward, RewardModel) else ()),
            Metric(
                "win_rate",
                "share of sampled answers with more reward than the target; a tie is half",
                primary=True,
                bounds=(0, 1),
            ),
        )

    def asks(self, examples: Sequence[Example], opponents: int) -> Questions | None:
        if not isinstance(self.reward, JudgeReward):
            return None
        calls = tokens = 0
        for example in examples:
            longest = [self.max_tokens] * self.n + ([] if example.target is None else [len(example.target.encode())])
            (asked,) = self.reward.conversation(example.prompt, Response(""))
            calls += len(longest)
            tokens += len(longest) * len(asked.content.encode()) + sum(longest)
        return Questions(calls, tokens)

    def evaluate(self, task: EvaluationTask) -> Iterable[Score]:
        answers = task.respond(self.sampled)
        asked = [
            [*([] if example.target is None else [Response(example.target)]), *responses]
            for example, responses in zip(task.examples, answers, strict=True)
        ]
        for example, rewards in zip(task.examples, task.reward(self.reward, asked), strict=True):
            target, own = (None, rewards) if example.target is None else (rewards[0], rewards[1:])
            for sample, reward in enumerate(own):
                if math.isnan(reward):  # the judge's rating could not be read, or there is no reference
                    continue
                yield Score(example.prompt.id, "reward", reward, sample)
                if isinstance(self.reward, RewardModel):
                    yield Score(example.prompt.id, "sigmoid", _sigmoid(reward), sample)
                if target is not None and not math.isnan(target):
                    yield Score(example.prompt.id, "win_rate", 0.5 * ((reward > target) + (reward >= target)), sample)


def _sigmoid(value: float) -> float:
    """1 / (1 + e⁻ˣ) without overflow."""
    return 0.5 * (1.0 + math.tanh(value / 2))
