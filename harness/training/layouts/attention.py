"""Attention over a row of prompts and responses: ordinary attention calls on its parts, or a kernel that knows the structure.

Registered with transformers under `IMPLEMENTATION`. A forward pass that brings a `Segments` as the keyword `SEGMENTS` gets
structured attention: prompts causal among themselves, then each response over [its prompt's keys and values | its own]. Any
other pass (generation, evaluation, padded rows) goes through to transformers' sdpa. The structure travels with the call and
not in a context, because gradient checkpointing calls the layers again in backward, after any context has ended.

Imports torch and transformers; import it where training begins.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from harness.training.layouts.choose import Attention
from harness.training.layouts.layout import Bundle

IMPLEMENTATION = "harness_shared_prefix"
SEGMENTS = "shared_prefix_segments"
T = TypeVar("T")


@dataclass
class Segments:
    """The places in a row of T tokens: all prompts back to back, then all responses in the prompts' order.

    Attributes:
        prompts: tokens of each prompt, [G].
        responses: tokens of each response, [N].
        owners: the prompt of each response, [N].
        attention: how it is computed.
        calls: how often a layer's attention has used this.
    """

    prompts: list[int]
    responses: list[int]
    owners: list[int]
    attention: Attention = "sdpa"
    calls: int = 0
    _kept: dict[Hashable, object] = field(default_factory=dict)

    @classmethod
    def of(cls, bundles: Sequence[Bundle], attention: Attention = "sdpa") -> Segments:
        return cls(
            [len(bundle.prompt) for bundle in bundles],
            [len(response) for bundle in bundles for response in bundle.responses],
            [index for index, bundle in enumerate(bundles) for _ in bundle.responses],
            attention,
        )

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt with a response."""
        spans = (self.prompts[owner] + length for owner, length in zip(self.owners, self.responses, strict=True))
        return max([*self.prompts, *spans])

    def kept(self, name: Hashable, build: Callable[[], T]) -> T:
        """Return what the first layer has built under a name: one copy to the device for all layers."""
        if name not in self._kept:
            self._kept[name] = build()
        return cast(T, self._kept[name])

    def mask(self, window: int | None, device: torch.device) -> tuple[Tensor | None, Tensor]:
        """Return which keys a query sees, True where it does; a sliding window goes by distance of positions.

        Returns:
            Of prompts, [1, 1, P, P], or None where plain causal attention will do; of responses, [N, 1, R, P + R]. Every
            query sees itself, padding too, so that no row of the softmax is empty.
        """

        def build() -> tuple[Tensor | None, Tensor]:
            longest = max(self.prompts)
            place = torch.arange(longest, device=device)
            distance = place[:, None] - place
            among = ((distance >= 0) & (distance < window))[None, None] if window and window < longest else None
            return among, self._response_mask(window, place)

        return self.kept((window, device), build)

    def _response_mask(self, window: int | None, place: Tensor) -> Tensor:
        prefix = torch.tensor([self.prompts[owner] for owner in self.owners], device=place.device)[:, None]  # [N, 1]
        own = prefix + torch.arange(max(self.responses), device=place.device)  # positions, [N, R]
        keys = torch.cat([place.expand(len(own), -1), own], 1)  # positions, [N, P + R]
        distance = own[:, :, None] - keys[:, None]  # [N, R, P + R]
        seen = distance >= 0
        seen[:, :, : len(place)] &= (place < prefix)[:, None]  # not the padding after a shorter prompt
        if window:
            seen &= distance < window
        return seen[:, None]


def register() -> None:
    """Make the implementation known to transformers. Idempotent."""
    AttentionInterface.register(IMPLEMENTATION, shared_prefix_attention)
    AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)


def install(model: PreTrainedModel) -> None:
    """Set the implementation, for as long as the model is trained."""
    register()
    if model.config._attn_implementation != IMPLEMENTATION:
        model.set_attn_implementation(IMPLEMENTATION)


