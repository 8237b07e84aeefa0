"""A graph on this machine: worker processes of one thread each, a stage at a time, the store between them.

Workers are plain processes that speak JSON lines; nothing is pickled. A worker whose parent is gone ends at once. A failed
stage takes its descendants with it and nothing else.
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
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.errors import StoreError
from harness.execute.events import Events, Outcome
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


class Worker:
    """One worker process and the thread that reads what it says."""

    def __init__(
        self, number: int, settings: Mapping[str, Any], inbox: queue.Queue[tuple[int, dict[str, Any]]], log: Path
    ) -> None:
        self.number = number
        self.stage: Stage | None = None
        self.began = 0.0
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "harness.execute.worker"],  # -P: files in the current folder shadow no library
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                env={**os.environ, **WORKER_ENVIRONMENT},
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

    def _listen(self, inbox: queue.Queue[tuple[int, dict[str, Any]]]) -> None:
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
        workers: processes; each computes on one thread.
        settings: what a worker needs to make its context: `store` and `checkpoints`.
        logs: a folder for what workers write to their standard error.
    """

    def __init__(self, workers: int, settings: Mapping[str, Any], logs: Path) -> None:
        self.count = max(1, workers)
        self.settings = settings
        self.logs = logs
        self.inbox: queue.Queue[tuple[int, dict[str, Any]]] = queue.Queue()

    def run(self, graph: Graph, present: set[str], events: Events) -> Outcome:
        """Make every stage of `graph` that is not in `present`, parents first."""
        schedule = Schedule(graph, present)
        outcome = schedule.outcome
        workers: dict[int, Worker] = {}
        try:
            for number in range(min(self.count, len(schedule.waiting))):
                workers[number] = self._worker(number)
            while not schedule.done:
                self._hand_out(schedule, workers, events)
                number, message = self.inbox.get()
                self._note(message, workers[number], schedule, events)
                if message["event"] == "gone":
                    workers[number].stop()
                    workers[number] = self._worker(number)
        finally:
            for worker in workers.values():
                worker.stop()
        return outcome

    def _hand_out(self, schedule: Schedule, workers: Mapping[int, Worker], events: Events) -> None:
        for worker in workers.values():
            if worker.stage is None and (stage := schedule.take()) is not None:
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
        error = message["error"] if message["event"] == "finished" else self._death(worker)
        worker.stage = None
        schedule.finish(stage, error)
        events.finished(stage, time.monotonic() - worker.began, error)

    def _worker(self, number: int) -> Worker:
        log = self.logs / f"worker-{number}.log"
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            return Worker(number, self.settings, self.inbox, log)
        except OSError as error:
            raise StoreError(f"{log} cannot be written ({error.strerror}): choose another folder with --out") from error

    def _death(self, worker: Worker) -> str:
        code = worker.process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        why = "; the machine may be out of memory" if -code == signal.SIGKILL else ""
        return f"its worker process {how}{why} (see {self.logs / f'worker-{worker.number}.log'})"


class Schedule:
    """Which stage may run next: the longest way to go first, and of stages that share samples one at a time."""

    def __init__(self, graph: Graph, present: set[str]) -> None:
        self.graph = graph
        self.outcome = Outcome()
        self.waiting = {stage.key for stage in graph if stage.key not in present}
        self.running: dict[str, Stage] = {}
        self.made = set(present)
        self._urgency = _ways_to_go(graph)

    @property
    def done(self) -> bool:
        return not self.waiting and not self.running

    def take(self) -> Stage | None:
        """The next stage to run, or None while none may."""
        busy = {stage.shares for stage in self.running.values() if stage.shares}
        ready = [
            stage for key in self.waiting if (stage := self.graph.stages[key]).parents <= self.made and stage.shares not in busy
        ]
        if not ready:
            return None
        stage = max(ready, key=lambda stage: (self._urgency[stage.key], stage.key))
        self.waiting.discard(stage.key)
        self.running[stage.key] = stage
        return stage

    def finish(self, stage: Stage, error: str | None) -> None:
        """Note how a stage ended; a failure skips all that need it."""
        del self.running[stage.key]
        if error is None:
            self.made.add(stage.key)
            self.outcome.ran.add(stage.key)
            return
        self.outcome.failed[stage.key] = error
        for key in tuple(self.waiting):
            if stage.key in self.graph.ancestors(key):
                self.waiting.discard(key)
                self.outcome.skipped[key] = stage.key


def _ways_to_go(graph: Graph) -> dict[str, float]:
    """Weight of the heaviest way from each stage to the end of the graph."""
    ways: dict[str, float] = {stage.key: stage.weight for stage in graph}
    for stage in reversed(list(graph)):
        for parent in stage.parents:
            ways[parent] = max(ways[parent], graph.stages[parent].weight + ways[stage.key])
    return ways
