"""What signals do: SIGTERM and a second Ctrl-C end at once, the first Ctrl-C lets running stages end."""

from __future__ import annotations

import contextlib
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.run.executors.events import Stop

KEPT = "what was finished is kept, and the same command goes on from there"


def leave(number: int, frame: FrameType | None) -> None:
    """End on a signal with the shell's exit code for it (130, 143); workers are stopped on the way out."""
    what = "interrupted" if number == signal.SIGINT else "terminated"
    _say(f"{what}; {KEPT}")
    sys.exit(128 + number)


def finish_first(stop: Stop) -> None:
    """The first Ctrl-C asks the run to end after the stages that are running; the second ends it at once."""

    def asked(number: int, frame: FrameType | None) -> None:
        if stop.asked:
            leave(number, frame)
        stop.ask()  # before a word of it: who reads that may press again at once
        _say("the running stages are finished first; press Ctrl-C again to end at once")

    signal.signal(signal.SIGINT, asked)


def _say(line: str) -> None:
    """A line on the standard error. That nobody can read it, or that the signal came amidst another line, changes nothing."""
    with contextlib.suppress(OSError, RuntimeError):
        sys.stderr.write(f"{line}\n")
