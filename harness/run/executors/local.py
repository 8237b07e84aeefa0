"""A graph on this machine: worker processes of one thread each, a stage at a time, the store between them.

Workers are plain processes that speak JSON lines; nothing is pickled. A worker whose parent is gone ends at once. A failed
stage takes its descendants with it and nothing else; one whose worker is killed is tried once more. Where there are GPUs, a
worker has one to itself or none, and stages with a model run on the former.
"""

from __future__ import annotations

import os
import queue
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, StoreError, StoreWriteError
from harness.run.executors.events import TIME_OVER, Events, Outcome, Stop, WorkerMessage
from harness.run.executors.process import Inbox, Worker
from harness.run.executors.schedule import Schedule, wants_gpu
from harness.run.graph import Graph
from harness.run.stages.time_limit import TIME_OVER as STAGE_TIME_OVER

LOOK_SECONDS = 1.0  # between two looks for workers that are gone


WORKER_STARTS = "its worker process starts"  # progress of a stage whose worker still loads libraries
MOST_DEATHS = 3  # of workers in the same place, one after another, before they had a stage


class LocalExecutor:
    """Runs a graph with a number of worker processes. A stage on several devices gets those of idle workers beside its own's:
    they are given nothing else until it ends.

    Args:
        workers: processes; each computes on one thread, or on a GPU.
        settings: what a worker needs to make its context: `store`, `mirror` and `checkpoints`; `ends_at` as of `Stop`.
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
        self.stop.ends_at = settings.get("ends_at")
        self.stop.wake = lambda: self.inbox.put((None, None))
        self._looked = 0.0
        self._libraries = True
        self._deaths: Counter[int] = Counter()
        self._lent: dict[int, int] = {}  # idle worker -> the one whose stage has its device

    def width(self) -> int:
        """Return how many stages that use a model it runs at a time."""
        return min(self.count, len(self.gpus) or self.count)

    def run(self, graph: Graph, present: set[str], events: Events) -> Outcome:
        """Make every stage of `graph` that is not in `present`, parents first.

        Raises:
            HarnessError: workers end before they are given a stage, again and again.
            StoreWriteError: nothing can be written any more.
        """
        schedule = Schedule(graph, present, self.settings.get("models_first", False), self.width())
        self._lent.clear()
        # Where no stage computes with a model, workers need not load torch: seconds each.
        self._libraries = any(wants_gpu(graph.stages[key]) for key in schedule.waiting)
        workers: list[Worker] = []
        self.stop.running = True
        try:
            for number in range(min(self.count, len(schedule.waiting))):
                workers.append(self._worker(number))
            while not schedule.done and not self.stop.ends(bool(schedule.running)):
                if not self.stop.asked:
                    self._hand_out(schedule, workers, events)
                worker, message = self._heard(workers)
                if worker is None or message is None or worker is not workers[worker.number]:
                    continue
                if message["event"] == "gone":
                    self._count(worker)
                self._note(message, worker, schedule, events)
                if message["event"] == "gone":
                    worker.stop()
                    workers[worker.number] = self._worker(worker.number)
        finally:
            self.stop.running = False
            for worker in workers:
                worker.stop()
        schedule.outcome.stopped = not schedule.done
        return schedule.outcome

    def _heard(self, workers: Sequence[Worker]) -> tuple[Worker | None, WorkerMessage | None]:
        """Return the next message; none after a second, so that dead workers are looked for from time to time."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            for worker in workers:
                worker.look()
        try:
            return self.inbox.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            return None, None

    def _hand_out(self, schedule: Schedule, workers: Sequence[Worker], events: Events) -> None:
        for worker in workers:
            if worker.stage is not None or worker.number in self._lent:
                continue
            idle = [other for other in workers if other.stage is None and other.number not in self._lent and other.gpu != ""]
            stage = schedule.take(False, 1) if worker.gpu == "" else schedule.take(free=len(idle))
            if stage is None:
                continue
            others = [other for other in idle if other is not worker][: schedule.needed(stage) - 1]
            self._lent |= {other.number: worker.number for other in others}
            events.started(stage)
            # GPUs that no worker has, with fewer --workers than GPUs, go to a stage that takes all workers.
            spare = self.gpus[self.width() :] if len(others) + 1 == self.width() else ()
            worker.give(stage, [*(each.gpu for each in (worker, *others) if each.gpu), *spare][: stage.devices])
            if not worker.ready:
                events.progress(stage.key, 0, 0, WORKER_STARTS)

    def _note(self, message: WorkerMessage, worker: Worker, schedule: Schedule, events: Events) -> None:
        """Enter a worker's message into the schedule, and pass it to the listeners."""
        stage = worker.stage
        if message["event"] == "ready":
            worker.ready, worker.began = True, time.monotonic()  # loading libraries is no part of a stage's time
            if stage is not None:
                events.progress(stage.key, 0, 0, "")
            return
        if stage is None:
            return
        if message["event"] == "progress":
            events.progress(stage.key, message["done"], message["total"], message["note"])
            return
        if message["event"] == "measured":
            events.measured(stage.key, message["values"])
            return
        if message["event"] == "unwritable":
            raise StoreWriteError(str(message["error"]))
        worker.stage = None
        self._lent = {other: leader for other, leader in self._lent.items() if leader != worker.number}
        if message["event"] == "stopped":
            schedule.put_back(stage)
            events.again(stage, TIME_OVER)
            return
        gone = message["event"] == "gone"
        if gone and worker.process.wait() < 0 and schedule.again(stage):
            events.again(stage, "its worker process was killed")
            return
        error = self._death(worker) if gone else message["error"]
        schedule.outcome.mirror = schedule.outcome.mirror or message.get("mirror")
        schedule.finish(stage, error)
        events.finished(stage, time.monotonic() - worker.began, error)

    def _count(self, worker: Worker) -> None:
        """Note the end of a worker that never had a stage.

        Raises:
            HarnessError: those before it in its place ended so too.
        """
        self._deaths[worker.number] = 0 if worker.used else self._deaths[worker.number] + 1
        if self._deaths[worker.number] >= MOST_DEATHS:
            raise HarnessError(
                f"{MOST_DEATHS} worker processes in a row ended before they were given a stage, the last one with code "
                f"{worker.process.wait()}: see {self._log(worker.number)}, and try fewer --workers"
            )

    def _worker(self, number: int) -> Worker:
        log = self._log(number)
        gpu = (self.gpus[number] if number < len(self.gpus) else "") if self.gpus else None
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            return Worker(number, {**self.settings, "libraries": self._libraries}, self.inbox, log, gpu)
        except OSError as error:
            raise StoreError(f"{log} cannot be written ({error.strerror}): choose another folder with --out") from error

    def _death(self, worker: Worker) -> str:
        code = worker.process.wait()
        if code == STAGE_TIME_OVER:
            return "it ran longer than its time limit and did not end, so its worker process was ended: raise the limit"
        how = f"was killed by {signal.Signals(-code).name} twice" if code < 0 else f"ended with code {code}"
        why = "; the machine may be out of memory: try fewer --workers" if -code == signal.SIGKILL else ""
        return f"its worker process {how}{why} (see {self._log(worker.number)})"

    def _log(self, number: int) -> Path:
        return self.logs / f"worker-{number}.log"


def visible_gpus() -> list[str]:
    """The GPUs of this machine, as `CUDA_VISIBLE_DEVICES` names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name and name != "-1"]
    from harness.store.environment import device_kind

    if device_kind() == "cpu":
        return []
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def places(gpus: Sequence[str]) -> int:
    """How many stages it runs at a time: one per GPU, or where there is none, one per core that this process may use."""
    return len(gpus) or len(os.sched_getaffinity(0))
