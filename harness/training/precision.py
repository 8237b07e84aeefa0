"""The precision of a training: of its matrix products, and of the weights that it stores. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from transformers import PreTrainedModel

from harness.training.settings import Rounding, resolve_precision


def autocast(model: PreTrainedModel, asked: str = "auto") -> AbstractContextManager[object]:
    """Return a context with matrix products in bfloat16, where `precision` asks for it.

    Log-probabilities are float32 and their sums float64 in either case. The policy and its reference must be scored in one
    precision: scores in two differ by more than the first steps of a training change them.
    """
    device = model.device.type
    if resolve_precision(asked, device) == "float32":
        return nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16)


def round_weights(model: PreTrainedModel, start: Mapping[str, Tensor], dtype: str) -> Rounding:
    """Round the model's weights to `dtype`, in place, and measure how much of the training is lost.

    A step that is smaller than half of the last digit of a weight leaves the rounded weight as it was: with the 8 binary digits
    of bfloat16, that is most steps at usual learning rates.

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
        # In float64: the squares of differences near a weight's last float32 digit vanish in float32's sums.
        lost += float((stored.double() - trained.double()).square()[changed].sum())
        length += float((trained.double() - before.double()).square().sum())
        weight.data = stored
    return Rounding(dtype, moved, kept / moved if moved else 0.0, (lost / length) ** 0.5 if length else 0.0)
