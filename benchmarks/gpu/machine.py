"""The card, its driver, versions, and the rate of a large matrix product in bfloat16, which utilisation is measured against."""

from __future__ import annotations

import argparse
import platform
import subprocess
import time
from collections.abc import Iterator
from importlib import metadata
from typing import Any

LIBRARIES = ("torch", "transformers", "trl", "accelerate", "liger-kernel", "flash-attn", "triton", "alignment-harness")


def rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    import torch

    cuda = options.device == "cuda"
    row: dict[str, Any] = {"python": platform.python_version(), "versions": versions(), "device": "CPU", "driver": None}
    if cuda:
        if not torch.cuda.is_available():
            yield row | {
                "failed": "no CUDA device is here: --small --device cpu shows that the code works, and measures nothing"
            }
            return
        properties = torch.cuda.get_device_properties(0)
        row |= {"device": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1), "driver": driver()}
        row |= {"cuda": torch.version.cuda, "bfloat16": torch.cuda.is_bf16_supported()}
    yield row | {"products_per_second": product_rate(options.device, 512 if options.small else 8192)}


def product_rate(device: str, size: int) -> float:
    """FLOP/s of a product of two square matrices of random numbers: ten of them, after three that warm up."""
    import torch

    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        left @ right
    synchronize(device)
    began = time.perf_counter()
    for _ in range(10):
        left @ right
    synchronize(device)
    return 10 * 2 * size**3 / (time.perf_counter() - began)


def synchronize(device: str) -> None:
    """Wait for what the device still has to do: CUDA's calls return before their work is done."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.split("\n")[0].strip()
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str]:
    present = {}
    for name in LIBRARIES:
        try:
            present[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return present


def report(rows: list[dict[str, Any]], machine: dict[str, Any]) -> list[str]:
    lines = []
    for row in rows:
        names = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
        card = (
            f"{row['device']}, {row['memory_gib']} GiB, driver {row['driver']}, CUDA {row['cuda']}"
            if row["driver"]
            else row["device"]
        )
        lines.append(f"{card}; Python {row['python']}; {names}.")
        if "products_per_second" in row:
            lines.append(f"A large matrix product in bfloat16 runs at {row['products_per_second'] / 1e12:.3g} TFLOP/s.")
    return lines
