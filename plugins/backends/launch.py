"""A server started for one checkpoint: its own port, a log that is kept, ended with the block."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.client import HTTPException
from pathlib import Path

from harness import Policy, StageError, supervised_command

POLL_SECONDS = 0.1
SHOWN_LINES = 8
HOST = "127.0.0.1"
LARGEST_DOCUMENT = 4 * 2**20  # bytes, of a description of the server


@contextmanager
def launched(command: Sequence[str], policy: Policy, start_seconds: float) -> Iterator[str]:
    """Start a server for `policy` by `command`; yield its base URL, and end it with the block.

    Args:
        command: words in which {folder}, {name} and {port} are filled in.
        start_seconds: how long it may take until it answers.

    One server runs at a time on each GPU of this machine that this process sees, and one per store where it sees none by
    name, since two engines rarely fit on one device; others wait.

    Raises:
        StageError: it cannot be started, ends, or does not answer in time; with the end of its log.
    """
    devices = _devices()
    log = policy.logs / f"{'-'.join([policy.name, *devices])}.log"
    turns = [policy.logs / f"turn-{platform.node()}-{device}" for device in devices] or [policy.logs / "turn"]
    with ExitStack() as stack:
        for turn in turns:
            stack.enter_context(_turn(turn))
        stream = stack.enter_context(log.open("ab"))
        port = _free_port()
        filled = [fill(word, policy).replace("{port}", str(port)) for word in command]
        process = subprocess.Popen(
            supervised_command(filled),
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
    """Return `text` with the policy's {folder} and {name} put in."""
    return text.replace("{folder}", str(policy.folder)).replace("{name}", policy.name)


def _devices() -> list[str]:
    """Return the GPUs that this process was given, as parts of file names; in one order, so that nobody waits in a circle."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return sorted({re.sub(r"[^\w-]", "_", name.strip()) for name in names if name.strip()})


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
    """Wait until the server says that it is well, or lists its models: some do only one of the two."""
    deadline = time.monotonic() + seconds
    while not any(get_json(f"http://{HOST}:{port}/{path}") for path in ("health", "v1/models")):
        if process.poll() is not None:
            raise StageError(f"the server ended with code {process.returncode} before it answered{_tail(log)}")
        if time.monotonic() > deadline:
            raise StageError(f"the server did not answer within start_seconds = {seconds:g}{_tail(log)}")
        time.sleep(POLL_SECONDS)


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-SHOWN_LINES:]
    return f" (log: {log})" + "".join(f"\n    {line}" for line in lines)


def get_json(url: str, timeout_seconds: float = 2.0) -> object | None:
    """Return the JSON that a server answers a plain GET with; None where it gives none, too much, or another address."""
    try:
        with _OPENER.open(url, timeout=timeout_seconds) as response:
            content = response.read(LARGEST_DOCUMENT + 1)
        return json.loads(content) if len(content) <= LARGEST_DOCUMENT else None
    except (OSError, ValueError, RecursionError, HTTPException):
        return None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follow no redirect: what another address says of itself is nothing about this server."""

    def redirect_request(self, *_: object) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)
