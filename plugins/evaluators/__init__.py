"""The built-in evaluators."""

from __future__ import annotations

from harness import Evaluator, Importer, hookimpl
from harness_plugins.evaluators.alpaca_eval.evaluator import AlpacaEval, AlpacaEval1
from harness_plugins.evaluators.fastchat.mt_bench import MtBench, VicunaBench
from harness_plugins.evaluators.gold_reward import GoldReward
from harness_plugins.evaluators.imports import AlpacaImporter, FastChatImporter, LmEvalImporter
from harness_plugins.evaluators.lm_eval.lm_eval import LmEval
from harness_plugins.evaluators.pairwise_judge import PairwiseJudge
from harness_plugins.evaluators.preference_accuracy import PreferenceAccuracy
from harness_plugins.evaluators.response_stats import ResponseStats
from harness_plugins.evaluators.reward_model import RewardModelScores
from harness_plugins.evaluators.verifier import VerifiedAnswers
from harness_plugins.evaluators.win_rate import TargetWinRate


@hookimpl
def harness_evaluators() -> list[type[Evaluator]]:
    return [
        GoldReward,
        TargetWinRate,
        PreferenceAccuracy,
        ResponseStats,
        RewardModelScores,
        VerifiedAnswers,
        LmEval,
        PairwiseJudge,
        MtBench,
        VicunaBench,
        AlpacaEval,
        AlpacaEval1,
    ]


@hookimpl
def harness_importers() -> list[type[Importer]]:
    return [AlpacaImporter, FastChatImporter, LmEvalImporter]
