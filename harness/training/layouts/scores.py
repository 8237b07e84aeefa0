"""Scoring without gradient by the layout that training chooses: the prompt once for all its responses. Imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from harness.models.logps import LOGITS, exact_products, unwrapped, vocabulary_size
from harness.training.layouts.choose import choose_layout
from harness.training.layouts.layout import Bundle, ScoredBundles

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel


class SharedScores:
    """Log-probabilities without gradient, nats, bundle after bundle, batch by batch (a `Batched`), products in float32.

    The layout is that of `auto`. Logits are made for responses alone, and in chunks where the model allows that; elsewhere a
    batch has no more tokens than `LOGITS` pays for. The model's attention implementation is its own between the batches.
    """

    def __init__(self, model: PreTrainedModel, bundles: Sequence[Bundle], tokens_per_batch: int = 8192) -> None:
        self.model = unwrapped(model)
        self.own = self.model.config._attn_implementation
        layout = choose_layout(self.model, work="scoring")
        self.installed = self.model.config._attn_implementation
        self._set(self.own)
        if not layout.head.chunked:
            tokens_per_batch = min(tokens_per_batch, max(1, LOGITS // vocabulary_size(self.model)))
        parts = [part for bundle in bundles for part in _parts(bundle, tokens_per_batch)]
        self.scored = ScoredBundles(model, parts, layout, tokens_per_batch)

    def batches(self) -> list[list[int]]:
        return self.scored.batches()

    def compute(self, batch: Sequence[int]) -> np.ndarray:
        self._set(self.installed)
        try:
            with exact_products():
                return self.scored.compute(batch)
        finally:
            self._set(self.own)

    def _set(self, attention: str) -> None:
        if self.model.config._attn_implementation != attention:
            self.model.set_attn_implementation(attention)


def _parts(bundle: Bundle, tokens: int) -> Iterator[Bundle]:
    """Yield a bundle in parts of at most `tokens` tokens, the prompt in each; none of one without responses."""
    part: list[tuple[int, ...]] = []
    for response in bundle.responses:
        if part and len(bundle.prompt) + sum(map(len, part)) + len(response) > tokens:
            yield Bundle(bundle.prompt, tuple(part))
            part = []
        part.append(response)
    if part:
        yield Bundle(bundle.prompt, tuple(part))
