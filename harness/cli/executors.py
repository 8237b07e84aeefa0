"""Which executor a user means, and what this machine has for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.signals import finish_first
from harness.errors import HarnessError, did_you_mean

if TYPE_CHECKING:
    from harness.run.executors.events import Executor

EXECUTORS = ("local", "ray")
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
class Chosen:
    """An executor to be, and how many stages it runs at a time; None if it knows better."""

    make: Callable[..., Executor]
    workers: int


def choose_executor(name: str, workers: int | None, gpus: int | None, ray: dict[str, Any]) -> Chosen:
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
        return Chosen(partial(RayExecutor, gpus=gpus, stop=stop, **ray), workers or 0)
    from harness.run.executors.local import LocalExecutor
    from harness.run.executors.machine import places, visible_gpus

    devices = visible_gpus()[:gpus]
    return Chosen(partial(LocalExecutor, gpus=devices, stop=stop), workers or places(devices))
