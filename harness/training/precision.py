"""In which type a pass computes, and what is lost of an update where weights are stored with fewer digits.

Weights, gradients and AdamW's moments are float32 whatever the type of a pass.

Imports torch; import it where training begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
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


@dataclass(frozen=True)
class Rounding:
    """How much of what training changed is lost where weights are stored with fewer digits.

    Attributes:
        dtype: the type that they are stored in.
        moved: how many weights training moved.
        kept: the share of those that are stored as they were before.
        error: length of what rounding changed, over the length of what training changed; 1 where nothing of it is left.
    """

    dtype: str
    moved: int
    kept: float
    error: float


def round_weights(model: PreTrainedModel, start: Mapping[str, Tensor], dtype: str) -> Rounding:
    """Round the model's weights to `dtype`, in place, and measure what that costs.

    Args:
        model: with float32 weights, as trained.
        start: the weights that the training began with, by their names in the model.
        dtype: what to store them in.
    """
    moved = kept = 0
    lost = length = 0.0
    for name, weight in model.named_parameters():
        trained, before = weight.data, start[name].to(weight.device)
        stored = trained.to(getattr(torch, dtype))
        changed = trained != before
        moved += int(changed.sum())
        kept += int((changed & (stored == before.to(stored.dtype))).sum())
        lost += float((stored.double() - trained.double()).square()[changed].sum())
        length += float((trained.double() - before.double()).square().sum())
        weight.data = stored
    return Rounding(dtype, moved, kept / moved if moved else 0.0, (lost / length) ** 0.5 if length else 0.0)
