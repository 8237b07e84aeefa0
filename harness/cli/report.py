"""`harness report` and `harness verify`: a board's files again, and whether it says what its scores say."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.compare import show
from harness.cli.options import JsonOption

if TYPE_CHECKING:
    from harness.board.build import Board

BoardArgument = Annotated[Path, typer.Argument(help="A board.json, or the folder that holds it.")]
DOES_NOT_HOLD = 4


class Format(StrEnum):
    """What one file of a report can be."""

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
    app.command(name="verify", epilog="Example: harness verify leaderboards/quickstart")(verify)


def report(
    board: BoardArgument = Path("runs/quickstart"),
    out: Annotated[Path | None, typer.Option(help="Where to write; beside the board if absent.", show_default=False)] = None,
    format_: Annotated[
        Format | None, typer.Option("--format", help="Write this one alone, to --out or standard output.", show_default=False)
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Render a board again (Markdown, CSV, HTML) and print its table; board.json and the examples stay as they are.

    With --format one rendering alone goes to standard output, or into the folder --out: Markdown, CSV, LaTeX (booktabs), JSON,
    HTML, or the scores per example as Parquet, which needs --out.
    """
    from harness.board.build import Board
    from harness.board.files import write_bytes
    from harness.board.views.page import render_all
    from harness.errors import HarnessError

    path = board / "board.json" if board.is_dir() or board.suffix != ".json" else board
    if not path.exists():
        raise HarnessError(f"no board at {path}: run `harness compare` first, or give the folder of a run")
    read = Board.read(path)
    if format_ is not None:
        content = _rendered(read, path, format_)
        if out is not None:
            typer.echo(f"{write_bytes(out / FILES[format_], content)}")
        elif format_ is Format.parquet:
            raise HarnessError("--format parquet is no text: say with --out which folder it goes to")
        else:
            typer.echo(content.decode("utf-8"), nl=False)
        return
    render_all(read, read.example_rows, out or path.parent)
    if json_:
        typer.echo(json.dumps(read.model_dump(mode="json", by_alias=True)))
        return
    show(read, out or path.parent)


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


def verify(board: BoardArgument = Path("runs/quickstart"), json_: JsonOption = False) -> None:
    """Make every statistic of a board again from its scores per example, and every hash; name what does not hold.

    Nothing is trained and no model is loaded, so that a board from elsewhere can be checked. Exit code 0: the board holds. 4:
    it does not.
    """
    from harness.board.board import Board, board_scores
    from harness.board.verify import verify as problems_of
    from harness.board.views.text import one_line

    problems, read = problems_of(board), Board.read(board)
    beyond = [] if read.is_published else [metric.key for metric in read.unscored_metrics(board_scores(board))]
    if json_:
        typer.echo(json.dumps({"board": str(board), "holds": not problems, "problems": problems, "not_made_again": beyond}))
    elif problems:
        typer.echo("\n".join(one_line(problem) for problem in problems))
    elif read.is_published:
        typer.echo("Published numbers alone: its files are whole, and there is nothing to make again.")
    else:
        typer.echo("The board holds: every statistic follows from its scores, every hash from its files.")
    if beyond and not json_:
        typer.echo(f"Not made again, since the board has no score per example of it: {one_line(', '.join(beyond))}")
    if problems:
        raise typer.Exit(DOES_NOT_HOLD)
