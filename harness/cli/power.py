"""`harness power`: compute the differences that a comparison can detect, before or after it ran."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from harness.cli import complete
from harness.cli.options import JsonOption


def register(app: typer.Typer) -> None:
    app.command(
        name="power",
        epilog="Examples: harness power runs/quickstart  ·  harness power runs/quickstart --difference 0.5 --seeds 5  ·  "
        "harness power --prompts 200 --seeds 3 --prompt-deviation 1.2 --seed-deviation 0.1",
    )(power)


def power(
    board: Annotated[
        Path | None,
        typer.Argument(
            help="A board.json or its folder; without one, describe a design by options.",
            show_default=False,
            autocompletion=complete.boards,
        ),
    ] = None,
    difference: Annotated[
        float | None, typer.Option(help="Compute how many prompts or seeds detect this difference.", show_default=False)
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Only this metric, by its key; repeatable.", show_default=False, autocompletion=complete.metrics),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds; default: the board's.", show_default=False)] = None,
    prompts: Annotated[int | None, typer.Option(help="Prompts; default: the board's.", show_default=False)] = None,
    prompt_deviation: Annotated[
        float | None, typer.Option(help="Standard deviation of a row's difference between prompts.", rich_help_panel="Design")
    ] = None,
    seed_deviation: Annotated[
        float, typer.Option(help="Standard deviation of the difference between seeds.", rich_help_panel="Design")
    ] = 0.0,
    rest_deviation: Annotated[
        float, typer.Option(help="Residual standard deviation, of one seed on one prompt.", rich_help_panel="Design")
    ] = 0.0,
    rows: Annotated[int, typer.Option(help="Rows that share the seeds, including the baseline.", rich_help_panel="Design")] = 2,
    tests: Annotated[
        int, typer.Option(min=1, help="Number of tests that are corrected together.", rich_help_panel="Design")
    ] = 1,
    json_: JsonOption = False,
) -> None:
    """Compute the smallest difference detected at 80 % power, and the prompts or seeds that a smaller one needs.

    With a board, from the variances it measured, at the first step of Holm's correction. Without one, from a design, before
    anything is trained: give at least --prompts, --seeds and --prompt-deviation.
    """
    from harness.board.board import Board
    from harness.board.entries import SIGNIFICANCE_LEVEL
    from harness.board.power import Design, Target, analyse, analyse_board
    from harness.board.views.text import one_line
    from harness.errors import HarnessError

    target = Target(difference, seeds, prompts)
    if board is not None:
        if prompt_deviation is not None or seed_deviation or rest_deviation or rows != 2 or tests != 1:
            raise HarnessError("a board has deviations, rows and tests already: leave out those options, or the board")
        analyses = analyse_board(Board.read(board), target, metric or ())
    else:
        if prompts is None or seeds is None or prompt_deviation is None:
            raise HarnessError("give a board, or a design: --prompts, --seeds and --prompt-deviation")
        if metric:
            raise HarnessError("--metric selects a metric of a board: give the board, or leave --metric out")
        design = Design(prompts, seeds, prompt_deviation, seed_deviation, rest_deviation, rows, SIGNIFICANCE_LEVEL / tests)
        analyses = [analyse("the design", design.entry(), target)]
    if json_:
        typer.echo(json.dumps([item.as_dict() for item in analyses]))
        return
    for item in analyses:
        typer.echo("\n".join(one_line(sentence) for sentence in item.sentences()))
