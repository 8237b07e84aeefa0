"""The shared baselines: the starting model itself, the usual objectives on the source's own pairs, SPIN."""

from harness import DataBuilder, Method, Objective, Paper, hookimpl
from harness_plugins.baselines.cpo import CPO
from harness_plugins.baselines.dpo import DPO
from harness_plugins.baselines.hinge import Hinge
from harness_plugins.baselines.ipo import IPO
from harness_plugins.baselines.kto import KTO
from harness_plugins.baselines.nll import SFT
from harness_plugins.baselines.orpo import ORPO
from harness_plugins.baselines.preference import Preference
from harness_plugins.baselines.rdpo import RDPO
from harness_plugins.baselines.rrhf import RRHF
from harness_plugins.baselines.slic_hf import SLiCHF
from harness_plugins.baselines.spin import Spin
from harness_plugins.baselines.targets import Targets


@hookimpl
def harness_data_builders() -> list[type[DataBuilder]]:
    return [Preference, Spin, Targets]


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
            paper=Paper("Self-Play Fine-Tuning Converts Weak Language Models to Strong Language Models", "2401.01335"),
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
