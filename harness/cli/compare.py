"""`harness compare`: the whole comparison."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import (
    ConfigArgument,
    JsonOption,
    MethodsOption,
    OutOption,
    SeedsOption,
    SetOption,
    StoreOption,
    find_config,
    read_config,
    store_folder,
)

if TYPE_CHECKING:
    from harness.leaderboard.board import Board

SOME_FAILED = 3


def register(app: typer.Typer) -> None:
    app.command(
        name="compare",
        epilog="Examples: harness compare  ·  harness compare my.yaml --seeds 0,1,2  ·  "
        "harness compare --methods sft,null,dpo --set budget.prompts=200",
    )(compare)


def compare(
    config: ConfigArgument = None,
    set_: SetOption = None,
    methods: MethodsOption = None,
    seeds: SeedsOption = None,
    out: OutOption = None,
    store: StoreOption = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes, one thread each; one per core if absent.", show_default=False)
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Train every method from the same start at the same budget, evaluate all, write one board.

    What is already in the store is not computed again: a run that was killed goes on, a second run takes seconds.
    Exit code 0: the board is complete. 2: the config or a plugin is wrong. 3: a row failed (the others are on the board).
    """
    from harness.compare import compare as run

    path = find_config(config)
    raw = read_config(path, set_, methods, seeds)
    folder = out or Path("runs") / str(raw.get("name", path.stem))
    result = run(
        raw,
        folder=folder,
        store=store_folder(store),
        workers=workers or len(os.sched_getaffinity(0)),
        interactive=sys.stderr.isatty() and not json_,
        command=shlex.join(["harness", *sys.argv[1:]]),
        where=str(path),
    )
    if json_:
        typer.echo(json.dumps(_answer(result, folder)))
    else:
        show(result.board, folder)
    if result.outcome.failed:
        raise typer.Exit(SOME_FAILED)


def show(board: Board, folder: Path) -> None:
    """A board's table, and where its page lies."""
    from rich.console import Console

    from harness.leaderboard.table import print_table

    console = Console()
    print_table(board, console)
    console.print(f"Board: {folder / 'index.html'}", markup=False, highlight=False, soft_wrap=True)


def _answer(result: Any, folder: Path) -> dict[str, Any]:
    """What a script wants: the board, where it lies, what failed."""
    failed = {row.method: row.failed for row in result.board.rows if row.failed}
    return {"folder": str(folder), "failed": failed, "board": result.board.model_dump(mode="json", by_alias=True)}
