"""Serve the pages on 127.0.0.1."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Callable

import psutil
import uvicorn

from harness.errors import HarnessError
from harness.view.app import OpenPages, build
from harness.view.boards import INDEX
from harness.view.folders import ITSELF, Runs
from harness.view.run import LiveRun

ADDRESS = "127.0.0.1"
TOKEN_CHARACTERS = 16  # the least of a token that a person chooses
LEFT_SECONDS = 30.0  # without an open page, before a server ends whose run has ended


def chosen_token(given: str | None) -> str:
    """Return the given token, or a random one of 256 bits.

    Raises:
        HarnessError: the given one is short, or holds characters that a URL would change.
    """
    if given is None:
        return secrets.token_urlsafe(32)
    if len(given) < TOKEN_CHARACTERS or not given.isascii() or not given.replace("-", "").replace("_", "").isalnum():
        raise HarnessError(f"$HARNESS_VIEW_TOKEN: give at least {TOKEN_CHARACTERS} letters, digits, - and _, or unset it")
    return given


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as bound:
        bound.bind((ADDRESS, 0))
        return int(bound.getsockname()[1])


def address(port: int, token: str) -> str:
    """Return the address of the first page."""
    return f"http://{ADDRESS}:{port}/{token}/"


def serve(runs: Runs, port: int, token: str, ready: Callable[[str], None], *, parent: int | None = None) -> None:
    """Serve until interrupted.

    Args:
        port: 0 for any free one.
        ready: called with the address of the page, once it can be opened: of the board, where one finished run is shown.
        parent: a process; when it is gone and no page has been open for a while, the server ends.

    Raises:
        HarnessError: the port is taken.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((ADDRESS, port))
        except OSError as error:
            raise HarnessError(f"--port {port}: {error.strerror}; give another one, or leave it out") from error
        listening.listen()
        app, viewer = build(runs, token)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,  # it would print the token
            lifespan="off",
            ws="none",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,  # open pages wait for events for ever
        )
        server = uvicorn.Server(config)
        if parent is not None:
            threading.Thread(target=_end_after, args=(parent, server, viewer), daemon=True).start()
        path = f"board/{ITSELF}/{INDEX}" if runs.single and not LiveRun(runs.root, ITSELF).refresh().provisional else ""
        ready(address(listening.getsockname()[1], token) + path)
        server.run(sockets=[listening])


def _end_after(parent: int, server: uvicorn.Server, viewer: OpenPages) -> None:
    left = time.monotonic()
    while not server.should_exit:
        if psutil.pid_exists(parent) or viewer.streams:
            left = time.monotonic()
        server.should_exit = time.monotonic() - left > LEFT_SECONDS
        time.sleep(1)
