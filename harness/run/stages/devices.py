"""A stage's training on several devices: one process each, started with what accelerate makes of a config that ships.

A process that fails or dies ends the others, and the stage with one reason. Each ends by itself when its standard input does,
which is when the process that runs the stage is gone, however that came about.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib import resources
from typing import TYPE_CHECKING, Any

from harness.errors import StageError, TimeOverError
from harness.run.executors.events import TIME_OVER, WorkerMessage
from harness.run.graph import Stage
from harness.run.records import TrainingPayload
from harness.store import ArtifactDraft
from harness.training.settings import DeviceSettings

if TYPE_CHECKING:
    from harness.run.stages.context import Context

PATIENCE_SECONDS = 5.0  # for a process that has said its last word to end; and for a dead one to be seen

Inbox = queue.Queue[tuple[int, WorkerMessage]]


def devices_of(stage: Stage) -> DeviceSettings | None:
    """Return the devices that a stage trains on; None where it is a single one."""
    devices = TrainingPayload.of(stage).settings.get("devices") if "settings" in stage.payload else None
    return None if devices is None else DeviceSettings.model_validate(devices)


def run_on_devices(stage: Stage, context: Context, draft: ArtifactDraft) -> None:
    """Make a training stage's artifact by several processes, of which the first writes it.

    Raises:
        StageError: what the first of them to fail says, or how it died.
        TimeOverError: the run's time is over; a checkpoint was kept.
    """
    devices = devices_of(stage)
    assert devices is not None
    for key in stage.parents:
        context.store.open(key)  # verified once, and here
    with context.scratch() as scratch:
        order = {
            "stage": asdict(stage),
            "store": str(context.store.root),
            "checkpoints": dict(context.checkpoints),
            "checkpoint_minutes": context.checkpoint_minutes,
            "ends_at": context.ends_at,
            "count": devices.count,
            "scratch": str(scratch),
            "draft": str(draft.folder),
        }
        environment = launch_environment(devices)
        if context.gpus:  # of which this process may see one
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(context.gpus)
        inbox: Inbox = queue.Queue()
        processes: list[_Process] = []
        try:
            for rank in range(devices.count):
                processes.append(_Process(rank, order, environment, inbox))
            result = _follow(processes, inbox, context)
        finally:
            for process in processes:
                process.kill()
    draft.facts.update(result["facts"])
    draft.earlier_seconds = result["earlier_seconds"]
    draft.stands_for.update(result["stands_for"])


@contextmanager
def visible(gpus: Sequence[str]) -> Iterator[None]:
    """Let processes that this one starts see several GPUs that are the stage's alone: an engine may span them.

    What this process itself computes on stays the first, which is its own.
    """
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    if len(gpus) > 1:
        import torch

        # CUDA reads the variable once: this process must not take the others for its own later.
        if torch.cuda.is_available():
            torch.cuda.init()  # type: ignore[no-untyped-call]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    try:
        yield
    finally:
        if len(gpus) > 1:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
            os.environ.update({} if before is None else {"CUDA_VISIBLE_DEVICES": before})


def launch_environment(devices: DeviceSettings) -> dict[str, str]:
    """Return the environment that `accelerate launch --config_file` gives to each of its processes.

    Its own launcher starts no processes on a machine without GPUs and leaves them behind when it is killed, so that the
    processes are started here.
    """
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    with resources.as_file(resources.files("harness.configs") / "accelerate" / f"{devices.strategy}.yaml") as config:
        words = ["--config_file", str(config), "--num_processes", str(devices.count), "--main_process_port", "0", "-m", "rank"]
        arguments, defaults, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    if arguments.use_deepspeed:
        arguments.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        _, made = prepare_deepspeed_cmd_env(arguments)
    else:
        made = prepare_multi_gpu_env(arguments)
    own = ("ACCELERATE_", "FSDP_")
    return {name: value for name, value in made.items() if name.startswith(own)}


class _Process:
    """One process of the training, and the thread that reads what it says."""

    def __init__(self, rank: int, order: Mapping[str, Any], environment: Mapping[str, str], inbox: Inbox) -> None:
        self.rank, self.done = rank, False
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": order["count"], "LOCAL_WORLD_SIZE": order["count"]}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "harness.run.stages.rank"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment, **{name: str(value) for name, value in place.items()}},
        )
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # the listening thread reports the death
            self.process.stdin.write(json.dumps({**order, "rank": rank}).encode() + b"\n")
            self.process.stdin.flush()
        self.listener = threading.Thread(target=self._listen, args=(inbox,), daemon=True)
        self.listener.start()

    def killed_by(self, patience: float = 0.0) -> int:
        """The signal that ended it; 0 if none has."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        return max(0, -(self.process.returncode or 0))

    def kill(self) -> None:
        """End it: at once, or by itself where it is done."""
        if self.done:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE_SECONDS)
        self.process.kill()
        self.process.wait()
        self.listener.join(timeout=1)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def _listen(self, inbox: Inbox) -> None:
        assert self.process.stdout is not None
        with suppress(ValueError):  # the pipe was closed by `kill`
            for line in self.process.stdout:
                inbox.put((self.rank, json.loads(line)))
        inbox.put((self.rank, {"event": "gone"}))


def _follow(processes: list[_Process], inbox: Inbox, context: Context) -> WorkerMessage:
    """Report progress until all processes are done, and return the last message of the first one."""
    results: dict[int, WorkerMessage] = {}
    while len(results) < len(processes):
        rank, message = inbox.get()
        if message["event"] == "progress":
            context.report(message["done"], message["total"], message["note"])
        elif message["event"] == "measured":
            context.live.send(message["values"])
        elif message["event"] == "finished" and message["error"] is None:
            results[rank], processes[rank].done = message, True
        elif message["event"] == "stopped":  # after the checkpoint, which all of them have written
            raise TimeOverError(TIME_OVER)
        elif rank not in results:
            raise StageError(_reason(processes, rank, message))
    return results[0]


def _reason(processes: list[_Process], rank: int, message: WorkerMessage) -> str:
    """Why a training ended. A lost connection is what the others notice of a process that was killed."""
    if message["event"] == "finished" and message["ours"]:
        return str(message["error"])
    for process in (processes[rank], *processes):
        patience = PATIENCE_SECONDS if message["event"] == "gone" and process.rank == rank else 0.2
        if number := process.killed_by(patience):
            why = "; the machine may be out of memory" if number == signal.SIGKILL else ""
            return f"process {process.rank} of {len(processes)} was killed by {signal.Signals(number).name}{why}"
    said = message.get("error") or f"ended with code {processes[rank].process.returncode}"
    return f"process {rank} of {len(processes)}: {said}"
