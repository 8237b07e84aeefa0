"""The interface of the layouts: bundles of responses in, one log-probability per response out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from harness.models.batched import computed
from harness.models.logps import Head, TokenRow

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Bundle:
    """One prompt and the responses to score under it, as ids; in training the chosen response is the first."""

    prompt: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]

    def rows(self) -> list[TokenRow]:
        """Each response with its own copy of the prompt."""
        return [TokenRow(self.prompt, response) for response in self.responses]

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(row.tokens for row in self.rows())


class Layout(Protocol):
    """A way to lay bundles out in one forward pass.

    Attributes:
        name: as in `training.layout`.
        warning: why it stands in for another layout; empty where it does not.
        head: how hidden states become log-probabilities.
    """

    name: str
    warning: str
    head: Head

    def logps(self, model: PreTrainedModel, bundles: Sequence[Bundle]) -> Tensor:
        """Summed log-probabilities of all responses, bundle after bundle: [N], nats, float64, differentiable."""
        ...

    def tokens(self, bundles: Sequence[Bundle]) -> int:
        """Tokens that the forward pass really computes, padding and repetition included."""
        ...


def cut(layout: Layout, bundles: Sequence[Bundle], tokens: int) -> Iterator[list[int]]:
    """Indices of bundles in batches of at most `tokens` of the layout's tokens, at least one bundle each, longest first."""
    batch: list[int] = []
    for index in sorted(range(len(bundles)), key=lambda index: (-bundles[index].longest, index)):
        if batch and layout.tokens([bundles[other] for other in (*batch, index)]) > tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


class ScoredBundles:
    """Log-probabilities of all responses without gradient, bundle after bundle, batch by batch (a `Batched`).

    Equal responses of a bundle are computed once. All responses of a bundle are in one batch.
    """

    def __init__(self, model: PreTrainedModel, bundles: Sequence[Bundle], layout: Layout, tokens_per_batch: int = 8192) -> None:
        self.model, self.layout, self.tokens = model, layout, tokens_per_batch
        self.bundles = bundles
        self.owners = [index for index, bundle in enumerate(bundles) for _ in bundle.responses]
        self.unique = [Bundle(bundle.prompt, tuple(dict.fromkeys(bundle.responses))) for bundle in bundles]

    def batches(self) -> list[list[int]]:
        places: list[list[int]] = [[] for _ in self.bundles]
        for place, owner in enumerate(self.owners):
            places[owner].append(place)
        return [[place for index in batch for place in places[index]] for batch in cut(self.layout, self.unique, self.tokens)]

    def compute(self, batch: Sequence[int]) -> np.ndarray:
        import numpy as np
        import torch

        chosen = list(dict.fromkeys(self.owners[place] for place in batch))
        with torch.inference_mode():
            values = iter(self.layout.logps(self.model, [self.unique[index] for index in chosen]).tolist())
        numbers: list[float] = []
        for index in chosen:
            known = {response: next(values) for response in self.unique[index].responses}
            numbers += [known[response] for response in self.bundles[index].responses]
        return np.array(numbers)


def score_bundles(
    model: PreTrainedModel, bundles: Sequence[Bundle], layout: Layout, tokens_per_batch: int = 8192
) -> list[list[float]]:
    """Log-probabilities without gradient, [bundles][responses]. Equal responses of a bundle are computed once."""
    scored = ScoredBundles(model, bundles, layout, tokens_per_batch)
    values = iter(computed(scored, len(scored.owners)).tolist())
    return [[next(values) for _ in bundle.responses] for bundle in bundles]
