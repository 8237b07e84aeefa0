"""What a living process touches from time to time, so that other machines see that it lives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LEASE_SECONDS = 60.0  # who was silent for longer holds nothing any more
BEATS_PER_LEASE = 6


@contextmanager
def beating(beat: Callable[[], bool]) -> Iterator[None]:
    """Call `beat` from time to time until the block ends, or until it says that it is over."""
    done = threading.Event()

    def live() -> None:
        while not done.wait(LEASE_SECONDS / BEATS_PER_LEASE) and beat():
            pass

    heart = threading.Thread(target=live, daemon=True)
    heart.start()
    try:
        yield
    finally:
        done.set()
        heart.join()
