"""`harness sign`: sign a board with an SSH key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.report import BoardArgument


def register(app: typer.Typer) -> None:
    app.command(name="sign", epilog="Example: harness sign runs/quickstart --key ~/.ssh/id_ed25519")(sign)


def sign(
    board: BoardArgument = Path("runs/quickstart"),
    key: Annotated[
        Path, typer.Option(help="Private SSH key, or the public one of a key that your agent holds.", show_default=False)
    ] = ...,  # type: ignore[assignment]
) -> None:
    """Sign a board with an SSH key: writes board.json.sig beside it, by `ssh-keygen -Y sign`.

    board.json names the hash of every file beside it, so the signature stands for all of them. Sign last: `harness verify
    --signers FILE` says who signed, `harness publish --signers FILE` shows it on the site.
    """
    from harness.board.signatures import sign as signed

    typer.echo(f"{signed(board, key.expanduser())}")
