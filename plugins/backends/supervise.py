"""`python -m harness_plugins.backends.supervise COMMAND…`: runs a server and ends all of it when standard input closes.

The kernel closes the pipe however the parent dies, so a server never outlives the worker that asked for it. The server gets a
process group of its own, whose members are ended together: engines start processes of theirs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from types import FrameType

PATIENCE_SECONDS = 10.0  # between asking a server to end and ending it


def main(command: list[str]) -> None:
    """Start `command`; leave with its exit code, or when standard input ends."""
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def leave(number: int, frame: FrameType | None) -> None:
        end(server)
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    threading.Thread(target=_until_it_ends, args=(server,), daemon=True).start()
    sys.stdin.buffer.read()
    end(server)


def end(server: subprocess.Popen[bytes]) -> None:
    """End the server's whole group: asked first, then killed."""
    _tell(server.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(PATIENCE_SECONDS)
    _tell(server.pid, signal.SIGKILL)


def _until_it_ends(server: subprocess.Popen[bytes]) -> None:
    code = server.wait()
    _tell(server.pid, signal.SIGKILL)  # what it left running
    os._exit(code if code >= 0 else 128 - code)


def _tell(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


if __name__ == "__main__":
    main(sys.argv[1:])
