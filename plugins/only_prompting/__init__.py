"""Only-prompting self-rewarding: ask for a good and a worse answer, and prefer the good one."""

from harness import Analysis, DataBuilder, Method, Objective, Round, hookimpl
from harness_plugins.only_prompting.analyses import JudgedScores, PromptedRewards
from harness_plugins.only_prompting.builder import PAPER, OnlyPrompting
from harness_plugins.only_prompting.simpo import SimPO


@hookimpl
def harness_data_builders() -> list[type[DataBuilder]]:
    return [OnlyPrompting]


@hookimpl
def harness_objectives() -> list[type[Objective]]:
    return [SimPO]


@hookimpl
def harness_methods() -> list[Method]:
    return [
        Method(
            name="only_prompting",
            description="Answers asked to merit 10 against answers asked to merit s, s rising by round, with SimPO",
            data="only_prompting",
            objective="simpo",
            # Table 2's caption and Figure 4: s = 3, 5, 7 by round (§3.4's text says 3, 5, 9). §4.1: rounds 2 and 3 have
            # learning rates of 1e-7 and 1e-8; SimPO's, which round 1 keeps, is 5e-7 for the instruct setting.
            rounds=(
                Round(data={"rejected_score": 3}),
                Round(data={"rejected_score": 5}, learning_rate_factor=0.2),
                Round(data={"rejected_score": 7}, learning_rate_factor=0.02),
            ),
            paper=PAPER,
        )
    ]


@hookimpl
def harness_analyses() -> list[type[Analysis]]:
    return [JudgedScores, PromptedRewards]
