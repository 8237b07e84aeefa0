"""`harness verify`: build a board again from its evidence, and name what differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import JsonOption
from harness.cli.report import BoardArgument

if TYPE_CHECKING:
    from harness.board.signatures import Signature
    from harness.board.verify import Verification, VerifyOutcome
    from harness.run.recompute import Recomputation

EXIT_CODES = {"verified": 0, "partial": 1, "differs": 4}  # by the name of `VerifyOutcome`


def register(app: typer.Typer) -> None:
    app.command(
        name="verify",
        epilog="Examples: harness verify leaderboards/quickstart  ·  harness verify runs/quickstart --recompute 5",
    )(verify)


def verify(
    board: BoardArgument = Path("runs/quickstart"),
    accept_outside: Annotated[
        bool,
        typer.Option(
            "--accept-outside", help="Exit code 0 too where only rows of kind published or imported are not verified."
        ),
    ] = False,
    recompute: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Draw N stages at random, make them here from the board's config, and compare.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the draw; default: a new one, which is printed.", show_default=False)
    ] = None,
    run_programs: Annotated[
        bool,
        typer.Option(
            "--run-programs",
            help="With --recompute: let programs, functions and checkpoints' code that the board's config names run here.",
        ),
    ] = False,
    signers: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Require a signature (harness sign) by one of these allowed signers.", show_default=False
        ),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Build a board again from its scores and evidence, compare every field, and list what differs.

    Nothing is trained and no model is loaded, so a board from anywhere can be checked. With --recompute, stages are made again
    with the plugins, the data and the model that its config names; code that its writer chose runs only with --run-programs.
    Exit code 0: verified. 1: it holds as far as there is evidence, and what is only as written is listed: boards of version
    0.1.0, published and imported rows. 4: it does not hold.
    """
    from harness.board.board import Board, board_scores
    from harness.board.verify import TOLERANCE, earlier_methods
    from harness.board.views.text import one_line
    from harness.errors import HarnessError
    from harness.run.verify import verification

    if seed is not None and recompute is None:
        raise HarnessError("--seed draws stages: give --recompute N with it")

    checked, loaded = verification(board), Board.read(board)
    signature, sample = None, None
    if signers is not None:
        signature, problem = _signed(board, signers)
        checked = checked.with_more(differences=problem)
    if recompute is not None and not checked.differences:  # else the evidence is not the board's
        sample = _recomputed(board, recompute, seed, run_programs)
        checked = checked.with_more(sample.differences, sample.undecided)
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
        answer |= {"earlier_methods": earlier} if earlier else {}
        answer |= {"signed_by": signature.signer, "key": signature.key} if signature else {}
        typer.echo(json.dumps(answer | ({"recomputed": _as_dict(sample)} if sample else {})))
    else:
        lines = [*_lines(checked, outcome), *(_sample_lines(sample) if sample else ())]
        typer.echo("\n".join([*lines, *([f"The board is {one_line(signature.sentence)}."] if signature else [])]))
    if code := EXIT_CODES[outcome.name]:
        raise typer.Exit(code)


def _signed(board: Path, signers: Path) -> tuple[Signature | None, list[str]]:
    """Return a board's signature, and what is wrong with it or that there is none."""
    from harness.board.signatures import SIGNATURE, signature_of
    from harness.errors import DataError

    try:
        signature = signature_of(board, signers)
    except DataError as error:
        return None, [str(error)]
    if signature is None:
        return None, [f"{SIGNATURE} is missing: the board is not signed"]
    return signature, [] if signature.signer else [f"{SIGNATURE}: {signature.sentence} in {signers}"]


def _recomputed(board: Path, count: int, seed: int | None, run_programs: bool) -> Recomputation:
    """Make a sample of stages in a folder that is removed afterwards."""
    import secrets
    import tempfile

    from harness.run.recompute import recompute

    with tempfile.TemporaryDirectory(prefix="harness-verify-") as folder:
        drawn_by = secrets.randbits(32) if seed is None else seed
        return recompute(board, count, folder=Path(folder), seed=drawn_by, run_programs=run_programs)


def _as_dict(sample: Recomputation) -> dict[str, object]:
    from dataclasses import asdict

    from harness.run.recompute import SHARES

    return {**asdict(sample), "chance": {str(share): sample.chance(share) for share in SHARES}}


def _sample_lines(sample: Recomputation) -> list[str]:
    """Return what was computed again, what it cost, and what it would have found."""
    from harness.board.views.text import duration, one_line
    from harness.run.recompute import SHARES

    by = "bytes" if sample.exact else "numbers, since versions or the kind of processor are others here"
    lines = [
        f"Computed again in {duration(sample.seconds)}: {sample.drawn} of {sample.eligible} stages, drawn with seed "
        f"{sample.seed}, and {len(sample.stages) - sample.drawn} that they need, compared by their {by}."
    ]
    for stage in sample.stages:
        state = "differs" if stage.difference else "the same" if stage.same else stage.close or "undecided"
        lines.append(f"  {'drawn ' if stage.drawn else 'needed'} {stage.title}: {state} ({duration(stage.seconds)})")
    lines += [f"  not made again: {count} stages, {reason}" for reason, count in sorted(sample.skipped.items())]
    chances = ", ".join(f"{sample.chance(share):.0%} if {share:.0%} of them were forged" for share in SHARES)
    return [one_line(line) for line in [*lines, f"A draw of {sample.drawn} finds a forged stage with a chance of {chances}."]]


def _lines(checked: Verification, outcome: VerifyOutcome) -> list[str]:
    """Return the result in words."""
    from harness.board.verify import TOLERANCE, VerifyOutcome
    from harness.board.views.text import one_line

    if outcome is VerifyOutcome.differs:
        lines = ["The board does not hold:", *(f"  {problem}" for problem in checked.differences)]
    elif outcome is VerifyOutcome.partial:
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
