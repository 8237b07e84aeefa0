"""The control rows of every sandbox board: what a difference must be measured against before it means anything."""

from harness import DataBuilder, Method, hookimpl
from harness_plugins.controls.best_of_n import BestOfN


@hookimpl
def harness_data_builders() -> list[type[DataBuilder]]:
    return [BestOfN]


@hookimpl
def harness_methods() -> list[Method]:
    return [
        Method(
            name="null",
            description="The baseline again with other seeds, which tells with the seeds of all rows of the noise floor",
            seed_offset=1000,
            kind="null",
        ),
        Method(
            name="sft_continued",
            description="Supervised fine-tuning continued on the methods' prompts for the same number of updates",
            data="targets",
            objective="sft",
            kind="control",
        ),
        Method(
            name="sft_best_of_n",
            description="Supervised fine-tuning on the best of n own samples by gold: selection without contrast",
            data="best_of_n",
            data_fields={"negatives": 0},
            objective="sft",
            kind="control",
        ),
        Method(
            name="oracle",
            description="DPO on the best against the worst of n own samples by gold: what a perfect labeller would reach",
            data="best_of_n",
            objective="dpo",
            kind="control",
        ),
    ]
