"""Time limits of trainers that run in the worker: Python is interrupted, anything else takes its process along."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import StageError
from harness.run.executors.local import LocalExecutor
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
    with time_limit(1.0, "quick"):
        timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    assert len(timers) == 2
    for timer in timers:
        timer.join(10)
        assert not timer.is_alive()
    with time_limit(None, "unlimited"):
        pass


def test_code_that_is_stuck_takes_its_process_along() -> None:
    with subprocess.Popen([sys.executable, "-c", STUCK], stderr=subprocess.PIPE, text=True) as process:
        _, said = process.communicate(timeout=120)
    assert process.returncode == TIME_OVER
    assert "the trainer 'stuck' ran longer than its limit and did not end" in said
    worker: Any = SimpleNamespace(process=process, number=0)
    reason = LocalExecutor(1, {}, Path("unused"))._death(worker)
    assert reason.startswith("it ran longer than its time limit and did not end")
