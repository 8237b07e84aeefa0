"""`harness plugins check`: whether a component keeps to what the host relies on."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from harness.cli.options import JsonOption

BROKEN = 1


def register(app: typer.Typer) -> None:
    app.command(
        name="check",
        epilog="Examples: harness plugins check dpo  ·  harness plugins check lm_eval --set limit=2  ·  "
        "harness plugins check my_loss --json",
    )(check)


def check(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Components' names.")],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="FIELD=VALUE", help="Check with this field, e.g. --set beta=0.5; repeatable.", show_default=False
        ),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Check that a component keeps to what the host relies on; exit code 1 if something must be mended.

    Of an objective: shapes, masks, finite gradients, float64, views without gradient, the order of negatives, repeatability.
    Of a data builder and an evaluator: what they yield on a scripted policy, that every prompt is accounted for,
    repeatability, for builders in another process too. Of an analysis: its report on a tiny comparison, run twice. Of every
    component: name, documentation of every field, paper, fields as JSON. Where one fault makes others certain, those are
    skipped. `note` is advice and `skip` could not be run here; both leave the exit code 0.
    """
    from harness.api.registry import Registry
    from harness.testing import check as verdicts_of
    from harness.config.file import override

    registry, fields = Registry.load(), override({}, set_ or [])
    verdicts = [verdict for name in names for verdict in verdicts_of(name, fields, registry=registry)]
    if json_:
        typer.echo(json.dumps([verdict.as_dict() for verdict in verdicts]))
    else:
        from harness.board.views.text import visible

        typer.echo(visible("\n\n".join(map(str, verdicts))))
    if not all(verdict.ok for verdict in verdicts):
        raise typer.Exit(BROKEN)
