"""The built-in evaluators."""

from __future__ import annotations

from harness import Evaluator, hookimpl
from harness_plugins.evaluators.gold_reward import GoldReward
from harness_plugins.evaluators.lm_eval import LmEval
from harness_plugins.evaluators.preference_accuracy import PreferenceAccuracy
from harness_plugins.evaluators.response_stats import ResponseStats
from harness_plugins.evaluators.win_rate import TargetWinRate


@hookimpl
def harness_evaluators() -> list[type[Evaluator]]:
    return [GoldReward, TargetWinRate, PreferenceAccuracy, ResponseStats, LmEval]
