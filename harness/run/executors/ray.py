"""A graph on a Ray cluster: each stage a task with CPUs, a GPU and memory, the store on a file system that all nodes see.

A task whose worker or node is lost is started again, a few times; what the lost one was making is not in the store, and its
lease is taken over. Ray's own retries would be neither counted nor told, and without end where it kills for memory. The order
is that of every executor (`schedule`). Nothing but JSON goes to a task and comes back.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

from harness.config.problems import quoted
from harness.errors import HarnessError, StoreWriteError
from harness.run.executors.events import TIME_OVER, Events, Outcome, Stop, WorkerMessage
from harness.run.executors.process import WORKER_ENVIRONMENT
from harness.run.executors.schedule import Schedule, wants_gpu
from harness.run.graph import Graph, Stage
from harness.store import Store

Node = Mapping[str, Any]  # as `ray.nodes()` describes it
REPORT_SECONDS = 0.5  # between two reports of progress
MOST_BYTES = 200_000  # of one stage's output travel: the end, where the reason of a failure stands
STREAMS = (1, 2)
NUMBERS = (signal.SIGINT, signal.SIGTERM)


LOOK_SECONDS = 0.5  # between two looks at progress


REACH_SECONDS = 10.0  # for a cluster to answer


RETRIES = 3  # of a task whose worker or node is lost


class LostError(Exception):
    """A task whose worker or node is gone."""


@dataclass(frozen=True)
class Running:
    """A stage that Ray has: waiting for resources, or computing."""

    stage: Stage
    began: float = field(default_factory=time.monotonic)


class RayExecutor:
    """Runs a graph as tasks of Ray.

    Args:
        workers: stages at a time; 0 for as many as the cluster has CPUs.
        settings: what a task needs to make its context: `store`, `mirror` and `checkpoints`, the same on every node; `ends_at`
            as of `Stop`.
        logs: a folder for what stages write to their standard streams, which comes back when they end.
        address: of a running cluster; a local one is started, and ended, without it.
        gpus: 0 to keep stages off GPUs; one for each stage with a model, where the cluster has any, otherwise.
        memory_bytes: that Ray keeps for each stage; 0: not counted.
        stop: a wish to end.

    Raises:
        HarnessError: Ray is not installed.
    """

    def __init__(
        self,
        workers: int,
        settings: Mapping[str, Any],
        logs: Path,
        *,
        address: str | None = None,
        gpus: int | None = None,
        memory_bytes: int = 0,
        stop: Stop | None = None,
    ) -> None:
        try:
            import ray
        except ImportError:
            raise HarnessError("--executor ray needs Ray: pip install 'alignment-harness[ray]'") from None
        self.ray: Any = ray
        self.workers = workers
        self.settings = dict(settings)
        self.log = logs / "ray.log"
        self.address = address
        self.gpus = gpus
        self.memory_bytes = memory_bytes
        self.stop = stop or Stop()
        self.stop.ends_at = self.settings.get("ends_at")
        self._connected = False

    def width(self) -> int:
        """Return how many stages that use a model it runs at a time, with the nodes that the cluster has now.

        Raises:
            HarnessError: the cluster cannot be reached.
        """
        self._connect()
        gpus = 0 if self.gpus == 0 else int(self.ray.cluster_resources().get("GPU", 0))
        return min(self._slots(), gpus or self._slots())

    def run(self, graph: Graph, present: set[str], events: Events) -> Outcome:
        """Make every stage of `graph` that is not in `present`, parents first.

        Raises:
            HarnessError: the cluster cannot be reached, or no node of it can hold a stage.
            StoreWriteError: nothing can be written any more, or a node does not see the store.
        """
        schedule = Schedule(graph, present, self.settings.get("models_first", False))
        if schedule.done:
            return schedule.outcome
        self._connect()
        self.stop.running = True
        try:
            with Store(Path(self.settings["store"])).part() as mark, Deferred() as signals:
                self.settings["mark"] = str(mark)
                nodes = self._nodes()
                if self.gpus and not any(_has(node, "GPU") >= 1 for node in nodes):
                    raise HarnessError(
                        f"--gpus {self.gpus}: no node of the Ray cluster has a GPU; give 0, or leave the option out"
                    )
                for key in schedule.waiting:
                    self._resources(graph.stages[key], nodes)
                self._run(schedule, events, signals)
        finally:
            self.stop.running = False
            self.ray.shutdown()
            self._connected = False
        schedule.outcome.stopped = not schedule.done
        return schedule.outcome

    def _connect(self) -> None:
        if self._connected:
            return
        before = signal.getsignal(signal.SIGTERM)
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            if self.address is not None:
                reach(self.address)
                self.ray.init(address=self.address, **quiet)
            else:
                local = {"num_cpus": self.workers} if self.workers else {}
                self.ray.init(address="local", include_dashboard=False, **local, **quiet)
        except Exception as error:  # whatever the network and Ray raise
            place = self.address or "on this machine"
            raise HarnessError(
                f"no Ray cluster {place} ({type(error).__name__}: {error}): start one with `ray start --head`; "
                "with token authentication every process needs RAY_AUTH_MODE=token and the same token"
            ) from error
        self._connected = True
        if threading.current_thread() is threading.main_thread() and callable(before):
            signal.signal(signal.SIGTERM, before)  # Ray puts its own there, which would hide how the run ended

    def _run(self, schedule: Schedule, events: Events, signals: Deferred) -> None:
        said = self._queue()
        running: dict[Any, Running] = {}
        while not schedule.done and not self.stop.ends(bool(running)):
            while not self.stop.asked and len(running) < self._slots() and (stage := schedule.take()) is not None:
                events.started(stage)
                running[self._submit(stage, said)] = Running(stage)
            ended, _ = self.ray.wait(list(running), num_returns=1, timeout=LOOK_SECONDS)
            for key, message in self._heard(said):
                if key in schedule.running and message["event"] == "progress":
                    events.progress(key, message["done"], message["total"], message["note"])
                elif key in schedule.running:
                    events.measured(key, message["values"])
            signals.handle()
            for reference in ended:
                self._note(reference, running.pop(reference), schedule, events)

    def _note(self, reference: Any, entry: Running, schedule: Schedule, events: Events) -> None:
        """How a task ended, or that it is to be started again, in the schedule and to whoever watches."""
        try:
            message = self._result(reference)
        except LostError as lost:
            if schedule.again(entry.stage, 1 + RETRIES):
                events.again(entry.stage, f"its task was lost ({lost})")
                return
            message = {"event": "finished", "error": f"its task was lost, and {RETRIES} times again: {lost}"}
        if message["event"] == "stopped":
            schedule.put_back(entry.stage)
            events.again(entry.stage, TIME_OVER)
            return
        schedule.outcome.mirror = schedule.outcome.mirror or message.get("mirror")
        schedule.finish(entry.stage, message["error"])
        events.finished(entry.stage, time.monotonic() - entry.began, message["error"])

    def _queue(self) -> Any:
        """For what tasks say of their progress. It lives where the run does: a node may be lost, and started again if it is."""
        from ray.util.queue import Queue
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(self.ray.get_runtime_context().get_node_id(), soft=True)
        return Queue(actor_options={"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": here})

    def _heard(self, said: Any) -> Sequence[tuple[str, WorkerMessage]]:
        """Return stages' messages since the last look; none while the queue cannot be reached, since a run needs none."""
        try:
            heard: Sequence[tuple[str, WorkerMessage]] = said.get_nowait_batch(min(said.qsize(), 1000))
        except self.ray.exceptions.RayError:
            return ()
        return heard

    def _slots(self) -> int:
        """Stages at a time: what was asked, or the CPUs that the cluster has now."""
        return self.workers or max(1, int(self.ray.cluster_resources().get("CPU", 1)))

    def _nodes(self) -> list[Node]:
        return [node for node in self.ray.nodes() if node["Alive"]]

    def _resources(self, stage: Stage, nodes: Sequence[Node]) -> Mapping[str, Any]:
        return resources(stage, nodes, self.gpus, self.memory_bytes)

    def _submit(self, stage: Stage, said: Any) -> Any:
        task = self.ray.remote(run_task).options(
            **self._resources(stage, self._nodes()),
            max_retries=0,
            name=stage.title,
            runtime_env={"env_vars": WORKER_ENVIRONMENT},
        )
        return task.remote(asdict(stage), self.settings, said)

    def _result(self, reference: Any) -> WorkerMessage:
        """How a task ended: its `error`, and why its node left the mirror out.

        Raises:
            LostError: its worker or its node is gone.
            StoreWriteError: nothing can be written any more.
        """
        try:
            message: WorkerMessage = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            if (cause := getattr(error, "cause", None)) is not None:
                why = quoted(f"{type(cause).__name__}: {cause}")
                return {
                    "event": "finished",
                    "error": f"Ray could not run it ({why}): the harness must be the same on all nodes",
                }
            first = next(iter(str(error).splitlines()), "")
            raise LostError(quoted(f"{type(error).__name__}: {first}")) from error
        self._keep(message.get("log", ""))
        if message["event"] == "unwritable":
            raise StoreWriteError(str(message["error"]))
        return message

    def _keep(self, written: str) -> None:
        """Append a stage's output to the log, for people; a log that cannot be written stops nothing."""
        if written:
            with contextlib.suppress(OSError):
                self.log.parent.mkdir(parents=True, exist_ok=True)
                with self.log.open("a", encoding="utf-8") as stream:
                    stream.write(written)


