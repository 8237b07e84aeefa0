"""GPUs by name: memory, speed and bandwidth, from their makers' data sheets (dense, no sparsity)."""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import HarnessError, did_you_mean


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        memory: GiB.
        flops: bfloat16 products a second with sums in float32, peak.
        bandwidth: of its memory, bytes a second, peak.
        single: float32 products a second, peak, not by way of TF32.
    """

    name: str
    memory: float
    flops: float
    bandwidth: float
    single: float


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("l4-24gb", 24, 121e12, 300e9, 30e12),
        Gpu("a10g-24gb", 24, 70e12, 600e9, 35e12),
        Gpu("rtx3090-24gb", 24, 71e12, 936e9, 36e12),
        Gpu("rtx4090-24gb", 24, 165e12, 1008e9, 83e12),
        Gpu("rtx5090-32gb", 32, 210e12, 1792e9, 105e12),
        Gpu("l40s-48gb", 48, 362e12, 864e9, 92e12),
        Gpu("a100-40gb", 40, 312e12, 1555e9, 19.5e12),
        Gpu("a100-80gb", 80, 312e12, 2039e9, 19.5e12),
        Gpu("h100-80gb", 80, 989e12, 3350e9, 67e12),
        Gpu("h200-141gb", 141, 989e12, 4800e9, 67e12),
        Gpu("b200-180gb", 180, 2250e12, 8000e9, 75e12),
    )
}


def gpu_of(name: str) -> Gpu:
    """By name, in any case.

    Raises:
        HarnessError: there is none; names those that are close, or all.
    """
    found = GPUS.get(name.lower())
    if found is None:
        raise HarnessError(f"--gpu {name!r}: {did_you_mean(name.lower(), GPUS)}")
    return found
