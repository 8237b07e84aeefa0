"""Sources of prompts, targets and preferences."""

from harness import Source, hookimpl
from harness_plugins.sources.files import Jsonl, Parquet
from harness_plugins.sources.hh_rlhf import HHRLHF
from harness_plugins.sources.hub import Hub, Nectar, UltraChat, UltraFeedback
from harness_plugins.sources.mix import Mix
from harness_plugins.sources.sandbox import Sandbox


@hookimpl
def harness_sources() -> list[type[Source]]:
    return [HHRLHF, Hub, Jsonl, Mix, Nectar, Parquet, Sandbox, UltraChat, UltraFeedback]
