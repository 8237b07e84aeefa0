"""`harness compare`: the whole comparison."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
from harness.errors import HarnessError, did_you_mean

if TYPE_CHECKING:
    from harness.board.build import Board
    from harness.run.executors.events import Executor, Stop

EXECUTORS = ("local", "ray")
KEPT = "what was finished is kept, and the same command goes on from there"


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
    from harness.config.problems import hidden
    from harness.run.compare import RunOptions
    from harness.run.compare import compare as run

    path = find_config(config)
    raw = read_config(path, set_, methods, seeds)
    folder = out or Path("runs") / str(raw.get("name", path.stem))
    chosen = choose_executor(executor, workers, gpus, {"address": ray_address, "memory_bytes": int(ray_memory_gb * 1e9)})
    result = run(
        raw,
        folder=folder,
        store=store_folder(store),
        workers=chosen.workers,
        options=RunOptions(
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


ExecutorOption = Annotated[
    str, typer.Option(help="local: worker processes on this machine; ray: tasks on a Ray cluster (extra `ray`).")
]


WorkersOption = Annotated[
    int | None,
    typer.Option(min=1, help="Stages at a time; one per GPU, or one per core, if absent.", show_default=False),
]


GpusOption = Annotated[
    int | None,
    typer.Option(min=0, help="GPUs to use, one for each stage that runs; all that are visible if absent.", show_default=False),
]


AddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address", metavar="HOST:PORT", help="A running Ray cluster; without it, one on this machine.", show_default=False
    ),
]


MemoryOption = Annotated[
    float, typer.Option("--ray-memory-gb", min=0, help="Memory that Ray keeps for each stage; 0: not counted.")
]


@dataclass(frozen=True)
class ExecutorChoice:
    """An executor to be, and how many stages it runs at a time; None if it knows better."""

    make: Callable[..., Executor]
    workers: int


def choose_executor(name: str, workers: int | None, gpus: int | None, ray: dict[str, Any]) -> ExecutorChoice:
    """The executor of the options. From here on Ctrl-C lets running stages end first.

    Raises:
        HarnessError: there is none of that name, or Ray is not installed.
    """
    from harness.run.executors.events import Stop

    if name not in EXECUTORS:
        raise HarnessError(f"--executor {name!r}: {did_you_mean(name, EXECUTORS)}")
    stop = Stop()
    finish_first(stop)
    if name == "ray":
        from harness.run.executors.ray import RayExecutor

        os.environ.setdefault("RAY_AUTH_MODE", "token")  # without it, whoever reaches the port runs code as the user
        return ExecutorChoice(partial(RayExecutor, gpus=gpus, stop=stop, **ray), workers or 0)
    from harness.run.executors.local import LocalExecutor, places, visible_gpus

    devices = visible_gpus()[:gpus]
    return ExecutorChoice(partial(LocalExecutor, gpus=devices, stop=stop), workers or places(devices))


def leave(number: int, frame: FrameType | None) -> None:
    """End on a signal with the shell's exit code for it (130, 143); workers are stopped on the way out."""
    what = "interrupted" if number == signal.SIGINT else "terminated"
    _say(f"{what}; {KEPT}")
    sys.exit(128 + number)


def finish_first(stop: Stop) -> None:
    """The first Ctrl-C asks the run to end after the stages that are running; the second ends it at once."""

    def asked(number: int, frame: FrameType | None) -> None:
        if stop.asked:
            leave(number, frame)
        stop.ask()  # before a word of it: who reads that may press again at once
        _say("the running stages are finished first; press Ctrl-C again to end at once")

    signal.signal(signal.SIGINT, asked)


def _say(line: str) -> None:
    """A line on the standard error. That nobody can read it, or that the signal came amidst another line, changes nothing."""
    with contextlib.suppress(OSError, RuntimeError):
        sys.stderr.write(f"{line}\n")