def reach(address: str) -> None:
    """Connect once to where a cluster should be: Ray itself would try for many minutes, and say nothing.

    Raises:
        OSError: nobody answers.
    """
    host, _, port = address.rpartition(":")
    if host and "://" not in address and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()


def resources(stage: Stage, nodes: Sequence[Node], gpus: int | None, memory_bytes: int) -> Mapping[str, Any]:
    """Return the resources that Ray keeps for a stage. CPUs may be fewer than its devices.

    Args:
        nodes: those that are alive.
        gpus: 0 to keep stages off GPUs.
        memory_bytes: for each stage; 0: not counted.

    Raises:
        HarnessError: no node is so large.
    """
    count = stage.devices
    gpu = wants_gpu(stage) and gpus != 0 and any(_has(node, "GPU") >= 1 for node in nodes)
    need = {"CPU": 1, "GPU": count if gpu else 0, "memory": memory_bytes}
    fitting = [node for node in nodes if all(_has(node, kind) >= amount for kind, amount in need.items())]
    if not fitting:
        largest = max(nodes, key=lambda node: [_has(node, kind) for kind in ("GPU", "memory", "CPU")], default={})
        raise HarnessError(
            f"{stage.title} needs a Ray node with {_amounts(need)}, and the largest of {len(nodes)}, "
            f"{largest.get('NodeManagerHostname')}, has {_amounts({kind: _has(largest, kind) for kind in need})}: "
            "ask for fewer devices or a smaller --ray-memory-gb, or start Ray on a larger node"
        )
    cpus = min(count, int(max(_has(node, "CPU") for node in fitting)))
    return {"num_cpus": cpus, "num_gpus": need["GPU"]} | ({"memory": memory_bytes} if memory_bytes else {})


