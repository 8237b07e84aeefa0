"""A graph on this machine: worker processes of one thread each, a stage at a time, the store between them.

Workers are plain processes that speak JSON lines; nothing is pickled. A worker whose parent is gone ends at once. A failed
stage takes its descendants with it and nothing else; one whose worker is killed is tried once more. Where there are GPUs, a
worker has one to itself or none, and stages with a model run on the former.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.errors import StoreError, StoreWriteError
from harness.execute.events import Events, Outcome, Stop
from harness.execute.schedule import Schedule
from harness.graph import Graph, Stage

# Single-threaded workers that keep freed memory: measured half again as fast for small models (docs/decisions.md).
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
PATIENCE_SECONDS = 5.0  # for an idle worker to end by itself
WAKE = -1  # in place of a worker's number: the executor was asked to stop

Inbox = queue.SimpleQueue[tuple[int, dict[str, Any]]]  # signal handlers may put into it


class Worker:
    """One worker process and the thread that reads what it says."""

    def __init__(self, number: int, settings: Mapping[str, Any], inbox: Inbox, log: Path, gpu: str | None = None) -> None:
        self.number = number
        self.gpu = gpu
        self.stage: Stage | None = None
        self.began = 0.0
        device = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "harness.execute.worker"],  # -P: files in the current folder shadow no library
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                env={**os.environ, **WORKER_ENVIRONMENT, **device},
                process_group=0,  # Ctrl-C is for the parent, which lets a stage end first
            )
        self._say(dict(settings))
        self.listener = threading.Thread(target=self._listen, args=(inbox,), daemon=True)
        self.listener.start()

    def give(self, stage: Stage) -> None:
        """Hand the worker its next stage."""
        self.stage, self.began = stage, time.monotonic()
        self._say(asdict(stage))

    def stop(self) -> None:
        """End the process: by itself if it is idle, else at once; what it was making is dropped with its part folder."""
        if self.stage is None:
            self._say({})
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE_SECONDS)
        self.process.kill()
        self.process.wait()
        self.listener.join(timeout=1)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # what a dead worker was still to be told
                    pipe.close()

    def _say(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the listening thread reports the death

    def _listen(self, inbox: Inbox) -> None:
        assert self.process.stdout is not None
        try:
            for line in self.process.stdout:
                inbox.put((self.number, json.loads(line)))
        except ValueError:
            pass  # the pipe was closed by `stop`
        inbox.put((self.number, {"event": "gone"}))


class LocalExecutor:
    """Runs a graph with a number of worker processes.

    Args:
        workers: processes; each computes on one thread, or on a GPU.
        settings: what a worker needs to make its context: `store`, `mirror` and `checkpoints`.
        logs: a folder for what workers write to their standard error.
        gpus: names of the GPUs as `CUDA_VISIBLE_DEVICES` takes them: one for each of the first workers.
        stop: a wish to end.
    """

    def __init__(
        self,
        workers: int,
        settings: Mapping[str, Any],
        logs: Path,
        *,
        gpus: Sequence[str] = (),
        stop: Stop | None = None,
    ) -> None:
        self.count = max(1, workers)
        self.settings = settings
        self.logs = logs
        self.gpus = tuple(gpus)
        self.inbox: Inbox = queue.SimpleQueue()
        self.stop = stop or Stop()
        self.stop.wake = lambda: self.inbox.put((WAKE, {}))

    def run(self, graph: Graph, present: set[str], events: Events) -> Outcome:
        """Make every stage of `graph` that is not in `present`, parents first.

        Raises:
            StoreWriteError: nothing can be written any more.
        """
        schedule = Schedule(graph, present)
        workers: dict[int, Worker] = {}
        try:
            for number in range(min(self.count, len(schedule.waiting))):
                workers[number] = self._worker(number)
            while not schedule.done and not (self.stop.asked and not schedule.running):
                if not self.stop.asked:
                    self._hand_out(schedule, workers, events)
                number, message = self.inbox.get()
                if number == WAKE:
                    continue
                self._note(message, workers[number], schedule, events)
                if message["event"] == "gone":
                    workers[number].stop()
                    workers[number] = self._worker(number)
        finally:
            for worker in workers.values():
                worker.stop()
        schedule.outcome.stopped = not schedule.done
        return schedule.outcome

    def _hand_out(self, schedule: Schedule, workers: Mapping[int, Worker], events: Events) -> None:
        for worker in workers.values():
            if worker.stage is None and (stage := schedule.take(False if worker.gpu == "" else None)) is not None:
                events.started(stage)
                worker.give(stage)

    def _note(self, message: Mapping[str, Any], worker: Worker, schedule: Schedule, events: Events) -> None:
        """What a worker said, or that it is gone, in the schedule and to whoever watches."""
        stage = worker.stage
        if stage is None:
            return
        if message["event"] == "progress":
            events.progress(stage.key, message["done"], message["total"], message["note"])
            return
        if message["event"] == "unwritable":
            raise StoreWriteError(message["error"])
        worker.stage = None
        gone = message["event"] == "gone"
        if gone and worker.process.wait() < 0 and schedule.again(stage):
            events.again(stage, "its worker process was killed")
            return
        error = self._death(worker) if gone else message["error"]
        schedule.finish(stage, error)
        events.finished(stage, time.monotonic() - worker.began, error)

    def _worker(self, number: int) -> Worker:
        log = self.logs / f"worker-{number}.log"
        gpu = (self.gpus[number] if number < len(self.gpus) else "") if self.gpus else None
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            return Worker(number, {**self.settings, "gpus": self.gpus}, self.inbox, log, gpu)
        except OSError as error:
            raise StoreError(f"{log} cannot be written ({error.strerror}): choose another folder with --out") from error

    def _death(self, worker: Worker) -> str:
        code = worker.process.wait()
        how = f"was killed by {signal.Signals(-code).name} twice" if code < 0 else f"ended with code {code}"
        why = "; the machine may be out of memory: try fewer --workers" if -code == signal.SIGKILL else ""
        return f"its worker process {how}{why} (see {self.logs / f'worker-{worker.number}.log'})"
