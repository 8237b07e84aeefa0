"""`harness power`: what a comparison can see, before or after it ran."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import JsonOption


def register(app: typer.Typer) -> None:
    app.command(
        name="power",
        epilog="Examples: harness power runs/quickstart  ·  harness power runs/quickstart --difference 0.5 --seeds 5  ·  "
        "harness power --prompts 200 --seeds 3 --prompt-deviation 1.2 --seed-deviation 0.1",
    )(power)


def power(
    board: Annotated[
        Path | None, typer.Argument(help="A board.json or its folder; without one, a design in numbers.", show_default=False)
    ] = None,
    difference: Annotated[
        float | None, typer.Option(help="Say how many prompts or seeds would show this one.", show_default=False)
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="Of this metric alone, by its key; repeatable.", show_default=False)
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds; the board's if absent.", show_default=False)] = None,
    prompts: Annotated[int | None, typer.Option(help="Prompts; the board's if absent.", show_default=False)] = None,
    prompt_deviation: Annotated[
        float | None, typer.Option(help="Standard deviation of a row's difference between prompts.", rich_help_panel="Design")
    ] = None,
    seed_deviation: Annotated[float, typer.Option(help="The same between seeds.", rich_help_panel="Design")] = 0.0,
    rest_deviation: Annotated[
        float, typer.Option(help="Of one seed on one prompt, beyond both.", rich_help_panel="Design")
    ] = 0.0,
    rows: Annotated[int, typer.Option(help="Rows that share the seeds, the baseline too.", rich_help_panel="Design")] = 2,
    tests: Annotated[int, typer.Option(min=1, help="Tests that are corrected together.", rich_help_panel="Design")] = 1,
    json_: JsonOption = False,
) -> None:
    """The smallest difference that is found four times in five, and the prompts or seeds that a smaller one takes.

    Of a board, by the variances it measured and at Holm's first step. Without a board of a design in numbers, before
    anything is trained: --prompts, --seeds and --prompt-deviation at least.
    """
    from harness.board.board import Board
    from harness.board.entries import SIGNIFICANCE_LEVEL
    from harness.board.power import Design, Target, analyse, analyse_board
    from harness.board.views.text import one_line
    from harness.errors import HarnessError

    target = Target(difference, seeds, prompts)
    if board is not None:
        if prompt_deviation is not None or seed_deviation or rest_deviation or rows != 2 or tests != 1:
            raise HarnessError("a board brings its own deviations, rows and tests: leave those options out, or the board")
        found = analyse_board(Board.read(board), target, metric or ())
    else:
        if prompts is None or seeds is None or prompt_deviation is None:
            raise HarnessError("give a board, or a design: --prompts, --seeds and --prompt-deviation")
        if metric:
            raise HarnessError("--metric names a metric of a board: give the board too")
        design = Design(prompts, seeds, prompt_deviation, seed_deviation, rest_deviation, rows, SIGNIFICANCE_LEVEL / tests)
        found = [analyse("the design", design.entry(), target)]
    if json_:
        typer.echo(json.dumps([item.as_dict() for item in found]))
        return
    for item in found:
        typer.echo("\n".join(one_line(sentence) for sentence in item.sentences()))
