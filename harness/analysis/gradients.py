"""Per-response gradients of log π, short enough to keep many of them.

A gradient has as many entries as the model has weights. Analyses of many gradients need their inner products, which a
count sketch keeps (Charikar, Chen and Farach-Colton 2002): every entry is added with a random sign to one of a few thousand
bins. Inner products are right in expectation; a model with no more weights than bins keeps its gradients as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.board.statistics import Floats
from harness.models.logps import TokenRow, response_logps

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

SKETCH = 8192


def response_gradients(
    model: PreTrainedModel,
    rows: Sequence[TokenRow],
    *,
    size: int = SKETCH,
    seed: int = 0,
    report: Callable[[int, int], None] | None = None,
) -> Floats:
    """Return ∇ log π of every row's response, [rows, entries]: one backward pass a row, folded onto `size` bins if longer."""
    import torch

    weights = [weight for weight in model.parameters() if weight.requires_grad]
    total = sum(weight.numel() for weight in weights)
    fold = _sketch(total, size, seed) if total > size else None
    gradients = np.empty((len(rows), size if fold else total), dtype=np.float32)
    for index, row in enumerate(rows):
        parts = torch.autograd.grad(response_logps(model, [row]).sum(), weights)
        flat = torch.cat([part.reshape(-1) for part in parts]).float().cpu()
        gradients[index] = (fold(flat) if fold else flat).numpy()
        if report is not None:
            report(index + 1, len(rows))
    return gradients.astype(np.float64)


def _sketch(total: int, size: int, seed: int) -> Callable[[Tensor], Tensor]:
    """Return a function that adds signed entries into `size` bins, every `size`-th into the same one."""
    import torch

    # Random signs make the cross terms of a bin cancel in expectation, so inner products are unbiased.
    signs = torch.randint(0, 2, (total,), generator=torch.Generator().manual_seed(seed)).float() * 2 - 1

    def fold(flat: Tensor) -> Tensor:
        return torch.nn.functional.pad(flat * signs, (0, -total % size)).view(-1, size).sum(0)

    return fold
