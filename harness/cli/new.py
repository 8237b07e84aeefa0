"""`harness new`: write a plugin package or a config to start from."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import JsonOption

CONFIG = "config"


def register(app: typer.Typer) -> None:
    app.command(
        name="new",
        epilog="Examples: harness new method my_method  ·  harness new evaluator my_measure --into ~/plugins  ·  "
        "harness new config my-data --data pairs.jsonl",
    )(new)


def new(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="data-builder, objective, evaluator, method, analysis, trainer or config.")
    ],
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="The component's name in configs and commands; of a config: my-comparison.", show_default=False
        ),
    ] = None,
    into: Annotated[Path, typer.Option(help="The folder in which the package's folder, or the config, is created.")] = Path(),
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|OWNER/NAME",
            help="For a config: a file of JSON lines, JSON or Parquet, or a hub data set; its columns are recognised.",
            show_default=False,
        ),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Write an installable plugin package with a working component, its test and a README; or a commented config.

    After `pip install -e`, `harness plugins list` shows it and configs can name it; `harness analyze` runs an analysis.
    """
    from harness.api.registry import Registry
    from harness.errors import HarnessError, did_you_mean
    from harness.testing.scaffold import KINDS, create

    if kind == CONFIG:
        _new_config(name or "my-comparison", into, data, json_)
        return
    chosen = next((known for known in KINDS if known == kind), None)
    if chosen is None:
        raise HarnessError(f"KIND {kind!r}: {did_you_mean(kind, (*KINDS, CONFIG))}")
    if data is not None:
        raise HarnessError(f"--data {data}: it is for `harness new config`: leave it out")
    if name is None:
        raise HarnessError(f"NAME is missing: name the component, as in `harness new {kind} my_name`")
    package = create(chosen, name, into, Registry.load())
    if json_:
        typer.echo(json.dumps({"folder": str(package.folder), "files": list(package.files)}))
        return
    typer.echo(f"{package.folder}: {', '.join(package.files)}")
    place = (
        package.folder if len(package.folder.parts) > 1 else f"./{package.folder}"
    )  # pip reads a bare name as a project on the index
    typer.echo(f"next: pip install -e {shlex.quote(str(place))}  ·  harness plugins check {name}")


def _new_config(name: str, into: Path, data: str | None, json_: bool) -> None:
    from harness.api.registry import Registry
    from harness.config.starter import recognise, starter, write_starter

    recognised = recognise(data, Registry.load()) if data is not None else None
    path = write_starter(name, into, starter(name, recognised))
    if json_:
        typer.echo(json.dumps({"file": str(path), "source": dict(recognised.source) if recognised else None}))
        return
    typer.echo(f"{path}" + (f": source {json.dumps(recognised.source)}" if recognised else ""))
    typer.echo(f"next: harness plan {shlex.quote(str(path))}  ·  harness compare {shlex.quote(str(path))}")
