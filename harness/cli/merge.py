"""`harness diff` and `harness merge`: list the differences of two boards; merge several into one."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.compare import show
from harness.cli.options import JsonOption
from harness.cli.runs import RunsOption

LONGEST_TEXT = 300  # characters of a prompt or an answer in a list


def register(app: typer.Typer) -> None:
    app.command(
        name="diff",
        epilog="Examples: harness diff  ·  harness diff quickstart quickstart-2  ·  "
        "harness diff leaderboards/quickstart runs/quickstart",
    )(diff)
    app.command(
        name="merge",
        epilog="Examples: harness merge runs/mine runs/yours --out runs/both  ·  "
        "harness merge runs/mine leaderboards/papers/sr-dpo-open-llm.yaml --out runs/beside",
    )(merge)


def diff(
    before: Annotated[
        str | None,
        typer.Argument(help="A board.json, its folder, or a run's name; default: the last but one.", show_default=False),
    ] = None,
    after: Annotated[
        str | None, typer.Argument(help="The later one; default: the latest run with a board.", show_default=False)
    ] = None,
    runs: RunsOption = Path("runs"),
    all_: Annotated[
        bool, typer.Option("--all", help="Compare the scores of all metrics, not only of the primary ones.")
    ] = False,
    examples: Annotated[
        int | None, typer.Option(min=1, help="List so many prompts that got worse, with both answers.", show_default=False)
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(metavar="LEFT,RIGHT", help="Of --examples: a row of each board; default: the best.", show_default=False),
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="Of --examples; default: the first primary metric.", show_default=False)
    ] = None,
    json_: JsonOption = False,
) -> None:
    """List what changed from one board to another: settings, rows, scores, and verdicts against the baseline.

    Scores are shown, not tested: to test them, merge the boards. The exit code is 0 whether or not the boards differ. With
    --examples, the prompts on which a row got worse; for two rows of one board, name the board twice.
    """
    from harness.board.board import Board
    from harness.board.diff import changes
    from harness.errors import HarnessError
    from harness.run.folders import find_board, latest_boards

    if before is None:
        first, second = latest_boards(runs, 2)
    else:
        first = find_board(before, runs)
        second = find_board(after, runs) if after is not None else latest_boards(runs, 1)[0]
    if before is not None and after is None and second.resolve() == first.resolve():
        raise HarnessError(f"{first} is the latest run itself: name a second one")
    if examples is None and (rows is not None or metric is not None):
        raise HarnessError(f"{'--rows' if rows is not None else '--metric'} goes with --examples: add --examples 5")
    if examples is not None:
        _worse_examples(first, second, rows, metric, examples, json_)
        return
    differences = changes(Board.read(first), Board.read(second), all_metrics=all_)
    if json_:
        compared = {"before": str(first), "after": str(second)}
        typer.echo(json.dumps({"same": not differences, **compared, **differences.as_dict()}))
        return
    if after is None:
        typer.echo(f"{first} → {second}")
    if not differences:
        typer.echo("No difference in settings, rows or scores.")
    else:
        for title, listed in differences.sections():
            typer.echo(f"{title}:")
            typer.echo("\n".join(f"  {change}" for change in listed))


def _worse_examples(first: Path, second: Path, rows: str | None, metric: str | None, most: int, json_: bool) -> None:
    """Print the prompts that got worse from a row of one board to a row of another."""
    from harness.board.board import Board
    from harness.board.changed_examples import worse_examples
    from harness.board.views.text import number, one_line, shortened, signed
    from harness.errors import HarnessError

    named = tuple(name.strip() for name in rows.split(",")) if rows is not None else None
    if named is not None and len(named) != 2:
        raise HarnessError(f"--rows {rows!r}: give two rows, as in --rows sft,dpo")
    before = Board.read(first)
    after = before if first.resolve() == second.resolve() else Board.read(second)
    found = worse_examples(before, after, (named[0], named[1]) if named else None, metric, most)
    if json_:
        typer.echo(json.dumps({"before": str(first), "after": str(second), **found.as_dict()}))
        return
    names = ("before", "after") if found.rows[0] == found.rows[1] else found.rows
    total = found.worse + found.equal + found.better
    typer.echo(
        f"{one_line(found.rows[1])} against {one_line(found.rows[0])} on {one_line(found.metric)}: worse on {found.worse:,} of "
        f"{total:,} prompts, equal on {found.equal:,}, better on {found.better:,}. Means over seeds; nothing is tested."
    )
    for change in found.shown:
        scores = f"{number(change.before)} → {number(change.after)}"
        typer.echo(f"\n{signed(change.after - change.before)} ({scores})  {one_line(change.id)}")
        if change.prompt is not None:
            typer.echo(f"  prompt: {shortened(change.prompt, LONGEST_TEXT)}")
        for name, answer in zip(names, change.answers, strict=True):
            typer.echo(f"  {one_line(name)}: {'(no text on the board)' if answer is None else shortened(answer, LONGEST_TEXT)}")


def merge(
    boards: Annotated[
        list[Path], typer.Argument(help="Boards or their folders, and published tables (YAML).", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder of the new board.", show_default=False)],
    name: Annotated[
        str | None, typer.Option(help="Name of the new board; default: the folder's name.", show_default=False)
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the folder's board, even if it is not a merge of the same boards.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Merge boards into one: pool the baseline's seeds, and test every difference again, paired by prompt, in one family.

    Boards that differ in baseline, starting model, data, sampling, evaluators or judge are refused, with all reasons; other
    settings and versions become warnings. Measured boards need their scores.parquet. Rows of published tables are marked and
    never tested; a published table without a board is written as a board. Another board in --out is never replaced.
    """
    from harness.board.build import LoadedBoard
    from harness.board.merge import merge as merged
    from harness.board.views.page import write_all
    from harness.errors import HarnessError
    from harness.run.folders import check_merge_folder

    if out.resolve() in {(path if path.is_dir() else path.parent).resolve() for path in boards if path.suffix != ".yaml"}:
        raise HarnessError(f"--out {out} holds one of the boards: choose another folder")
    created = datetime.now(UTC).isoformat(timespec="seconds")
    board = merged([LoadedBoard.read(path) for path in boards], name=name or out.resolve().name, created=created)
    if not replace:
        check_merge_folder(out, board)
    write_all(board, board.example_rows, out)
    if json_:
        typer.echo(json.dumps(board.model_dump(mode="json", by_alias=True)))
    else:
        show(board, out)
