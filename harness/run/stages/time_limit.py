"""A time limit for code that runs in this process, such as a trainer of a plugin's."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from harness.errors import StageError

GRACE_SECONDS = 60.0  # for the code to come back to Python after its time is over
TIME_OVER = 75  # exit code of a worker whose stage did not end in time


@contextmanager
def time_limit(hours: float | None, title: str) -> Iterator[None]:
    """End the block by an error when its time is over, also while it sleeps or waits.

    A signal's handler raises the error, which ends whatever Python code runs. Code that never comes back to Python (a library
    in an endless loop) takes the process along a minute later, and its executor says so. In another thread than the main one,
    where Python runs no handlers, there is no limit.

    Args:
        hours: None for no limit.
        title: what runs, for the error.

    Raises:
        StageError: the time is over.
    """
    if hours is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    limit = hours

    def end(number: int, frame: FrameType | None) -> None:
        raise StageError(f"{title} ran longer than its limit of {limit:g} hours and was ended: raise it")

    # Not SIGALRM, which math-verify sets for its own limits.
    before = signal.signal(signal.SIGUSR1, end)
    timers = [
        threading.Timer(3600 * limit, signal.pthread_kill, (threading.main_thread().ident, signal.SIGUSR1)),
        threading.Timer(3600 * limit + GRACE_SECONDS, _exit, (title,)),
    ]
    for timer in timers:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        signal.signal(signal.SIGUSR1, before)


def _exit(title: str) -> None:
    sys.stderr.write(f"{title} ran longer than its limit and did not end: this process is ended\n")
    sys.stderr.flush()
    os._exit(TIME_OVER)
