"""`harness compare`: the whole comparison."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.executors import (
    AddressOption,
    ExecutorOption,
    GpusOption,
    MemoryOption,
    WorkersOption,
    choose_executor,
)
from harness.cli.options import (
    ConfigArgument,
    JsonOption,
    MethodsOption,
    MirrorOption,
    OutOption,
    SeedsOption,
    SetOption,
    StoreOption,
    find_config,
    mirror_url,
    read_config,
    store_folder,
)

if TYPE_CHECKING:
    from harness.board.build import Board

SOME_FAILED = 3


def register(app: typer.Typer) -> None:
    app.command(
        name="compare",
        epilog="Examples: harness compare  ·  harness compare my.yaml --seeds 0,1,2  ·  "
        "harness compare --methods sft,null,dpo --set budget.prompts=200",
    )(compare)


def compare(
    config: ConfigArgument = None,
    set_: SetOption = None,
    methods: MethodsOption = None,
    seeds: SeedsOption = None,
    out: OutOption = None,
    store: StoreOption = None,
    mirror: MirrorOption = None,
    executor: ExecutorOption = "local",
    workers: WorkersOption = None,
    gpus: GpusOption = None,
    ray_address: AddressOption = None,
    ray_memory_gb: MemoryOption = 0.0,
    track: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="Trackers to log to: tensorboard, wandb, mlflow.", show_default=False)
    ] = None,
    log_json: Annotated[bool, typer.Option("--log-json", help="Write each event to standard error as a line of JSON.")] = False,
    json_: JsonOption = False,
) -> None:
    """Train every method from the same start at the same budget, evaluate all, write one board.

    What is already in the store is not computed again: a run that was killed goes on, a second run takes seconds.
    Ctrl-C lets the running stages end, a second one ends at once; `harness status` shows the run from another terminal.
    Exit code 0: the board is complete. 2: the config or a plugin is wrong. 3: a row failed (the others are on the board).
    """
    from harness.run.compare import Means
    from harness.run.compare import compare as run
    from harness.config.problems import hidden

    path = find_config(config)
    raw = read_config(path, set_, methods, seeds)
    folder = out or Path("runs") / str(raw.get("name", path.stem))
    chosen = choose_executor(executor, workers, gpus, {"address": ray_address, "memory_bytes": int(ray_memory_gb * 1e9)})
    result = run(
        raw,
        folder=folder,
        store=store_folder(store),
        workers=chosen.workers,
        means=Means(
            executor=chosen.make,
            mirror=mirror_url(mirror),
            log=(sys.stderr,) if log_json else (),
            tracking=tuple(name.strip() for name in (track or "").split(",") if name.strip()),
        ),
        interactive=sys.stderr.isatty() and not json_ and not log_json,
        command=hidden(shlex.join(["harness", *sys.argv[1:]])),
        where=str(path),
        variables=os.environ,
    )
    if json_:
        typer.echo(json.dumps(_answer(result, folder)))
    else:
        show(result.board, folder)
    if result.outcome.failed:
        raise typer.Exit(SOME_FAILED)


def show(board: Board, folder: Path) -> None:
    """A board's table, and where its page lies."""
    from rich.console import Console

    from harness.board.views.terminal import print_table

    console = Console()
    print_table(board, console)
    console.print(f"Board: {folder / 'index.html'}", markup=False, highlight=False, soft_wrap=True)


def _answer(result: Any, folder: Path) -> dict[str, Any]:
    """What a script wants: the board, where it lies, what failed."""
    failed = {row.method: row.failed for row in result.board.rows if row.failed}
    return {"folder": str(folder), "failed": failed, "board": result.board.model_dump(mode="json", by_alias=True)}
