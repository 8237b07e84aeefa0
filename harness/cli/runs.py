"""`harness runs`: list the runs under a folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import JsonOption

if TYPE_CHECKING:
    from harness.run.folders import RunSummary

RunsOption = Annotated[Path, typer.Option("--runs", help="The folder of runs, in which names are looked up.")]


def register(app: typer.Typer) -> None:
    app.command(name="runs", epilog="Examples: harness runs  ·  harness runs leaderboards --json")(runs)


def runs(
    folder: Annotated[Path, typer.Argument(help="The folder of runs.")] = Path("runs"),
    json_: JsonOption = False,
) -> None:
    """List the runs under a folder, the latest first: state, date, rows, and the best row."""
    from harness.errors import HarnessError
    from harness.run.folders import list_runs

    if not folder.is_dir():
        raise HarnessError(f"no folder {folder}: run `harness compare` first, or give the folder of your runs")
    listed = list_runs(folder)
    if json_:
        typer.echo(json.dumps([asdict(run) for run in listed]))
        return
    if not listed:
        typer.echo(f"No runs under {folder}.")
        return
    _print(listed, folder)


def _print(listed: list[RunSummary], root: Path) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from harness.board.views.text import number, one_line, shortened

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("run", "state", "date", "rows", "best row"):
        narrow = column in ("date", "rows")
        # Long names and reasons break within their column, so that each has room at 80 characters.
        width = {"run": 26, "state": 12}.get(column)
        table.add_column(
            column, no_wrap=narrow, overflow="fold", max_width=width, justify="right" if column == "rows" else "left"
        )
    for run in listed:
        place = Path(run.folder)
        name = place.relative_to(root).as_posix() if place != root else place.as_posix()
        rows = "" if run.rows is None else f"{run.rows}" + (f" ({run.failed} failed)" if run.failed else "")
        metric = (run.metric or "").rpartition("/")[2]
        best = "" if run.best is None else f"{shortened(run.best)}, {metric} {number(run.score or 0.0)}"
        state = run.state if run.rows is not None or run.stages is None else f"{run.state}, {run.done} of {run.stages}"
        date = run.date[:10]
        cells = (one_line(cell) for cell in (state, date, rows, best if run.problem is None else run.problem))
        table.add_row(Text(one_line(name), style="bold"), *map(Text, cells))
    Console().print(table)
