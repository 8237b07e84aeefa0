"""Per-example gradients of DPO's two parts, and the variances that Theorem 1 is about.

At the starting model h is 0, so σ(r̂(n) − r̂(p)) is ½ for every pair (Definition 1): the parts are −½β ∇ log π of the two
responses. The common factor −½β changes no ratio and is left out.

A gradient has as many entries as the model has weights. What is needed of many of them are inner products, and those a count
sketch keeps (Charikar, Chen and Farach-Colton 2002): every entry is added with a random sign to one of a few thousand bins.
Inner products are right in expectation; a model with no more weights than bins keeps its gradients as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.bootstrap import Floats, Indices
from harness.analysis.theorem import Spread
from harness.models.logps import Row, response_logps

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

SKETCH = 8192


def response_gradients(
    model: PreTrainedModel,
    rows: Sequence[Row],
    *,
    size: int = SKETCH,
    seed: int = 0,
    report: Callable[[int, int], None] | None = None,
) -> Floats:
    """∇ log π of every row's response, sketched, [rows, size or the number of weights]; one backward pass a row."""
    import torch

    weights = [weight for weight in model.parameters() if weight.requires_grad]
    total = sum(weight.numel() for weight in weights)
    fold = _sketch(total, size, seed) if total > size else None
    found = np.empty((len(rows), size if fold else total), dtype=np.float32)
    for index, row in enumerate(rows):
        parts = torch.autograd.grad(response_logps(model, [row]).sum(), weights)
        flat = torch.cat([part.reshape(-1) for part in parts]).float().cpu()
        found[index] = (fold(flat) if fold else flat).numpy()
        if report is not None:
            report(index + 1, len(rows))
    return found.astype(np.float64)


def _sketch(total: int, size: int, seed: int) -> Callable[[Tensor], Tensor]:
    """Signed entries folded onto `size` bins, every `size`-th into the same one: the signs make inner products unbiased."""
    import torch

    signs = torch.randint(0, 2, (total,), generator=torch.Generator().manual_seed(seed)).float() * 2 - 1

    def fold(flat: Tensor) -> Tensor:
        return torch.nn.functional.pad(flat * signs, (0, -total % size)).view(-1, size).sum(0)

    return fold


@dataclass(frozen=True)
class Moments:
    """Inner products of gradients between prompts, each [prompts, prompts], summed over the gradient's entries.

    Attributes:
        positive: of the positives with each other.
        negative: of negatives of the same place, the mean over places.
        mixed: of positives with negatives, the mean over places.
        between: of negatives of different places, the mean over pairs of places.
        errors: m -> of p − the mean of the first m negatives.
    """

    positive: Floats
    negative: Floats
    mixed: Floats
    between: Floats
    errors: dict[int, Floats]

    @classmethod
    def of(cls, positives: Floats, negatives: Floats, counts: Sequence[int]) -> Moments:
        """From gradients, [prompts, size] and [prompts, places, size]; `counts` are the m wanted.

        Raises:
            ValueError: there are fewer than two prompts or two places.
        """
        prompts, places = negatives.shape[:2]
        if prompts < 2 or places < 2:
            raise ValueError(f"{prompts} prompts with {places} negatives each are too few for a variance: 2 and 2 are needed")
        total = negatives.sum(axis=1)
        same = sum((negatives[:, place] @ negatives[:, place].T for place in range(places)), np.zeros((prompts, prompts)))
        errors = {}
        for count in counts:
            gap = positives - negatives[:, :count].mean(axis=1)
            errors[count] = gap @ gap.T
        return cls(
            positives @ positives.T,
            same / places,
            (positives @ total.T + total @ positives.T) / (2 * places),
            (total @ total.T - same) / (places * (places - 1)),
            errors,
        )

    @property
    def prompts(self) -> int:
        return len(self.positive)

    def spread(self, drawn: Indices | None = None) -> Spread:
        """Assumption 1's parameters over these prompts: traces of covariances stand for the variances of one number."""
        chosen = np.arange(self.prompts) if drawn is None else drawn
        first, second = trace(self.positive, chosen) ** 0.5, trace(self.negative, chosen) ** 0.5
        return Spread(first, second, trace(self.mixed, chosen) / (first * second), trace(self.between, chosen) / second**2)

    def error(self, count: int, drawn: Indices | None = None) -> float:
        """The measured error of one positive and m negatives: E‖p − n̄ₘ − target‖²."""
        return trace(self.errors[count], np.arange(self.prompts) if drawn is None else drawn)


def trace(products: Floats, drawn: Indices) -> float:
    """Trace of the covariance of vectors with these inner products, over the drawn ones; unbiased. NaN if all are the same one.

    Args:
        products: [prompts, prompts].
        drawn: [n], indices, repetitions allowed.
    """
    count = len(drawn)
    weights = np.bincount(drawn, minlength=len(products)) / count
    if np.count_nonzero(weights) < 2:
        return float("nan")
    spread = weights @ np.diag(products) - weights @ products @ weights
    return float(spread * count / (count - 1))
