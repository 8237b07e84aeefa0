"""A server started for one checkpoint: its own port, a log that is kept, ended with the block."""

from __future__ import annotations

import contextlib
import fcntl
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness import Policy, StageError

POLL_SECONDS = 0.1
SHOWN_LINES = 8
HOST = "127.0.0.1"


@contextmanager
def launched(command: Sequence[str], policy: Policy, start_seconds: float) -> Iterator[str]:
    """The base URL of a server that `command` starts for `policy`.

    Args:
        command: words in which {folder}, {name} and {port} are filled in.
        start_seconds: how long it may take until it answers.

    One server runs at a time per store, since two engines rarely fit on one device; others wait.

    Raises:
        StageError: it cannot be started, ends, or does not answer in time; with the end of its log.
    """
    log = policy.logs / f"{policy.name}.log"
    with _turn(policy.logs / "turn"), log.open("ab") as stream:
        port = _free_port()
        filled = [fill(word, policy).replace("{port}", str(port)) for word in command]
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "harness_plugins.backends.supervise", *filled],
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
        try:
            _wait(process, port, start_seconds, log)
            yield f"http://{HOST}:{port}/v1"
        finally:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()


def fill(text: str, policy: Policy) -> str:
    """`text` with the policy's {folder} and {name} put in."""
    return text.replace("{folder}", str(policy.folder)).replace("{name}", policy.name)


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], port: int, seconds: float, log: Path) -> None:
    """Until the server says that it is well, or lists its models: some do only one of the two."""
    deadline = time.monotonic() + seconds
    while not any(answers(f"http://{HOST}:{port}/{path}") for path in ("health", "v1/models")):
        if process.poll() is not None:
            raise StageError(f"the server ended with code {process.returncode} before it answered{_tail(log)}")
        if time.monotonic() > deadline:
            raise StageError(f"the server did not answer within start_seconds = {seconds:g}{_tail(log)}")
        time.sleep(POLL_SECONDS)


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-SHOWN_LINES:]
    return f" (log: {log})" + "".join(f"\n    {line}" for line in lines)


def answers(url: str, timeout_seconds: float = 2.0) -> object | None:
    """The JSON that a server answers to a plain GET with, or None."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_seconds) as response:
            return json.load(response)  # type: ignore[no-any-return]
    except (OSError, ValueError):
        return None
