"""`harness plan`: what a comparison would do, checked and counted, without doing it."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from harness.cli.options import (
    ConfigArgument,
    JsonOption,
    MethodsOption,
    SeedsOption,
    SetOption,
    StoreOption,
    find_config,
    read_config,
    store_folder,
)


def register(app: typer.Typer) -> None:
    app.command(
        name="plan",
        epilog="Examples: harness plan configs/quickstart.yaml --json  ·  "
        "harness plan configs/papers/self_contrast.yaml --gpu a100-80gb",
    )(plan)


def plan(
    config: ConfigArgument = None,
    set_: SetOption = None,
    methods: MethodsOption = None,
    seeds: SeedsOption = None,
    gpu: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Estimate tokens, memory and GPU-hours on it, e.g. a100-80gb.", show_default=False),
    ] = None,
    lengths: Annotated[
        str | None,
        typer.Option(
            metavar="PROMPT/RESPONSE",
            help="Tokens of a prompt and a response for --gpu; else measured on the rows, or 256/256 without them.",
            show_default=False,
        ),
    ] = None,
    store: StoreOption = None,
    json_: JsonOption = False,
) -> None:
    """Check a config and show its stages: which rows share them, and which the store already holds.

    Works without network too: what only the hub can tell is then said to be missing, and the stages' keys are not final.
    """
    from harness.run.estimates.gpu_report import parse_lengths
    from harness.run.estimates.gpus import gpu_of
    from harness.run.estimates.plan import plan_report
    from harness.cli.plan_table import print_plan
    from harness.api.registry import Registry
    from harness.config import resolve

    path, chosen, given = find_config(config), gpu_of(gpu) if gpu else None, parse_lengths(lengths)
    comparison = resolve(read_config(path, set_, methods, seeds), Registry.load(), str(path), offline=True)
    report = plan_report(comparison, store_folder(store), chosen, given, str(path))
    if json_:
        typer.echo(json.dumps(report.as_dict()))
    else:
        print_plan(report)
