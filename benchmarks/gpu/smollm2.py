"""`configs/smollm2.yaml` at full size: real weights and real dialogues, where both are on the machine already.

Weights are those of `harness fetch smollm2 minilm`; the dialogues are named by `--hh-rlhf`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu.quickstart import compare, report

__all__ = ["report", "rows"]


def rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    import os

    from harness.models.fetched import CATALOGUE, cache_folder, damage

    missing = [name for name in ("smollm2", "minilm") if damage(CATALOGUE[name], cache_folder(os.environ) / name)]
    if missing:
        yield {"skipped": f"Skipped: `harness fetch {' '.join(missing)}` was not run on this machine."}
        return
    if options.hh_rlhf is None or not options.hh_rlhf.is_file():
        yield {"skipped": "Skipped: --hh-rlhf names no file of dialogues."}
        return
    config = Path(__file__).resolve().parents[2] / "configs" / "smollm2.yaml"
    few = ["--methods", "sft,dpo", "--set", "budget.prompts=8"] if options.small else []
    yield from compare(
        [str(config), "--set", f"source.path={options.hh_rlhf.resolve()}", *few], ["0"] if options.small else ["0", "1"]
    )
