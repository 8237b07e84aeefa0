"""`harness view`: show runs and boards on a local web page."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

PortOption = Annotated[
    int, typer.Option("--port", min=0, max=65535, help="The port on 127.0.0.1; 0: any free one.", show_default=False)
]
NoBrowserOption = Annotated[bool, typer.Option("--no-browser", help="Only print the address.")]


def register(app: typer.Typer) -> None:
    app.command(name="view", epilog="Examples: harness view  ·  harness view runs/quickstart --port 8765 --no-browser")(view)


def view(
    folder: Annotated[Path, typer.Argument(help="A run's folder, or a folder of runs or boards.")] = Path("runs"),
    port: PortOption = 0,
    no_browser: NoBrowserOption = False,
    parent: Annotated[int | None, typer.Option("--with", hidden=True)] = None,
) -> None:
    """Show runs while they compute, and finished boards, on a local web page until interrupted.

    Nothing is computed for a run and none of its files is changed. The page is for this machine alone (127.0.0.1), and its
    address holds a random token. On another machine, forward the port: ssh -L 8765:127.0.0.1:8765. An open page finds a server
    that was started again if port and token are the same: give --port, and the token as $HARNESS_VIEW_TOKEN.
    """
    from harness.view.folders import Runs
    from harness.view.server import chosen_token, serve

    if not folder.exists() and (Path("runs") / folder).is_dir():
        folder = Path("runs") / folder

    def ready(address: str) -> None:
        typer.echo(
            f"{folder} at {address} (stop it with Ctrl-C)" if parent is None else f"View: {address}", err=parent is not None
        )
        (sys.stdout if parent is None else sys.stderr).flush()
        if not no_browser:
            _open(address)

    serve(Runs.of(folder), port, chosen_token(os.environ.get("HARNESS_VIEW_TOKEN")), ready, parent=parent)


def _open(address: str) -> None:
    """Open the browser where there is a screen: elsewhere one for terminals would take this terminal."""
    import webbrowser

    if sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(address)
