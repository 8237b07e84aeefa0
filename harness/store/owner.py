"""Which machine this is, as a word in files that several machines read."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from pathlib import Path

BOOT = Path("/proc/sys/kernel/random/boot_id")
PROCESSES = Path("/proc/self/ns/pid")


@cache
def machine() -> str:
    """Its host name and, where the system tells them, a short hash of its boot and of who shares its process numbers.

    Containers may share a host name and not their processes: what one of them takes for dead may live in another.
    """
    try:
        told = f"{BOOT.read_text(encoding='ascii').strip()} {PROCESSES.stat().st_ino}"
    except OSError:
        return platform.node()
    return f"{platform.node()}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"
