"""The shared-prefix layout's attention by variable-length kernels (FlashAttention, in PyTorch from 2.10 on): no key is copied.

Two calls: prompts and responses each among themselves, causal; then the responses of each prompt together over its keys. Their
softmaxes are put together by the logarithms of their sums. Backward runs the kernel's own for each call with the output and
the sums of both: that is each call's part of the whole gradient, as in ring attention (arXiv 2310.01889).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from harness.errors import StageError

if TYPE_CHECKING:
    from harness.training.layouts.attention import Segments


@dataclass(frozen=True)
class Spans:
    """The sequences of one call.

    Attributes:
        queries: where each one's queries begin, and where the last ends, [sequences + 1], int32.
        keys: the same of keys and values.
        longest: the most queries and the most keys of a sequence.
        causal: whether a query sees the keys up to its own; otherwise all.
    """

    queries: Tensor
    keys: Tensor
    longest: tuple[int, int]
    causal: bool

    @classmethod
    def of(cls, queries: Sequence[int], keys: Sequence[int], causal: bool, device: torch.device) -> Spans:
        """Return them by the sequences' lengths."""

        def edges(lengths: Sequence[int]) -> Tensor:
            return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)

        return cls(edges(queries), edges(keys), (max(queries), max(keys)), causal)


class Kernel(Protocol):
    """Attention over sequences back to back; query [T, heads, D], key and value [K, heads or fewer, D]."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, spans: Spans, scaling: float | None) -> tuple[Tensor, Tensor]:
        """Return the output, [T, heads, D], and the logarithms of the softmaxes' sums, [heads, T], in float32."""
        ...

    def backward(
        self, gradient: Tensor, states: Sequence[Tensor], output: Tensor, sums: Tensor, spans: Spans, scaling: float | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of query, key and value."""
        ...


class TorchKernel:
    """PyTorch's `varlen_attn`. Its public function has no sums of two calls in backward, so the operators are called."""

    def __init__(self) -> None:
        import torch.nn.attention.varlen  # registers them

        self.operators = torch.ops.torch_attn

    def forward(self, query: Tensor, key: Tensor, value: Tensor, spans: Spans, scaling: float | None) -> tuple[Tensor, Tensor]:
        if query.dtype not in (torch.bfloat16, torch.float16):
            raise StageError(
                "training.attention = 'varlen' computes in 16 bits alone: set training.precision = 'bfloat16', or take 'flex'"
            )
        grouped = query.shape[1] != key.shape[1]
        arguments = (query, key, value, spans.queries, spans.keys, *spans.longest, spans.causal, scaling, None, grouped)
        output, sums, _ = self.operators._varlen_attn(*arguments)
        return output, sums

    def backward(
        self, gradient: Tensor, states: Sequence[Tensor], output: Tensor, sums: Tensor, spans: Spans, scaling: float | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        no_dropout = torch.zeros(2, dtype=torch.uint64, device=gradient.device)
        tensors = (gradient, *states, output, sums, spans.queries, spans.keys)
        gradients = self.operators._varlen_attn_backward(*tensors, *spans.longest, spans.causal, no_dropout, scaling)
        return tuple(gradients)


@dataclass(frozen=True)
class Calls:
    """The calls of one row.

    Attributes:
        prompts: tokens of all prompts, which come first in the row.
        alone: every prompt and every response among itself.
        across: the responses of each prompt over it.
    """

    prompts: int
    alone: Spans
    across: Spans

    @classmethod
    def of(cls, segments: Segments, device: torch.device) -> Calls:
        parts = [*segments.prompts, *segments.responses]
        responses = [0] * len(segments.prompts)
        for owner, length in zip(segments.owners, segments.responses, strict=True):
            responses[owner] += length
        alone = Spans.of(parts, parts, True, device)
        return cls(sum(segments.prompts), alone, Spans.of(responses, segments.prompts, False, device))


def attend(segments: Segments, states: Sequence[Tensor], window: int | None, scaling: float | None) -> Tensor:
    """Attend by a row's structure.

    Args:
        states: query, key and value, [1, heads, T, D]; keys and values may have fewer heads.

    Returns:
        [1, T, heads, D].

    Raises:
        StageError: a sliding window hides a part of a prompt from its responses, or the numbers have 32 bits.
    """
    if window and window < segments.longest:
        raise StageError(
            f"training.attention = 'varlen' has no sliding windows, and the model's of {window} tokens is shorter than a row "
            f"of {segments.longest}: choose 'flex' or 'sdpa'"
        )
    query, key, value = (state[0].transpose(0, 1) for state in states)  # [T, heads, D]
    calls = segments.kept(("varlen", query.device), lambda: Calls.of(segments, query.device))
    return _Attention.apply(query, key, value, calls, scaling, TorchKernel())[None]  # type: ignore[no-any-return, no-untyped-call]


class _Attention(torch.autograd.Function):
    """Query, key and value of the whole row, [T, heads, D] -> [T, heads, D]."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, calls: Calls, scaling: float | None, kernel: Kernel
    ) -> Tensor:
        first = calls.prompts
        output, sums = kernel.forward(query, key, value, calls.alone, scaling)
        if first < len(query):
            prompt, prompt_sums = kernel.forward(query[first:], key[:first], value[:first], calls.across, scaling)
            own, own_sums = output[first:], sums[:, first:]
            both = torch.logaddexp(own_sums, prompt_sums)
            # Each call's share of the whole softmax, [tokens, heads, 1].
            shares = [(part - both).exp().T[..., None] for part in (own_sums, prompt_sums)]
            merged = (own * shares[0] + prompt * shares[1]).to(output.dtype)
            output, sums = torch.cat([output[:first], merged]), torch.cat([sums[:, :first], both], 1)
        ctx.save_for_backward(query, key, value, output, sums)
        ctx.calls, ctx.scaling, ctx.kernel = calls, scaling, kernel
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        query, key, value, output, sums = ctx.saved_tensors
        calls, first, gradient = ctx.calls, ctx.calls.prompts, gradients[0].contiguous()
        alone = ctx.kernel.backward(gradient, (query, key, value), output, sums, calls.alone, ctx.scaling)
        if first < len(query):
            states = query[first:], key[:first], value[:first]
            # The kernel makes softmaxes again from the sums: with those of both calls they are parts of the whole.
            across = ctx.kernel.backward(
                gradient[first:], states, output[first:], sums[:, first:].contiguous(), calls.across, ctx.scaling
            )
            alone[0][first:] += across[0]
            alone[1][:first] += across[1]
            alone[2][:first] += across[2]
        return (*alone, None, None, None)
