"""Which machine this is, as a word in files that several machines read."""

from __future__ import annotations

import hashlib
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

LEASE_SECONDS = 60.0  # who was silent for longer holds nothing any more
BEATS_PER_LEASE = 6


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


@contextmanager
def beating(beat: Callable[[], bool]) -> Iterator[None]:
    """Call `beat` from time to time until the block ends, or until it says that it is over."""
    done = threading.Event()

    def live() -> None:
        while not done.wait(LEASE_SECONDS / BEATS_PER_LEASE) and beat():
            pass

    heartbeat = threading.Thread(target=live, daemon=True)
    heartbeat.start()
    try:
        yield
    finally:
        done.set()
        heartbeat.join()
