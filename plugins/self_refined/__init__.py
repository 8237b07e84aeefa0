"""Quality-aware self-refinement: DPO and IPO whose push follows the policy's own judgment of each pair."""

from harness import Analysis, Method, Objective, hookimpl
from harness_plugins.self_refined.analyses import RefinementAccuracy
from harness_plugins.self_refined.sr_dpo import SrDPO
from harness_plugins.self_refined.sr_ipo import SrIPO


@hookimpl
def harness_objectives() -> list[type[Objective]]:
    return [SrDPO, SrIPO]


@hookimpl
def harness_methods() -> list[Method]:
    return [
        Method(
            name="sr_dpo",
            description="Self-refined DPO on the source's own preference pairs",
            data="preference",
            objective="sr_dpo",
            paper=SrDPO.paper,
        ),
        Method(
            name="sr_ipo",
            description="Self-refined IPO on the source's own preference pairs",
            data="preference",
            objective="sr_ipo",
            paper=SrIPO.paper,
        ),
    ]


@hookimpl
def harness_analyses() -> list[type[Analysis]]:
    return [RefinementAccuracy]