def shared_prefix_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """An attention function as transformers calls it: query [B, heads, T, D] -> [B, T, heads, D]."""
    segments: Segments | None = options.pop(SEGMENTS, None)
    if segments is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)  # type: ignore[no-any-return]
    segments.calls += 1
    for name in ("softcap", "s_aux", "position_bias", "cache"):
        if options.get(name) is not None:
            raise NotImplementedError(f"its attention has {name!r}")
    if options.get("dropout") or options.get("is_causal") is False or query.shape[2] != key.shape[2]:
        raise NotImplementedError("its attention has dropout, is not causal, or has keys besides its queries'")
    window = options.get("sliding_window") or None
    scaling = options.get("scaling")
    if segments.attention != "sdpa":
        states = _in_one_type((query, key, value))
        if segments.attention == "flex":
            from harness.training.layouts import flex as kernels
        else:
            from harness.training.layouts import varlen as kernels  # type: ignore[no-redef]
        return kernels.attend(segments, states, window, scaling), None

    def attend(states: Sequence[Tensor], mask: Tensor | None) -> Tensor:
        """[B, L, heads, D] of query, key and value -> [B, L, heads, D]."""
        turned = [state.transpose(1, 2) for state in states]
        return sdpa_attention_forward(module, *turned, mask, scaling=scaling, is_causal=mask is None)[0]  # type: ignore[no-any-return]

    return _attend_segments(segments, (query, key, value), window, attend), None


def _in_one_type(states: Sequence[Tensor]) -> list[Tensor]:
    """Return query, key and value as autocast has them for sdpa; for other kernels it does nothing."""
    device = states[0].device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states[2].dtype
    return [state.to(dtype) for state in states]


def _attend_segments(segments: Segments, states: Sequence[Tensor], window: int | None, attend: Any) -> Tensor:
    """Attend in two calls: prompts as a batch of G, then responses as a batch of N.

    A mask over the whole row would do as well, at a cost of T × T for tokens most of which do not see each other.
    """
    flat = [state[0].transpose(0, 1) for state in states]  # [T, heads, D] each
    among, across = segments.mask(window, flat[0].device) if max(segments.responses) else (None, None)
    total = sum(segments.prompts)
    prompts = [pad(state[:total], segments.prompts) for state in flat]  # [G, P, heads, D]
    outputs = [unpad(attend(prompts, among), segments.prompts)]
    if across is not None:
        query, *own = (pad(state[total:], segments.responses) for state in flat)  # [N, R, heads, D]
        owners = segments.kept(("owners", query.device), lambda: torch.tensor(segments.owners, device=query.device))
        # The keys and values of a prompt are computed once and copied for each of its responses; `index_select` adds the
        # copies' gradients up in backward, as if each response had come with its own prompt.
        both = [torch.cat([prompt.index_select(0, owners), mine], 1) for prompt, mine in zip(prompts[1:], own, strict=True)]
        outputs.append(unpad(attend([query, *both], across), segments.responses))
    return torch.cat(outputs)[None]


def pad(states: Tensor, lengths: Sequence[int]) -> Tensor:
    """Back to back -> side by side, zeros at the end: [sum of lengths, …] -> [B, longest, …]; a view if lengths are equal."""
    longest = max(lengths)
    if min(lengths) == longest:
        return states.reshape(len(lengths), longest, *states.shape[1:])
    zeros = states.new_zeros((longest, *states.shape[1:]))
    pieces = [part for piece in torch.split(states, list(lengths)) for part in (piece, zeros[len(piece) :])]
    return torch.cat(pieces).reshape(len(lengths), longest, *states.shape[1:])


def unpad(states: Tensor, lengths: Sequence[int]) -> Tensor:
    """The inverse of `pad`: [B, longest, …] -> [sum of lengths, …]."""
    longest = states.shape[1]
    if min(lengths) == longest:
        return states.flatten(0, 1)
    sizes = [size for length in lengths for size in (length, longest - length)]
    return torch.cat(torch.split(states.flatten(0, 1), sizes)[::2])
