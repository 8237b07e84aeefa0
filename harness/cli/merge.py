"""`harness diff` and `harness merge`: list the differences of two boards; merge several into one."""

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
    after: Annotated[Path, typer.Argument(help="The later board.json or its folder.", show_default=False)],
    all_: Annotated[
        bool, typer.Option("--all", help="Compare the scores of all metrics, not only of the primary ones.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """List what changed from one board to another: settings, rows, scores, and verdicts against the baseline.

    Scores are shown, not tested: to test them, merge the boards. The exit code is 0 whether or not the boards differ.
    """
    from harness.board.board import Board
    from harness.board.diff import changes

    differences = changes(Board.read(before), Board.read(after), all_metrics=all_)
    if json_:
        typer.echo(json.dumps({"same": not differences, **differences.as_dict()}))
    elif not differences:
        typer.echo("No difference in settings, rows or scores.")
    else:
        for title, listed in differences.sections():
            typer.echo(f"{title}:")
            typer.echo("\n".join(f"  {change}" for change in listed))


def merge(
    boards: Annotated[
        list[Path], typer.Argument(help="Boards or their folders, and published tables (YAML).", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder of the new board.", show_default=False)],
    name: Annotated[
        str | None, typer.Option(help="Name of the new board; default: the folder's name.", show_default=False)
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Merge boards into one: pool the baseline's seeds, and test every difference again, paired by prompt, in one family.

    Boards that differ in baseline, starting model, data, sampling, evaluators or judge are refused, with all reasons; other
    settings and versions become warnings. Measured boards need their scores.parquet. Rows of published tables are marked and
    never tested; a published table without a board is written as a board.
    """
    from harness.board.build import LoadedBoard
    from harness.board.merge import merge as merged
    from harness.board.views.page import write_all
    from harness.errors import HarnessError

    if out.resolve() in {(path if path.is_dir() else path.parent).resolve() for path in boards if path.suffix != ".yaml"}:
        raise HarnessError(f"--out {out} holds one of the boards: choose another folder")
    created = datetime.now(UTC).isoformat(timespec="seconds")
    board = merged([LoadedBoard.read(path) for path in boards], name=name or out.resolve().name, created=created)
    write_all(board, board.example_rows, out)
    if json_:
        typer.echo(json.dumps(board.model_dump(mode="json", by_alias=True)))
    else:
        show(board, out)
