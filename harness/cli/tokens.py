"""`harness tokens`: write a checkpoint with further special tokens."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import JsonOption


def register(app: typer.Typer) -> None:
    app.command(
        epilog="Example: harness tokens mistralai/Mistral-7B-v0.1 --add '<|end_of_turn|>' --out runs/models/mistral-7b-openchat"
    )(tokens)


def tokens(
    model: Annotated[str, typer.Argument(help="The checkpoint, as model.path: a folder, or owner/name of the hub.")],
    add: Annotated[list[str], typer.Option(help="A special token to add; repeatable.")],
    out: Annotated[Path, typer.Option(help="The folder to write; it should not be there yet.")],
    revision: Annotated[
        str | None, typer.Option(help="A hub model's branch, tag or commit; default: main.", show_default=False)
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Add special tokens that a chat template needs to a checkpoint; their embeddings begin as the mean of all others.

    The new checkpoint's config.json records the tokens, their ids and the checkpoint they were added to.
    """
    from harness.models.added_tokens import add_special_tokens

    record = add_special_tokens(model, add, out, revision)
    if json_:
        typer.echo(json.dumps({"folder": str(out), **asdict(record)}))
        return
    listed = ", ".join(f"{token} = {number}" for token, number in zip(record.tokens, record.ids, strict=True))
    typer.echo(f"{out}: added {listed}; rows: {record.initial}")
