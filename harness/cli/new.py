"""`harness new`: write a plugin package to start from."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import JsonOption


def register(app: typer.Typer) -> None:
    app.command(
        name="new",
        epilog="Examples: harness new method my_method  ·  harness new evaluator my_measure --into ~/plugins  ·  "
        "harness new analysis my_question",
    )(new)


def new(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="data-builder, objective, evaluator, method, analysis or trainer.")
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The component's name in configs and commands.")],
    into: Annotated[Path, typer.Option(help="The folder in which the package's folder is created.")] = Path(),
    json_: JsonOption = False,
) -> None:
    """Write an installable plugin package with a working component, its test and a README.

    After `pip install -e`, `harness plugins list` shows it and configs can name it; `harness analyze` runs an analysis.
    """
    from harness.api.registry import Registry
    from harness.errors import HarnessError, did_you_mean
    from harness.testing.scaffold import KINDS, create

    chosen = next((known for known in KINDS if known == kind), None)
    if chosen is None:
        raise HarnessError(f"KIND {kind!r}: {did_you_mean(kind, KINDS)}")
    package = create(chosen, name, into, Registry.load())
    if json_:
        typer.echo(json.dumps({"folder": str(package.folder), "files": list(package.files)}))
        return
    typer.echo(f"{package.folder}: {', '.join(package.files)}")
    place = (
        package.folder if len(package.folder.parts) > 1 else f"./{package.folder}"
    )  # pip reads a bare name as a project on the index
    typer.echo(f"next: pip install -e {shlex.quote(str(place))}  ·  harness plugins check {name}")
