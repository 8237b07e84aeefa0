"""`python -m harness.models.supervise COMMAND…`: run a program and end all of it when standard input closes.

The kernel closes the pipe however the parent dies, so a program never outlives the worker that asked for it. The program gets a
process group of its own, whose members are ended together: engines and trainers start processes of theirs. Those that leave the
group are adopted by this process (Linux's child subreaper), and ended too.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from types import FrameType

import psutil

PATIENCE_SECONDS = 10.0  # between asking a program to end and ending it
_PR_SET_CHILD_SUBREAPER = 36  # of <linux/prctl.h>


def main(command: list[str]) -> None:
    """Start `command`; leave with its exit code, or when standard input ends."""
    with contextlib.suppress(OSError, AttributeError):  # elsewhere than on Linux, orphans go to init
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        program = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        sys.exit(f"{command[0]} cannot be started: {error.strerror}")

    def leave(number: int, frame: FrameType | None) -> None:
        end(program)
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    threading.Thread(target=_until_it_ends, args=(program,), daemon=True).start()
    sys.stdin.buffer.read()
    end(program)


def end(program: subprocess.Popen[bytes]) -> None:
    """End the program's whole group: asked first, then killed."""
    _tell(program.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        program.wait(PATIENCE_SECONDS)
    _kill_rest(program.pid)


def _until_it_ends(program: subprocess.Popen[bytes]) -> None:
    code = program.wait()
    _kill_rest(program.pid)
    os._exit(code if code >= 0 else 128 - code)


def _kill_rest(group: int) -> None:
    """Kill what a program left running, in its group or adopted from it."""
    _tell(group, signal.SIGKILL)
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _tell(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


if __name__ == "__main__":
    main(sys.argv[1:])
