"""Self-Contrast (arXiv 2404.00604): the SFT target against own samples that are unlike it."""

from harness import Analysis, DataBuilder, Method, hookimpl
from harness_plugins.self_contrast.analyses import (
    CorpusStatistics,
    DataAccuracy,
    GradientVariance,
    NegativeRewards,
    NegativesCount,
)
from harness_plugins.self_contrast.builder import PAPER, SelfContrast
from harness_plugins.self_contrast.reward_filtered import RewardFiltered


@hookimpl
def harness_data_builders() -> list[type[DataBuilder]]:
    return [RewardFiltered, SelfContrast]


@hookimpl
def harness_methods() -> list[Method]:
    return [
        Method(
            name="self_contrast",
            description="The target against m own samples that are unlike it, with DPO",
            data="self_contrast",
            objective="dpo",
            paper=PAPER,
        ),
        Method(
            name="reward_filtered",
            description="The target against m own samples of lower gold reward, with DPO: what a perfect filter would reach",
            data="reward_filtered",
            objective="dpo",
            kind="control",
            paper=RewardFiltered.paper,
        ),
    ]


@hookimpl
def harness_analyses() -> list[type[Analysis]]:
    return [CorpusStatistics, DataAccuracy, GradientVariance, NegativeRewards, NegativesCount]
