"""Time limits of trainers that run in the worker: Python is interrupted, anything else takes its process along."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest

from harness.errors import StageError
from harness.run.stages.time_limit import TIME_OVER, time_limit

SOON = 0.05 / 3600
# Never comes back to Python's own loop: signals are blocked, as a library in native code would have it.
STUCK = f"""
import signal, time
from harness.run.stages import time_limit
time_limit.GRACE_SECONDS = 0.1
with time_limit.time_limit({SOON}, "the trainer 'stuck'"):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    time.sleep(600)
"""


def test_a_sleep_is_interrupted_and_the_handler_is_put_back() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with (
        pytest.raises(StageError, match="the trainer 'slow' ran longer than its limit"),
        time_limit(SOON, "the trainer 'slow'"),
    ):
        time.sleep(600)
    assert signal.getsignal(signal.SIGUSR1) == before


def test_what_ends_in_time_is_left_alone() -> None:
    threads = threading.active_count()
    with time_limit(1.0, "quick"):
        pass
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(10)
    assert threading.active_count() == threads
    with time_limit(None, "unlimited"):
        pass


def test_code_that_is_stuck_takes_its_process_along() -> None:
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=120)
    assert done.returncode == TIME_OVER
    assert "the trainer 'stuck' ran longer than its limit and did not end" in done.stderr
