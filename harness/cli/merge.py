"""`harness diff` and `harness merge`: two boards held against each other, several made one."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.compare import show
from harness.cli.options import JsonOption


def register(app: typer.Typer) -> None:
    app.command(name="diff", epilog="Example: harness diff leaderboards/quickstart runs/quickstart")(diff)
    app.command(
        name="merge",
        epilog="Examples: harness merge runs/mine runs/yours --out runs/both  ·  "
        "harness merge runs/mine leaderboards/papers/sr-dpo-open-llm.yaml --out runs/beside",
    )(merge)


def diff(
    before: Annotated[Path, typer.Argument(help="A board.json or its folder.", show_default=False)],
    after: Annotated[Path, typer.Argument(help="The other one.", show_default=False)],
    all_: Annotated[bool, typer.Option("--all", help="Scores of all metrics, not of the primary ones alone.")] = False,
    json_: JsonOption = False,
) -> None:
    """What changed from one board to another: settings, rows, scores, and what may be said against the baseline.

    Scores are shown, not tested: for that, merge the boards. Exit code 0 whether or not anything differs.
    """
    from harness.board.board import Board
    from harness.board.diff import changes

    found = changes(Board.read(before), Board.read(after), all_metrics=all_)
    if json_:
        typer.echo(json.dumps({"same": not found, **found.as_dict()}))
    elif not found:
        typer.echo("No difference in settings, rows or scores.")
    else:
        for title, listed in found.sections():
            typer.echo(f"{title}:")
            typer.echo("\n".join(f"  {change}" for change in listed))


def merge(
    boards: Annotated[
        list[Path], typer.Argument(help="Boards or their folders, and published tables (YAML).", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder of the new board.", show_default=False)],
    name: Annotated[str | None, typer.Option(help="Of the new board; the folder's if absent.", show_default=False)] = None,
    json_: JsonOption = False,
) -> None:
    """Several boards as one: the baseline's seeds pooled, every difference paired by prompt and tested again in one family.

    Refused, with all reasons, where baseline, starting model, data, sampling, evaluators or judge differ; other settings and
    versions are a warning on the board. Measured boards need their scores.parquet. Rows of published tables stand beside the
    others, marked, and are never tested; a table alone is written as a board of its own.
    """
    from harness.board.build import LoadedBoard
    from harness.board.merge import merge as merged
    from harness.board.views.page import write_all
    from harness.errors import HarnessError

    if out.resolve() in {(path if path.is_dir() else path.parent).resolve() for path in boards if path.suffix != ".yaml"}:
        raise HarnessError(f"--out {out} holds one of the boards: choose another folder")
    made = datetime.now(UTC).isoformat(timespec="seconds")
    board = merged([LoadedBoard.read(path) for path in boards], name=name or out.resolve().name, created=made)
    write_all(board, board.example_rows, out)
    if json_:
        typer.echo(json.dumps(board.model_dump(mode="json", by_alias=True)))
    else:
        show(board, out)
