"""`harness report`: render a board again."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import complete
from harness.cli.compare import ExplainOption, show
from harness.cli.options import JsonOption

if TYPE_CHECKING:
    from harness.board.build import Board

BoardArgument = Annotated[
    Path, typer.Argument(help="A board.json, or the folder that holds it.", autocompletion=complete.boards)
]


class Format(StrEnum):
    """The formats of a single rendering."""

    markdown = "markdown"
    csv = "csv"
    latex = "latex"
    json = "json"
    html = "html"
    parquet = "parquet"


FILES = {
    **{Format.markdown: "board.md", Format.csv: "board.csv", Format.latex: "board.tex", Format.json: "board.json"},
    **{Format.html: "index.html", Format.parquet: "scores.parquet"},
}


def register(app: typer.Typer) -> None:
    app.command(
        name="report", epilog="Examples: harness report runs/quickstart  ·  harness report runs/quickstart --format latex"
    )(report)


def report(
    board: BoardArgument = Path("runs/quickstart"),
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default: the board's.", show_default=False)] = None,
    format_: Annotated[
        Format | None, typer.Option("--format", help="Write only this format, to --out or standard output.", show_default=False)
    ] = None,
    restate: Annotated[
        bool, typer.Option("--restate", help="Compute an older board's statistics again by today's methods; needs --out.")
    ] = False,
    explain: ExplainOption = False,
    json_: JsonOption = False,
) -> None:
    """Render a board again (Markdown, CSV, HTML) and print its table; board.json and the examples do not change.

    With --format, one rendering goes to standard output or into the folder --out: Markdown, CSV, LaTeX (booktabs), JSON, HTML,
    or the scores per example as Parquet, which needs --out. While a run goes on, and after it was stopped, its finished rows
    are shown as a provisional board (provisional.html); the run alone writes board.json, when it is complete. With --restate
    a board made with earlier statistics gets today's, from its scores per example; nothing is trained again.
    """
    from harness.board.build import Board
    from harness.board.files import write_bytes
    from harness.board.views.page import render_all
    from harness.errors import HarnessError
    from harness.run.provisional import has_unfinished_run

    if not board.exists() and (Path("runs") / board).is_dir():
        board = Path("runs") / board
    if board.is_dir() and has_unfinished_run(board):
        _report_provisional(board, out, format_, json_, explain)
        return
    path = board / "board.json" if board.is_dir() or board.suffix != ".json" else board
    if not path.exists():
        raise HarnessError(f"no board at {path}: run `harness compare` first, or give the folder of a run")
    if restate:
        _restate(path, out, format_)
        return
    loaded = Board.read(path)
    if format_ is not None:
        content = _rendered(loaded, path, format_)
        if out is not None:
            typer.echo(f"{write_bytes(out / FILES[format_], content)}")
        elif format_ is Format.parquet:
            raise HarnessError("--format parquet is not text: give a folder with --out")
        else:
            typer.echo(content.decode("utf-8"), nl=False)
        return
    render_all(loaded, loaded.example_rows, out or path.parent)
    if json_:
        typer.echo(json.dumps(loaded.model_dump(mode="json", by_alias=True)))
        return
    show(loaded, out or path.parent, explain)


def _report_provisional(folder: Path, out: Path | None, format_: Format | None, json_: bool, explain: bool) -> None:
    """Show the finished rows of an unfinished run."""
    from rich.console import Console

    from harness.board.files import write_bytes, write_text
    from harness.board.views.page import to_html
    from harness.board.views.terminal import print_table
    from harness.errors import HarnessError
    from harness.run.provisional import PAGE, provisional_board

    if format_ is Format.parquet:
        raise HarnessError("--format parquet: a provisional board has no file of scores; wait for the run's end")
    board = provisional_board(folder)
    if format_ is not None:
        content = _rendered(board, folder, format_)
        if out is not None:
            typer.echo(f"{write_bytes(out / f'provisional-{FILES[format_]}', content)}")
        else:
            typer.echo(content.decode("utf-8"), nl=False)
        return
    page = write_text((out or folder) / PAGE, to_html(board, board.example_rows))
    if json_:
        typer.echo(json.dumps(board.model_dump(mode="json", by_alias=True)))
        return
    console = Console()
    print_table(board, console, explain=explain)
    console.print(f"Provisional board: {page}", markup=False, highlight=False, soft_wrap=True)


def _restate(path: Path, out: Path | None, format_: Format | None) -> None:
    """Write the board with today's statistics into a folder of its own, and print its table."""
    from datetime import UTC, datetime

    from harness.api.registry import Registry
    from harness.board.build import LoadedBoard
    from harness.board.restate import restated
    from harness.board.views.page import write_all
    from harness.errors import HarnessError

    if format_ is not None:
        raise HarnessError("--restate writes a whole board: leave --format out")
    if out is None or out.resolve() == path.parent.resolve():
        raise HarnessError("--restate keeps the earlier board: give another folder with --out")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    board = restated(LoadedBoard.read(path), created=now, registry=Registry.load())
    write_all(board, board.example_rows, out)
    show(board, out)


def _rendered(board: Board, path: Path, format_: Format) -> bytes:
    from harness.board.board import board_scores
    from harness.board.files import scores_bytes
    from harness.board.views.latex import to_latex
    from harness.board.views.markdown import to_csv, to_markdown
    from harness.board.views.page import to_html

    if format_ is Format.parquet:
        return scores_bytes(board_scores(path))
    if format_ is Format.html:
        return to_html(board, board.example_rows).encode("utf-8")
    if format_ is Format.json:
        return board.to_json().encode("utf-8")
    render = {Format.markdown: to_markdown, Format.csv: to_csv, Format.latex: to_latex}[format_]
    return render(board).encode("utf-8")
