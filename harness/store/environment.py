"""The environment that decides numbers beside the config: library versions and the kind of device. No library is imported."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

DECIDING = ("torch", "transformers", "tokenizers", "trl", "lm-eval", "numpy", "scikit-learn", "safetensors")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide results; absent ones are left out."""
    found = {"python": platform.python_version()}
    for name in DECIDING:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def device_kind() -> str:
    """Return `cuda` if there are a GPU and a build of torch for it, else `cpu`."""
    built_for_cpu = "+cpu" in versions().get("torch", "")
    return "cuda" if Path("/dev/nvidia0").exists() and not built_for_cpu else "cpu"


def environment() -> dict[str, str]:
    """Return the part of artifact keys that changes with a library's upgrade or another kind of device.

    On a GPU they also say that scores are float32: what was made while they were bfloat16 is not found.
    """
    found, device = versions(), device_kind()
    scoring = {"scoring": "float32"} if device == "cuda" else {}
    return {"device": device, **scoring, **{name: found[name] for name in DECIDING if name in found}}


def cpu_kind() -> str:
    """Return the processor's kind as far as it decides the last bits of sums, such as `x86_64 avx512`; in no key.

    Kernels are chosen by these instruction sets (docs/reproducibility.md).
    """
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return platform.machine()
    sets = [name for name, flag in (("avx512", "avx512f"), ("avx2", "avx2")) if flag in flags]
    return " ".join([platform.machine(), *sets[:1]])
