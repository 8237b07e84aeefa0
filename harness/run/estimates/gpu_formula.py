"""What work costs on a GPU: floating-point operations, bytes and seconds. docs/estimates.md writes these formulas down.

They are rules of thumb with stated constants, good for 'one GPU or eight, an hour or a week', not for a schedule.
"""

from __future__ import annotations

from harness.run.estimates.gpus import Gpu
from harness.models.size import ModelSize
from harness.training.settings import SftSettings, TrainingSettings

COMPUTE = 0.4  # share of the peak that training, scoring and reading prompts reach
DECODING = 0.6  # share of the bandwidth that decoding reaches
ROWS = 256  # sequences decoded side by side, where memory allows
FREE = 0.9  # share of a GPU's memory that is there to be used
OVERHEAD = 1.5 * 2**30  # bytes: CUDA's context, workspaces, fragments
LOGITS = 2**26  # logits that are kept at once while preferences are trained and scored
GIB = 2**30


def forward_flops(size: ModelSize, tokens: float, length: float) -> float:
    """Of one pass over `tokens` in sequences of `length`: 2 a weight and token, and causal attention's two products."""
    return 2 * size.multiplied * tokens + 2 * size.layers * size.attention * length * tokens


def training_flops(size: ModelSize, tokens: float, length: float, settings: SftSettings | TrainingSettings) -> float:
    """Forward once; backward twice, or once where only adapters are trained; forward again where layers are recomputed."""
    passes = (2 if settings.lora else 3) + settings.gradient_checkpointing
    return passes * forward_flops(size, tokens, length)


def compute_seconds(flops: float, gpu: Gpu, *, single: bool = False) -> float:
    """Return the seconds of products in bfloat16, or in float32 (`single`), as scores are computed."""
    return flops / ((gpu.single if single else gpu.flops) * COMPUTE)


def decoding_rows(size: ModelSize, gpu: Gpu, length: float) -> int:
    """How many sequences are decoded side by side: `ROWS`, or what is left beside the weights for their keys and values."""
    left = gpu.memory * GIB * FREE - OVERHEAD - 2 * size.parameters
    return max(1, min(ROWS, int(left // max(1.0, length * size.cache_bytes))))


def generation_seconds(size: ModelSize, gpu: Gpu, prompts: float, samples: float, lengths: tuple[float, float]) -> float:
    """Prompts read once each; then a step a token, which reads all weights once for all rows and each row's keys and values."""
    prompt, response = lengths
    rows = min(decoding_rows(size, gpu, prompt + response), max(1.0, samples))
    step = (2 * size.parameters + rows * (prompt + response / 2) * size.cache_bytes) / (gpu.bandwidth * DECODING)
    decoding = samples / rows * response * step
    computing = compute_seconds(forward_flops(size, samples * response, prompt + response), gpu)
    return compute_seconds(forward_flops(size, prompts * prompt, prompt), gpu) + max(decoding, computing)


def state_bytes(size: ModelSize, settings: SftSettings | TrainingSettings, weight_bytes: float) -> float:
    """Weights, gradients and AdamW's two moments on each GPU: 16 bytes a trained parameter, all in float32.

    Args:
        weight_bytes: of a weight that stays as it is, where adapters are trained.
    """
    if settings.lora:
        return weight_bytes * size.parameters + 16 * settings.lora.rank * size.linear
    if settings.devices is None or settings.devices.strategy == "replicated":
        return 16 * size.parameters
    gathered = 2 * 4 * size.parameters / size.layers  # two layers at a time are whole
    share = size.parameters / settings.devices.count
    parts = {"fsdp": 16 * share + gathered, "fsdp_offload": gathered, "deepspeed_zero2": 4 * size.parameters + 12 * share}
    return parts.get(settings.devices.strategy, 16 * share + gathered)


def activation_bytes(size: ModelSize, tokens: float, *, recomputed: bool) -> float:
    """What backward needs of `tokens` in one pass, matrix products in bfloat16: measured on Llama, a little high for others."""
    layer = 26 * size.hidden + 4 * size.attention + 4 * size.keys + 8 * size.intermediate
    if recomputed:
        return tokens * (4 * size.hidden * size.layers + layer)
    return tokens * layer * size.layers


def logits_bytes(size: ModelSize, tokens: float, *, whole: bool) -> float:
    """Logits in bfloat16 and float32 and their gradient; `whole` where no bound is kept on them, as in SFT by TRL."""
    kept = tokens * size.vocabulary
    return 10 * (kept if whole else min(kept, LOGITS))