def _has(node: Node, kind: str) -> float:
    return float(node.get("Resources", {}).get(kind, 0))


def _amounts(amounts: Mapping[str, float]) -> str:
    memory = amounts["memory"]
    return f"{amounts['CPU']:g} CPU, {amounts['GPU']:g} GPU and {memory / 1e9:.1f} GB of memory"


def run_task(stage: Mapping[str, Any], settings: Mapping[str, Any], said: Any) -> WorkerMessage:
    """In a Ray worker: make one stage; how it ended, and what it wrote to its standard streams."""
    from harness.run.executors.ray import captured, tail
    from harness.run.executors.worker import attempt, make_context
    from harness.run.stages.context import quiet_libraries
    from harness.run.stages.live import Live

    if apart := _apart(settings):
        return apart
    quiet_libraries()
    last = 0.0

    def report(done: int, total: int, note: str) -> None:
        nonlocal last
        if time.monotonic() - last > REPORT_SECONDS:
            last = time.monotonic()
            send({"event": "progress", "done": done, "total": total, "note": note})

    def send(message: WorkerMessage) -> None:
        with contextlib.suppress(Exception):  # nobody hears it: the stage goes on
            said.put_nowait((stage["key"], message))

    live = Live(lambda values: send({"event": "measured", "values": values}))
    with captured() as written:
        # Ray names the GPUs that it keeps for the task.
        gpus = tuple(name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name)
        ended = attempt(Stage(**stage), lambda: replace(make_context(settings, report, live), gpus=gpus))
        return {**(_apart(settings) or ended), "log": tail(written)}


def _apart(settings: Mapping[str, Any]) -> WorkerMessage | None:
    """Return an error unless this node's store is the one in which the run put its mark."""
    if Path(settings["mark"]).is_dir():
        return None
    fix = "all nodes must see one folder under that path: mount it there, or give another with --store"
    return {
        "event": "unwritable",
        "error": f"the node {platform.node()} does not see the store {settings['store']} of this run; {fix}",
    }


@contextmanager
def captured() -> Iterator[BinaryIO]:
    """Standard output and error of this process go to the file for a while, also what libraries below Python write."""
    with tempfile.TemporaryFile() as file:
        _flush()
        before = {number: os.dup(number) for number in STREAMS}
        try:
            for number in STREAMS:
                os.dup2(file.fileno(), number)
            yield file
        finally:
            _flush()
            for number, kept in before.items():
                os.dup2(kept, number)
                os.close(kept)


def tail(file: BinaryIO) -> str:
    """The end of what was written so far, as text."""
    _flush()
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - MOST_BYTES))
    return file.read().decode("utf-8", "replace")


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


class Deferred:
    """Within the block, signals are noted; `handle` calls who handled them before."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._come: list[int] = []

    def __enter__(self) -> Deferred:
        if threading.current_thread() is threading.main_thread():
            for number in NUMBERS:
                if callable(before := signal.getsignal(number)):
                    self._before[number] = before
                    signal.signal(number, self._note)
        return self

    def handle(self) -> None:
        """Call the handlers of the signals that came; they may raise."""
        while self._come:
            number = self._come.pop(0)
            self._before[number](number, None)

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._come.append(number)
