"""`training.layout` and a model -> the layout to train with, or to score with."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from harness.errors import StageError
from harness.models.logps import LOGITS, exact_products, unwrapped, vocabulary_size
from harness.training.layouts.layout import Bundle, Layout, ScoredBundles
from harness.training.layouts.padded import ExpandedPairs, UniqueRows

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel

Attention = Literal["sdpa", "flex", "varlen"]
LayoutName = Literal["auto", "shared_prefix", "unique", "expanded"]


class LayoutWarning(UserWarning):
    """A model does not honour the shared-prefix layout, and computes with padded rows, more slowly."""


def wrong_attention(attention: Attention) -> str | None:
    """Return why a way to attend cannot be used on this machine, and the fix; None if it can."""
    if attention == "sdpa":
        return None
    import torch

    if not torch.cuda.is_available():
        return "it needs a CUDA device, and this machine has none: choose 'sdpa'"
    if attention == "varlen" and find_spec("torch.nn.attention.varlen") is None:
        return f"PyTorch has it from 2.10 on, and {torch.__version__} is installed: choose 'sdpa' or 'flex'"
    return None


def choose_layout(
    model: PreTrainedModel, name: LayoutName = "auto", attention: Attention = "sdpa", work: str = "training"
) -> Layout:
    """The layout by name; `auto` is `shared_prefix` where the probe passes, else `unique` with one warning that says why.

    A model with low-rank adapters is taken by the model inside PEFT's wrapper. The shared-prefix layout sets the model's
    attention implementation, for as long as the model lives.

    Args:
        attention: how the shared-prefix layout attends.
        work: for the warning.

    Raises:
        StageError: `shared_prefix` was asked for by name, and the model does not honour it; or `attention` does not give the
            numbers of sdpa on this device.
    """
    from harness.training.layouts.attention import install
    from harness.training.layouts.probe import check_attention, choose_head, choose_shared_prefix

    model = unwrapped(model)
    if name == "expanded":
        return ExpandedPairs(choose_head(model))
    if name == "unique":
        return UniqueRows(head=choose_head(model))
    try:
        layout = choose_shared_prefix(model)
    except NotImplementedError as error:
        kind = type(model).__name__
        if name == "shared_prefix":
            raise StageError(f"training.layout = 'shared_prefix': {kind} does not honour it: {error}; use 'auto'") from error
        message = f"{kind} does not honour the shared-prefix layout ({error}); {work} with padded rows, which is slower"
        warnings.warn(message, LayoutWarning, stacklevel=2)
        return UniqueRows(message, choose_head(model))
    try:
        check_attention(model.device, attention)
    except Exception as error:  # a kernel may fail in any way
        raise StageError(f"training.attention = {attention!r} does not work here: {error}; use 'sdpa'") from error
    layout.attention = attention
    install(model)
    return layout


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
