"""Signals that wait."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from harness.run.executors.ray import Deferred


def test_a_signal_waits_for_its_moment() -> None:
    before = signal.signal(signal.SIGTERM, mine := lambda number, frame: sys.exit(128 + number))
    try:
        with pytest.raises(SystemExit) as left, Deferred() as signals:
            signals.handle()
            os.kill(os.getpid(), signal.SIGTERM)
            assert signal.getsignal(signal.SIGTERM) is not mine
            signals.handle()
        assert left.value.code == 143
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)
