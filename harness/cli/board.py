"""`harness report`: a board's files and table again, from board.json alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.compare import show
from harness.cli.options import JsonOption


def register(app: typer.Typer) -> None:
    app.command(name="report", epilog="Example: harness report runs/quickstart")(report)


def report(
    board: Annotated[Path, typer.Argument(help="A board.json, or the folder that holds it.")] = Path("runs/quickstart"),
    out: Annotated[Path | None, typer.Option(help="Where to write; beside the board if absent.", show_default=False)] = None,
    json_: JsonOption = False,
) -> None:
    """Render a board again (Markdown, CSV, HTML) and print its table; board.json and the examples stay as they are."""
    from harness.errors import HarnessError
    from harness.leaderboard.board import Board
    from harness.leaderboard.page import render_all

    path = board / "board.json" if board.is_dir() or board.suffix != ".json" else board
    if not path.exists():
        raise HarnessError(f"no board at {path}: run `harness compare` first, or give the folder of a run")
    read = Board.read(path)
    render_all(read, read.example_rows, out or path.parent)
    if json_:
        typer.echo(json.dumps(read.model_dump(mode="json", by_alias=True)))
        return
    show(read, out or path.parent)
