"""The shared baselines: the starting model itself, the usual objectives on the source's own pairs, SPIN, self-rewarding."""

from harness import DataBuilder, Method, Objective, Paper, Round, hookimpl
from harness_plugins.baselines.cpo import CPO
from harness_plugins.baselines.dpo import DPO
from harness_plugins.baselines.hinge import Hinge
from harness_plugins.baselines.ipo import IPO
from harness_plugins.baselines.kto import KTO
from harness_plugins.baselines.orpo import ORPO
from harness_plugins.baselines.preference import Preference
from harness_plugins.baselines.rdpo import RDPO
from harness_plugins.baselines.rrhf import RRHF
from harness_plugins.baselines.self_rewarding import PAPER as SELF_REWARDING_PAPER
from harness_plugins.baselines.self_rewarding import SelfRewarding
from harness_plugins.baselines.sft import SFT, Targets
from harness_plugins.baselines.slic_hf import SLiCHF
from harness_plugins.baselines.spin import Spin


@hookimpl
def harness_data_builders() -> list[type[DataBuilder]]:
    return [Preference, SelfRewarding, Spin, Targets]


@hookimpl
def harness_objectives() -> list[type[Objective]]:
    return [CPO, DPO, Hinge, IPO, KTO, ORPO, RDPO, RRHF, SFT, SLiCHF]


@hookimpl
def harness_methods() -> list[Method]:
    return [
        Method(name="sft", description="The starting model itself: supervised fine-tuning and nothing more"),
        _on_preferences(DPO, "DPO on the source's own preference pairs"),
        _on_preferences(IPO, "IPO on the source's own preference pairs"),
        _on_preferences(Hinge, "DPO's margin under a hinge, on the source's own preference pairs"),
        _on_preferences(RDPO, "DPO with a penalty on length, on the source's own preference pairs"),
        _on_preferences(CPO, "CPO on the source's own preference pairs"),
        _on_preferences(ORPO, "ORPO on the source's own preference pairs"),
        _on_preferences(KTO, "KTO on the source's own preference pairs, each side on its own"),
        _on_preferences(RRHF, "RRHF on the source's own preference pairs; `negatives` for longer rankings"),
        _on_preferences(SLiCHF, "SLiC-HF on the source's own preference pairs"),
        Method(
            name="simpo",
            description="SimPO on the source's own preference pairs",
            data="preference",
            objective="simpo",
            paper=Paper("SimPO: Simple Preference Optimization with a Reference-Free Reward", "2405.14734", "Eq. 6"),
        ),
        Method(
            name="spin",
            description="Self-play fine-tuning: the target against one unfiltered own sample",
            data="spin",
            objective="dpo",
            paper=Spin.paper,
        ),
        Method(
            name="spin_iterated",
            description="SPIN over three rounds: each plays against the round before",
            data="spin",
            objective="dpo",
            # The paper's experiment details: the learning rate falls from 5e-7 to 1e-7 after the first two iterations.
            rounds=(Round(), Round(), Round(learning_rate_factor=0.2)),
            paper=Spin.paper,
        ),
        Method(
            name="self_rewarding",
            description="Three rounds of DPO on own samples, the best against the worst by the policy's own judgment",
            data="self_rewarding",
            objective="dpo",
            rounds=(Round(), Round(), Round()),
            paper=SELF_REWARDING_PAPER,
        ),
    ]


def _on_preferences(objective: type[Objective], description: str) -> Method:
    """A row of the objective's name and paper, on the source's own preferences."""
    return Method(
        name=objective.name,
        description=description,
        data="preference",
        objective=objective.name,
        paper=objective.paper,
    )
