"""The shared-prefix layout's attention by PyTorch's FlexAttention: one call over the row, its mask in blocks.

Blocks of 128 × 128 that nobody sees are left out, so no key is copied for a response and no mask of T × T is kept. PyTorch
has no backward of it on CPUs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

if TYPE_CHECKING:
    from harness.training.layouts.attention import Segments

PROMPT = -1  # in place of a response's number


def attend(segments: Segments, states: Sequence[Tensor], window: int | None, scaling: float | None) -> Tensor:
    """Attend by a row's structure.

    Args:
        states: query, key and value, [1, heads, T, D]; keys and values may have fewer heads.

    Returns:
        [1, T, heads, D].
    """
    query, key, value = states
    mask = segments.kept(("flex", window, query.device), lambda: _block_mask(segments, window, query.device))
    grouped = query.shape[1] != key.shape[1]
    output = _compiled(query.is_cuda)(query, key, value, block_mask=mask, scale=scaling, enable_gqa=grouped)
    return output.transpose(1, 2)  # type: ignore[no-any-return]


@cache
def _compiled(cuda: bool) -> Any:
    # Micro-batches are of many lengths: `dynamic` compiles once for all of them.
    return torch.compile(flex_attention, dynamic=True) if cuda else flex_attention


def _block_mask(segments: Segments, window: int | None, device: torch.device) -> BlockMask:
    lengths = [*segments.prompts, *segments.responses]
    counts = torch.tensor(lengths)
    owners = torch.tensor([*range(len(segments.prompts)), *segments.owners])
    numbers = torch.tensor([PROMPT] * len(segments.prompts) + list(range(len(segments.responses))))
    starts = torch.tensor([0] * len(segments.prompts) + [segments.prompts[owner] for owner in segments.owners])
    # One place for each token: its position is its part's start and the tokens of that part before it.
    within = torch.arange(sum(lengths)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    bundle, number, position = (
        table.to(device)
        for table in (
            owners.repeat_interleave(counts),
            numbers.repeat_interleave(counts),
            starts.repeat_interleave(counts) + within,
        )
    )

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same = (bundle[query] == bundle[key]) & ((number[key] == PROMPT) | (number[key] == number[query]))
        distance = position[query] - position[key]
        seen = same & (distance >= 0)
        return seen & (distance < window) if window else seen

    total = sum(lengths)
    return create_block_mask(sees, None, None, total, total, device=device, _compile=device.type == "cuda")
