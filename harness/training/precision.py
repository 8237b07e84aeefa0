"""In which type a pass computes. Weights, gradients and AdamW's moments are float32 whatever it is.

Imports torch; import it where training begins.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from transformers import PreTrainedModel

from harness.training.settings import resolve_precision


def autocast(model: PreTrainedModel, asked: str = "auto") -> AbstractContextManager[object]:
    """Matrix products in bfloat16 where `precision` asks for it; log-probabilities are float32 and their sums float64 still.

    The policy and its reference must be scored alike: two precisions differ by more than a first step does.
    """
    device = model.device.type
    if resolve_precision(asked, device) == "float32":
        return nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16)
