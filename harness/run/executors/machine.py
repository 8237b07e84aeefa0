"""What this machine has for stages: GPUs, and cores."""

from __future__ import annotations

import os
from collections.abc import Sequence


def visible_gpus() -> list[str]:
    """The GPUs of this machine, as `CUDA_VISIBLE_DEVICES` names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name and name != "-1"]
    from harness.store.environment import device_kind

    if device_kind() == "cpu":
        return []
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def places(gpus: Sequence[str]) -> int:
    """How many stages it runs at a time: one per GPU, or where there is none, one per core that this process may use."""
    return len(gpus) or len(os.sched_getaffinity(0))
