"""Tiny random models of the architectures that the layouts are tested on, and float64 where a model would round."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    GPTJForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    StableLmConfig,
    StableLmForCausalLM,
)
from transformers.models.bloom import BloomConfig, BloomForCausalLM
from transformers.models.mpt import MptConfig, MptForCausalLM

IDS = {"vocab_size": 96, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = {**IDS, **SIZES, "num_key_value_heads": 2}
MIXED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 5}
GPT2_SIZES = {"n_embd": 32, "n_layer": 2, "n_head": 4}
NO_DROPOUT = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}

Make = Callable[[], PreTrainedModel]

HONOURING: dict[str, Make] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**GROUPED)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**GROUPED, sliding_window=None)),
    "mistral sliding": lambda: MistralForCausalLM(MistralConfig(**GROUPED, sliding_window=5)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**GROUPED)),
    "qwen2 mixed": lambda: Qwen2ForCausalLM(Qwen2Config(**GROUPED, **MIXED, use_sliding_window=True)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**GROUPED, head_dim=8)),
    "gemma3": lambda: Gemma3ForCausalLM(Gemma3TextConfig(**GROUPED, **MIXED, head_dim=8)),
    "phi3": lambda: Phi3ForCausalLM(Phi3Config(**GROUPED)),
    "gpt_neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**IDS, **SIZES)),
    "opt": lambda: OPTForCausalLM(
        OPTConfig(
            **IDS, hidden_size=32, word_embed_proj_dim=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, dropout=0.0
        )
    ),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**IDS, **GPT2_SIZES, **NO_DROPOUT)),
}
FAILING: dict[str, tuple[Make, str]] = {
    "falcon": (
        lambda: FalconForCausalLM(FalconConfig(**IDS, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)),
        "set",
    ),
    "bloom": (lambda: BloomForCausalLM(BloomConfig(**IDS, hidden_size=32, n_layer=2, n_head=4)), "cannot be set"),
    "mpt": (lambda: MptForCausalLM(MptConfig(**IDS, d_model=32, n_layers=2, n_heads=4)), "cannot be set"),
    "gptj": (lambda: GPTJForCausalLM(GPTJConfig(**IDS, **GPT2_SIZES, **NO_DROPOUT, rotary_dim=4)), "cannot be set"),
    "stablelm": (lambda: StableLmForCausalLM(StableLmConfig(**GROUPED)), "never reached its attention"),
    "gpt2 with dropout": (lambda: GPT2LMHeadModel(GPT2Config(**IDS, **GPT2_SIZES)), r"it has dropout \(nn.Dropout\)"),
}


def make(build: Make) -> PreTrainedModel:
    """The model with weights large enough that attention is far from uniform; in training mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build()
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape)
                parameter.copy_(0.3 * noise if parameter.dim() > 1 else parameter + 0.1 * noise)
    return model.train()


def exact(model: PreTrainedModel) -> PreTrainedModel:
    """In float64, RMSNorm included, which computes in float32 whatever the model's type."""
    model.double()
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = _norm(module)
    return model


def _norm(module: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    epsilon = getattr(module, "variance_epsilon", None) or module.eps
    shift = 1.0 if "Gemma" in type(module).__name__ else 0.0

    def forward(states: torch.Tensor) -> torch.Tensor:
        return (module.weight + shift) * states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + epsilon)

    return forward
