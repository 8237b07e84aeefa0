"""Self-Contrast (arXiv 2404.00604): the SFT target against own samples that are unlike it."""

from harness import DataBuilder, Method, hookimpl
from harness_plugins.self_contrast.builder import PAPER, SelfContrast


@hookimpl
def harness_data_builders() -> list[type[DataBuilder]]:
    return [SelfContrast]


@hookimpl
def harness_methods() -> list[Method]:
    return [
        Method(
            name="self_contrast",
            description="The target against m own samples that are unlike it, with DPO",
            data="self_contrast",
            objective="dpo",
            paper=PAPER,
        )
    ]
