"""A small float32 copy of an architecture with random weights: what the probe can afford to run.

Imports torch and transformers; import it where training begins.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import PreTrainedModel

VOCABULARY = 128
HEAD = 16  # dimension of a head
WINDOW = 4  # a sliding window that bites on the probe's few tokens
WIDTHS = (
    "intermediate_size",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
    "ffn_dim",
    "n_inner",
    "ffn_hidden_size",
)


def shrink(config: Any) -> Any:
    """The configuration with fewer layers (one of each type, at least two), heads, channels and tokens.

    Everything that decides how attention works stays: kinds of layer and of positions, heads per group, scales.
    """
    small = copy.deepcopy(config)
    _fewer_layers(small)
    _fewer_heads(small)
    for name in WIDTHS:
        if getattr(small, name, None):
            setattr(small, name, 64)
    if getattr(small, "word_embed_proj_dim", None):
        small.word_embed_proj_dim = small.hidden_size
    if getattr(small, "sliding_window", None):
        small.sliding_window = WINDOW
    small.vocab_size = min(small.vocab_size, VOCABULARY)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(small, name, None)
    return small


def build(model: PreTrainedModel, config: Any) -> PreTrainedModel:
    """A model of the same class, weights drawn so that attention is far from uniform; the global generator is untouched."""
    with torch.random.fork_rng(devices=[]):
        twin: PreTrainedModel = type(model)._from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in twin.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(0.2 * noise)
            else:
                parameter.add_(0.1 * noise)
    for module in twin.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return twin


def _fewer_layers(config: Any) -> None:
    kinds = getattr(config, "layer_types", None)
    if kinds:
        kept = list(dict.fromkeys(kinds))
        config.num_hidden_layers = max(2, len(kept))
        config.layer_types = (kept * 2)[: config.num_hidden_layers]
    else:
        config.num_hidden_layers = min(2, config.num_hidden_layers)


def _fewer_heads(config: Any) -> None:
    """At most two heads of keys, with as many heads of queries each as before."""
    heads = config.num_attention_heads
    keys = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = min(keys, 2)
    config.num_attention_heads = kept * (heads // keys)
    if getattr(config, "num_key_value_heads", None):
        config.num_key_value_heads = kept
    if getattr(config, "head_dim", None) and "head_dim" in vars(config):
        config.head_dim = HEAD
    config.hidden_size = config.num_attention_heads * HEAD
    rope = getattr(config, "rope_parameters", None)
    for name in ("short_factor", "long_factor"):  # one factor per pair of channels
        if rope and rope.get(name):
            rope[name] = rope[name][: max(1, len(rope[name]) * HEAD // size)]
