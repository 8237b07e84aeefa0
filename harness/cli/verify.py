"""`harness verify`: build a board again from its evidence, and name what differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import JsonOption
from harness.cli.report import BoardArgument

if TYPE_CHECKING:
    from harness.board.verify import Outcome, Verification

EXIT_CODES = {"verified": 0, "partial": 1, "differs": 4}  # by the name of `Outcome`


def register(app: typer.Typer) -> None:
    app.command(name="verify", epilog="Example: harness verify leaderboards/quickstart")(verify)


def verify(
    board: BoardArgument = Path("runs/quickstart"),
    accept_outside: Annotated[
        bool,
        typer.Option(
            "--accept-outside", help="Exit code 0 too where only rows of kind published or imported are not verified."
        ),
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Build a board again from its scores and evidence, compare every field, and list what differs.

    Nothing is trained and no model is loaded, so a board from anywhere can be checked. Exit code 0: verified. 1: it holds as
    far as there is evidence, and what is only as written is listed: boards of version 0.1.0, published and imported rows. 4: it
    does not hold.
    """
    from harness.board.board import Board, board_scores
    from harness.board.verify import TOLERANCE, earlier_methods
    from harness.run.verify import verification

    checked, loaded = verification(board), Board.read(board)
    outcome = checked.outcome(accept_outside=accept_outside)
    if json_:
        answer = {
            "board": str(board),
            "outcome": checked.outcome().value,
            "holds": not checked.differences,
            "problems": list(checked.differences),
            "missing": list(checked.missing),
            "outside": dict(checked.outside),
            "beyond": list(checked.beyond),
            "not_covered": [TOLERANCE],
            "not_made_again": []
            if loaded.is_published
            else [metric.key for metric in loaded.unscored_metrics(board_scores(board))],
            "root": checked.root,
        }
        earlier = earlier_methods(loaded)
        typer.echo(json.dumps(answer | ({"earlier_methods": earlier} if earlier else {})))
    else:
        typer.echo("\n".join(_lines(checked, outcome)))
    if code := EXIT_CODES[outcome.name]:
        raise typer.Exit(code)


def _lines(checked: Verification, outcome: Outcome) -> list[str]:
    """Return the result in words."""
    from harness.board.verify import TOLERANCE, Outcome
    from harness.board.views.text import one_line

    if outcome is Outcome.differs:
        lines = ["The board does not hold:", *(f"  {problem}" for problem in checked.differences)]
    elif outcome is Outcome.partial:
        lines = ["The board holds as far as there is evidence."]
    elif checked.outside:
        lines = ["All rows but those from elsewhere are verified."]
    else:
        lines = ["Verified: built again from its scores and the manifests of its stages, the board is the same."]
    if checked.missing or checked.outside:
        outside = [f"{row}: {reason}." for row, reason in checked.outside]
        lines += ["Not verified:", *(f"  {text}" for text in (*checked.missing, *outside))]
    if checked.beyond:
        lines += ["Evidence that cannot be computed again:", *(f"  {text}" for text in checked.beyond)]
    if checked.root:
        lines += [f"Not noticed: {TOLERANCE}.", f"Root of the evidence: {checked.root}"]
    return [one_line(line) for line in lines]
