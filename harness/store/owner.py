"""The name of this machine in files that several machines share, and the heartbeat of a living process."""

from __future__ import annotations

import hashlib
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

LEASE_SECONDS = 60.0  # a lease that was not touched for longer is stale
BEATS_PER_LEASE = 6


BOOT = Path("/proc/sys/kernel/random/boot_id")


PROCESSES = Path("/proc/self/ns/pid")


@cache
def machine() -> str:
    """Return the host name and, where the system gives them, a short hash of the boot and of the process namespace.

    Containers may share a host name but not their processes: a process that one of them takes for dead may live in another.
    """
    try:
        identity = f"{BOOT.read_text(encoding='ascii').strip()} {PROCESSES.stat().st_ino}"
    except OSError:
        return platform.node()
    return f"{platform.node()}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


@contextmanager
def beating(beat: Callable[[], bool]) -> Iterator[None]:
    """Heartbeat: call `beat` six times per lease in the background until the block ends or `beat` returns False."""
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
