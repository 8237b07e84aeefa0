"""The shared baselines: the starting model itself, DPO on the source's own pairs, SPIN."""

from harness import DataBuilder, Method, Objective, Paper, hookimpl
from harness_plugins.baselines.dpo import DPO
from harness_plugins.baselines.nll import SFT
from harness_plugins.baselines.preference import Preference
from harness_plugins.baselines.spin import Spin
from harness_plugins.baselines.targets import Targets


@hookimpl
def harness_data_builders() -> list[type[DataBuilder]]:
    return [Preference, Spin, Targets]


@hookimpl
def harness_objectives() -> list[type[Objective]]:
    return [DPO, SFT]


@hookimpl
def harness_methods() -> list[Method]:
    return [
        Method(name="sft", description="The starting model itself: supervised fine-tuning and nothing more"),
        Method(
            name="dpo",
            description="DPO on the source's own preference pairs",
            data="preference",
            objective="dpo",
            paper=DPO.paper,
        ),
        Method(
            name="spin",
            description="Self-play fine-tuning: the target against one unfiltered own sample",
            data="spin",
            objective="dpo",
            paper=Paper("Self-Play Fine-Tuning Converts Weak Language Models to Strong Language Models", "2401.01335"),
        ),
    ]
