"""The precision of a training: of its matrix products, and of the weights that it stores. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional
from transformers import PreTrainedModel

from harness.training.settings import Rounding, resolve_precision


def autocast(model: PreTrainedModel, asked: str = "auto") -> AbstractContextManager[object]:
    """Return a context with matrix products in bfloat16, where `precision` asks for it.

    Log-probabilities are float32 and their sums float64 in either case. The policy and its reference must be scored in one
    precision: scores in two differ by more than the first steps of a training change them.
    """
    weight = next(model.parameters(), None)
    # A sharded weight may lie in the CPU's memory between passes, and is computed with where its mesh is.
    device = weight.device_mesh.device_type if isinstance(weight, DTensor) else model.device.type
    if resolve_precision(asked, device) == "float32":
        return nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16)


def recast_in_backward(model: nn.Module) -> None:
    """Have the model's linear layers keep no bfloat16 copy of their weights for backward under autocast; it is made again.

    A weight that autocast rounds is kept twice until its gradient is there: as it is, and rounded. FSDP frees the first after
    the layer's pass and gathers it again, and knows nothing of the second: every process would hold a rounded copy of the
    whole model. Values and gradients stay the same to the bit.
    """
    for module in model.modules():
        if type(module) is nn.Linear:  # not a subclass, whose pass may be another one
            module.forward = MethodType(_linear, module)  # type: ignore[method-assign]


def _linear(layer: nn.Linear, rows: Tensor) -> Tensor:
    device = rows.device.type
    if not torch.is_autocast_enabled(device):
        return functional.linear(rows, layer.weight, layer.bias)
    rounded = rows.to(torch.get_autocast_dtype(device))
    product: Tensor = _Product.apply(rounded, layer.weight, layer.bias)  # type: ignore[no-untyped-call]
    return product


class _Product(torch.autograd.Function):
    """A linear layer's product in the type of its rows, which keeps the weight as it is and rounds it again in backward."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.bias = None if bias is None else bias.dtype
        return functional.linear(rows, weight.to(rows.dtype), None if bias is None else bias.to(rows.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        of_rows, of_weight, of_bias = ctx.needs_input_grad
        flat = gradient.flatten(0, -2)
        return (
            gradient @ weight.to(rows.dtype) if of_rows else None,
            (flat.T @ rows.flatten(0, -2)).to(weight.dtype) if of_weight else None,
            flat.sum(0).to(ctx.bias) if of_bias else None,
        )


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
