"""`harness compare`: run a comparison; and what other commands share with it, a board's table and signals."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    named_origins,
    read_config,
    store_folder,
)
from harness.errors import HarnessError, did_you_mean
from harness.interrupts import leave_run, say

if TYPE_CHECKING:
    from harness.board.build import Board
    from harness.run.executors.events import Executor, Stop

EXECUTORS = ("local", "ray")
SOME_FAILED = 3  # exit code


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
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the folder's board, even if another comparison made it.")
    ] = False,
    view: Annotated[bool, typer.Option("--view", help="Show the run on a local web page: see `harness view`.")] = False,
    explain: ExplainOption = False,
    json_: JsonOption = False,
) -> None:
    """Train every method from the same start at the same budget, evaluate all, write one board.

    Artifacts in the store are not computed again: a killed run continues, and a second run takes seconds. A board of another
    config is never replaced: without --out the new one goes to runs/<name>-2, with --out the command refuses.
    Ctrl-C lets running stages finish, a second Ctrl-C ends them; `harness status` shows the run from another terminal.
    Exit code 0: the board is complete. 2: the config or a plugin is wrong. 3: a row failed (the others are on the board).
    """
    from harness.config.problems import hidden
    from harness.run.compare import RunOptions
    from harness.run.compare import compare as run
    from harness.run.observers import display_here

    path = find_config(config)
    raw = read_config(path, set_, methods, seeds)
    folder = out or Path("runs") / str(raw.get("name", path.stem))
    chosen = choose_executor(executor, workers, gpus, ray_address, int(ray_memory_gb * 1e9))
    with named_origins(path, set_, methods, seeds):
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
                # With --log-json standard error is for events; with --json a bar would draw over what a script shows.
                other_board="replace" if replace else "beside" if out is None else "refuse",
                display="none" if log_json else "lines" if json_ else display_here(),
                begun=show_live if view else None,
            ),
            command=hidden(shlex.join(["harness", *sys.argv[1:]])),
            where=str(path),
            variables=os.environ,
        )
    if json_:
        typer.echo(json.dumps(_answer(result.board, result.folder)))
    else:
        show(result.board, result.folder, explain)
        if result.folder != folder:
            typer.echo(f"{folder} holds the board of another comparison, which was left as it is.")
    if result.outcome.failed or any(row.failed for row in result.board.rows):
        raise typer.Exit(SOME_FAILED)


def show_live(folder: Path) -> None:
    """Start `harness view` beside this process; it ends by itself once this process and the page's readers are gone."""
    from harness.view.server import address, chosen_token, free_port

    port, token = free_port(), chosen_token(os.environ.get("HARNESS_VIEW_TOKEN"))
    command = [sys.executable, "-P", "-m", "harness", "view", str(folder), "--port", str(port), "--with", str(os.getpid())]
    # In a session of its own, Ctrl-C for the run does not reach it.
    environment = {**os.environ, "HARNESS_VIEW_TOKEN": token}
    subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True, env=environment)
    say(f"View: {address(port, token)}")


def show(board: Board, folder: Path, explain: bool = False) -> None:
    """Print a board's table and the path of its page.

    Args:
        explain: with how the table is read; without, the command that says it.
    """
    from rich.console import Console

    from harness.board.views.terminal import print_table

    console = Console()
    print_table(board, console, explain=explain)
    if not explain:
        hint = f"How to read the table: harness report {shlex.quote(str(folder))} --explain"
        console.print(hint, style="dim", markup=False, highlight=False, soft_wrap=True)
    console.print(f"Board: {folder / 'index.html'}", markup=False, highlight=False, soft_wrap=True)


def _answer(board: Board, folder: Path) -> dict[str, object]:
    """Return the answer for scripts: the board, its folder, the rows that failed, sentences on the first place."""
    failed = {row.method: row.failed for row in board.rows if row.failed}
    content = board.model_dump(mode="json", by_alias=True)
    return {"folder": str(folder), "failed": failed, "first_place": board.first_places(), "board": content}


ExplainOption = Annotated[bool, typer.Option("--explain", help="Say how the table is read: marks, intervals, tests, work.")]


ExecutorOption = Annotated[
    str, typer.Option(help="local: worker processes on this machine; ray: tasks on a Ray cluster (extra `ray`).")
]


WorkersOption = Annotated[
    int | None,
    typer.Option(min=1, help="Stages at a time; default: one per GPU, or one per core.", show_default=False),
]


GpusOption = Annotated[
    int | None,
    typer.Option(min=0, help="GPUs to use, one for each running stage; default: all visible ones.", show_default=False),
]


AddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address", metavar="HOST:PORT", help="A running Ray cluster; default: one on this machine.", show_default=False
    ),
]


MemoryOption = Annotated[
    float, typer.Option("--ray-memory-gb", min=0, help="Memory that Ray reserves for each stage; 0: none.")
]


@dataclass(frozen=True)
class ExecutorChoice:
    """A function that makes the executor, and the number of stages at a time; 0 leaves the number to Ray."""

    make: Callable[..., Executor]
    workers: int


def choose_executor(
    name: str, workers: int | None, gpus: int | None, ray_address: str | None = None, ray_memory: int = 0
) -> ExecutorChoice:
    """Return the executor of the options. From here on the first Ctrl-C lets running stages finish.

    Args:
        ray_memory: bytes that Ray reserves for each stage.

    Raises:
        HarnessError: no executor has this name, Ray is not installed, or there are fewer GPUs than asked for.
    """
    from harness.run.executors.events import Stop

    if name not in EXECUTORS:
        raise HarnessError(f"--executor {name!r}: {did_you_mean(name, EXECUTORS)}")
    if name == "ray" and find_spec("ray") is None:
        raise HarnessError("--executor ray needs Ray: pip install 'alignment-harness[ray]'")
    for option, value in (("--ray-address", ray_address), ("--ray-memory-gb", ray_memory)):
        if name != "ray" and value:
            raise HarnessError(f"{option} is for --executor ray: add that, or leave {option} out")
    stop = Stop()
    finish_first(stop)
    if name == "ray":
        from harness.run.executors.ray import RayExecutor

        # Without a token, anyone who reaches Ray's port can run code as this user.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        make = partial(RayExecutor, gpus=gpus, stop=stop, address=ray_address, memory_bytes=ray_memory)
        return ExecutorChoice(make, workers or 0)
    from harness.run.executors.local import LocalExecutor, places, visible_gpus
    from harness.store.environment import device_kind

    visible = visible_gpus()
    # `CUDA_VISIBLE_DEVICES` may name GPUs that PyTorch does not see.
    seen = 0 if gpus and device_kind() == "cpu" else len(visible)
    if gpus is not None and gpus > seen:
        raise HarnessError(f"--gpus {gpus}: PyTorch sees {seen or 'no'} GPU{'' if seen == 1 else 's'} here; give fewer, or 0")
    devices = visible[:gpus]
    return ExecutorChoice(partial(LocalExecutor, gpus=devices, stop=stop), workers or places(devices))


def finish_first(stop: Stop) -> None:
    """Let the first Ctrl-C end the run after its running stages, and the second one end it at once.

    Before stages run, and after them, the first one ends it at once.
    """

    def asked(number: int, frame: object) -> None:
        if stop.asked or not stop.running:
            leave_run(number, frame)
            return
        # Before the message: whoever reads it may press Ctrl-C again, which must find the stop requested.
        stop.ask()
        say("finishing the running stages first; press Ctrl-C again to end at once")

    signal.signal(signal.SIGINT, asked)
    signal.signal(signal.SIGTERM, leave_run)
